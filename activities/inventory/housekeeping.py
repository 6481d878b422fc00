"""Removing what is no more: providers, and rows that are too old to tell anything."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, delete, exists, not_, select, update

from mulligan.activities.errors import Conflict, NotFound
from mulligan.activities.inventory import failures as failing
from mulligan.activities.inventory import providers as store
from mulligan.activities.inventory.claims import ClaimState
from mulligan.activities.inventory.database import Database, now
from mulligan.activities.inventory.tables import (
    FINAL,
    LIVE_CLAIM,
    NOT_FINAL,
    claim_items,
    claims,
    edits,
    failures,
    images,
    inventories,
    machines,
    provider_capabilities,
    providers,
    runs,
)
from mulligan.activities.values import Provider

_NAMED = 10
"""So many machines are named when a provider cannot be removed."""

_DAY = 86_400


def retire(connection: Connection, name: str) -> Provider:
    """See `Inventory.retire_provider`."""
    store.lock(connection, name)
    _refuse_held(connection, name)
    known = store.get(connection, name)
    if not known.enabled:
        return known
    return store.change(connection, name, {"enabled": False, "generation": known.generation + 1})


def remove(connection: Connection, name: str) -> bool:
    """See `Inventory.remove_provider`; whether it was there."""
    failing.take_turn(connection)
    try:
        store.lock(connection, name)
    except NotFound:
        return False
    _refuse_held(connection, name)
    connection.execute(update(claims).where(claims.c.provider == name).values(provider=None))
    failing.forget_provider(connection, name)
    for table in (provider_capabilities, inventories):
        connection.execute(delete(table).where(table.c.provider == name))
    connection.execute(delete(providers).where(providers.c.name == name))
    return True


def _refuse_held(connection: Connection, name: str) -> None:
    chosen = select(claims.c.project, claims.c.machine, claims.c.state).where(claims.c.provider == name, LIVE_CLAIM)
    rows = connection.execute(chosen.order_by(claims.c.project, claims.c.machine)).all()
    if not rows:
        return
    named = ", ".join(f"{row.machine} (project {row.project})" for row in rows[:_NAMED])
    more = f" and {len(rows) - _NAMED} more" if len(rows) > _NAMED else ""
    release = f"mulligan machine release {rows[0].machine} --project {rows[0].project}"
    if rows[0].state == ClaimState.QUARANTINED:
        release += " --forget"
        how = f"its release was tried before: if the provider is gone for good, `{release}` gives it up"
    else:
        how = f"release them first, e.g. `{release}` (with `--forget` where that ends quarantined: it is gone)"
    raise Conflict(
        f"provider {name!r} cannot be removed: {len(rows)} machine(s) hold something of it: {named}{more}; {how}",
        remedy=release,
        provider=name,
        machines=",".join(f"{row.project}/{row.machine}" for row in rows[:_NAMED]),
    )


def wanted_digests(connection: Connection) -> set[str]:
    """See `Inventory.wanted_digests`."""
    registered = connection.execute(select(images.c.image)).scalars()
    running = connection.execute(select(machines.c.image).where(NOT_FINAL)).scalars()
    return {image.digest for image in (*registered, *running)}


def prune(database: Database, days: int, limit: int) -> int:
    """See `Inventory.prune`. Each kind in its own short transaction; what is looked for is read beforehand."""
    with database.read() as connection:
        old = {name: connection.execute(chosen.limit(limit)).scalars().all() for name, chosen in _old(days).items()}
    if old["failures"]:
        with database.write() as connection:
            failing.prune(connection, old["failures"])
    for table, key, ids in (
        (runs, runs.c.run_id, old["runs"]),
        (claim_items, claim_items.c.claim_id, old["claims"]),
        (claims, claims.c.id, old["claims"]),
        (machines, machines.c.id, old["machines"]),
        (edits, edits.c.id, old["edits"]),
    ):
        if ids:
            with database.write() as connection:
                connection.execute(delete(table).where(key.in_(ids)))
    return sum(len(ids) for ids in old.values())


def _old(days: int) -> dict[str, Any]:
    """What may go, by the database's clock. What is in it stays so: ended is ended."""
    then = now(-days * _DAY)
    of_claim = exists().where(machines.c.id == claims.c.machine_id, NOT_FINAL)
    of_run = exists().where(machines.c.id == runs.c.machine_id, NOT_FINAL)
    claimed = exists().where(claims.c.machine_id == machines.c.id)
    return {
        "failures": select(failures.c.id).where(failures.c.at < then),
        "edits": select(edits.c.id).where(edits.c.at < then),
        "runs": select(runs.c.run_id).where(runs.c.started_at < then, runs.c.ended_at < then, not_(of_run)),
        "claims": select(claims.c.id).where(not_(LIVE_CLAIM), claims.c.released_at < then, not_(of_claim)),
        "machines": select(machines.c.id).where(
            machines.c.state.in_(FINAL), machines.c.created_at < then, not_(claimed)
        ),
    }
