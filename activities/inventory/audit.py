"""The audit: do the counters add up to the live claims, and has every live claim a machine? Repairs on command only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, case, func, or_, select, update

from mulligan.activities.inventory import claiming, edits, room
from mulligan.activities.inventory import providers as store
from mulligan.activities.inventory.claims import ClaimState, Drift, DriftKind
from mulligan.activities.inventory.database import Database
from mulligan.activities.inventory.edits import By, EditKind
from mulligan.activities.inventory.tables import (
    FINAL,
    LIVE_CLAIM,
    claim_items,
    claims,
    inventories,
    machines,
    providers,
)


def audit(connection: Connection) -> list[Drift]:
    """All drifts on one snapshot, counters first, by provider."""
    return [*_counters(connection), *_orphans(connection)]


def repair(database: Database, drifts: Sequence[Drift], by: By) -> list[Drift]:
    """Mend those drifts that are still there, each in its own transaction; returns those that it mended.

    Who had it mended is kept with the provider.
    """
    mended = []
    for drift in drifts:
        with database.write() as connection:
            store.lock(connection, drift.provider)
            now_mended = _mend(connection, drift)
            for each in now_mended:
                edits.keep(connection, EditKind.PROVIDER, each.provider, f"repaired: {each.detail}", by)
            mended += now_mended
    return mended


def _mend(connection: Connection, drift: Drift) -> list[Drift]:
    if drift.kind is DriftKind.CLAIM:
        found = _orphans(connection, claims.c.id == drift.claim_id)
        for each in found:
            # What ran there was not seen to be removed: bare metal has to be erased before anyone gets it.
            whole = select(claims.c.whole).where(claims.c.id == each.claim_id)
            claiming.release(connection, each.claim_id, dirty=connection.execute(whole).scalar_one())
        return found
    mine = (inventories.c.provider == drift.provider) & (inventories.c.resource == drift.resource)
    found = _counters(connection, mine)
    for each in found:
        connection.execute(update(inventories).where(mine).values(used=each.claimed))
        room.note(connection, each.provider)
    return found


def _counters(connection: Connection, *where: ColumnElement[bool]) -> list[Drift]:
    live = (
        select(claims.c.provider, claim_items.c.resource, func.sum(claim_items.c.amount).label("amount"))
        .join(claim_items, claim_items.c.claim_id == claims.c.id)
        .where(LIVE_CLAIM)
        .group_by(claims.c.provider, claim_items.c.resource)
        .subquery()
    )
    same = and_(live.c.provider == inventories.c.provider, live.c.resource == inventories.c.resource)
    claimed = func.coalesce(live.c.amount, 0)
    free = case(room.FREE, value=inventories.c.resource)
    miscopied = free != room.capacity() - inventories.c.used
    rows = connection.execute(
        select(inventories.c.provider, inventories.c.resource, inventories.c.used, claimed.label("claimed"))
        .add_columns(free.label("free"), room.capacity().label("capacity"))
        .join(providers, providers.c.name == inventories.c.provider)
        .join(live, same, isouter=True)
        .where(or_(inventories.c.used != claimed, miscopied), *where)
        .order_by(inventories.c.provider, inventories.c.resource)
    )
    return [_counter(row) for row in rows]


def _counter(row: Any) -> Drift:
    used = row.used if row.used != row.claimed else row.capacity - row.free
    what = "counted as used" if row.used != row.claimed else "taken to be used by the search"
    detail = (
        f"provider {row.provider!r}: {used} {row.resource} are {what}, live claims hold "
        f"{row.claimed}; repairing sets it to {row.claimed}"
    )
    return Drift(DriftKind.COUNTER, row.provider, row.resource, int(used), int(row.claimed), detail=detail)


def _orphans(connection: Connection, *where: ColumnElement[bool]) -> list[Drift]:
    """Claims whose machine is no more. A quarantined one is no drift: it is held on purpose."""
    rows = connection.execute(
        select(claims.c.provider, claims.c.id, claims.c.machine_id, machines.c.state)
        .join(machines, machines.c.id == claims.c.machine_id)
        .where(claims.c.state.in_((ClaimState.HELD, ClaimState.PERMANENT)), machines.c.state.in_(FINAL), *where)
        .order_by(claims.c.provider, claims.c.id)
    )
    return [
        Drift(
            DriftKind.CLAIM,
            row.provider,
            claim_id=row.id,
            machine_id=row.machine_id,
            detail=f"claim {row.id!r} on {row.provider!r} is live, but its machine is {row.state}; "
            "see that nothing of it is left there; repairing releases the claim",
        )
        for row in rows
    ]
