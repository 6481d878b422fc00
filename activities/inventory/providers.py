"""Partitions and providers: registering, reading, and what operators and runs change about them.

Registering and editing take the provider's row lock before they touch its inventory, as claims do.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection, delete, insert, select, update

from mulligan.activities.errors import AlreadyExists, Conflict, InvalidRequest
from mulligan.activities.inventory import held_servers, macs, room
from mulligan.activities.inventory.database import insert_if_new, now
from mulligan.activities.inventory.names import no_provider, require_partition
from mulligan.activities.inventory.tables import inventories, partitions, provider_capabilities, providers
from mulligan.activities.values import RESOURCES, Inspection, InventoryRow, Kind, Provider

_MOST_PERCENT = 10_000


def add_partition(connection: Connection, name: str) -> None:
    """Add a partition; one that is there already is success."""
    if not name:
        raise InvalidRequest("partition: a name is needed", violations=[("name", "must not be empty")])
    insert_if_new(connection, partitions, {"name": name, "created_at": now()})


def list_partitions(connection: Connection) -> list[str]:
    """All partitions by name."""
    return list(connection.execute(select(partitions.c.name).order_by(partitions.c.name)).scalars())


def known_capabilities(connection: Connection) -> list[str]:
    """Every capability that some provider has, sorted."""
    column = provider_capabilities.c.capability
    return list(connection.execute(select(column).distinct().order_by(column)).scalars())


def load(connection: Connection, names: Sequence[str]) -> list[Provider]:
    """The providers of these names, by name; names that do not exist are left out."""
    if not names:
        return []
    capabilities: dict[str, list[str]] = {}
    having = provider_capabilities.c.provider.in_(names)
    for row in connection.execute(select(provider_capabilities).where(having)):
        capabilities.setdefault(row.provider, []).append(row.capability)
    inventory: dict[str, list[InventoryRow]] = {}
    for row in connection.execute(select(inventories).where(inventories.c.provider.in_(names))):
        amounts = InventoryRow(row.resource, row.total, row.reserved, row.overcommit_percent, row.used)
        inventory.setdefault(row.provider, []).append(amounts)
    rows = connection.execute(select(providers).where(providers.c.name.in_(names)).order_by(providers.c.name))
    return [_provider(row, inventory.get(row.name, []), capabilities.get(row.name, [])) for row in rows]


def _provider(row: Any, inventory: list[InventoryRow], capabilities: list[str]) -> Provider:
    suspicion = {"suspect": row.suspect_reason} if row.suspect_count else {}
    return Provider(
        name=row.name,
        partition=row.partition,
        kind=row.kind,
        url=row.url,
        settings=row.settings,
        credential=row.credential,
        capabilities=tuple(sorted(capabilities)),
        inventory=tuple(sorted(inventory, key=lambda amounts: RESOURCES.index(amounts.resource))),
        generation=row.generation,
        enabled=row.enabled,
        dirty=row.dirty,
        suspect_count=row.suspect_count,
        quarantined=row.quarantined,
        facts={**row.facts, **suspicion},
    )


def get(connection: Connection, name: str) -> Provider:
    """The provider, or `NotFound`."""
    found = load(connection, [name])
    if not found:
        raise no_provider(connection, name)
    return found[0]


def page(connection: Connection, partition: str, after: str, limit: int) -> list[Provider]:
    """Up to `limit` providers after the name `after`, by name."""
    names = select(providers.c.name).where(providers.c.name > after).order_by(providers.c.name).limit(limit)
    if partition:
        require_partition(connection, partition)
        names = names.where(providers.c.partition == partition)
    return load(connection, connection.execute(names).scalars().all())


def lock(connection: Connection, name: str) -> None:
    """Wait for, and hold, the provider's row until the end of the transaction."""
    row = connection.execute(select(providers.c.name).where(providers.c.name == name).with_for_update()).first()
    if row is None:
        raise no_provider(connection, name)


def put(
    connection: Connection,
    name: str,
    partition: str,
    url: str,
    *,
    credential: str,
    inspection: Inspection,
    settings: Mapping[str, str],
) -> Provider:
    """Register a provider, or refresh what is known of it; see `Inventory.put_provider`."""
    _check_inspection(name, inspection)
    macs.take_turn(connection)
    require_partition(connection, partition)
    decided = {**settings, **inspection.settings}
    told = {"credential": credential, "settings": decided, "facts": dict(inspection.facts)}
    created = insert_if_new(
        connection,
        providers,
        {
            "name": name,
            "partition": partition,
            "kind": inspection.kind,
            "url": url,
            **told,
            **_UNTOUCHED,
            "lot": _lot(),
        },
    )
    lock(connection, name)
    before = get(connection, name)
    if not created:
        _check_same(before, partition, url, inspection.kind, decided)
        told = held_servers.still_itself(connection, before, told)
    _put_inventory(connection, before, inspection)
    room.note(connection, name)
    _put_capabilities(connection, before, inspection)
    connection.execute(update(providers).where(providers.c.name == name).values(told))
    _count_on(connection, name, inspection.fence)
    after = get(connection, name)
    macs.require_own(connection, after)
    if created or after == before:
        return after
    bumped = {"generation": after.generation + 1}
    connection.execute(update(providers).where(providers.c.name == name).values(bumped))
    return replace(after, generation=after.generation + 1)


def _count_on(connection: Connection, name: str, fence: int) -> None:
    """The next claim gets a newer fence than any that acted there, for which its driver would refuse it."""
    behind = (providers.c.name == name) & (providers.c.claim_seq < fence)
    connection.execute(update(providers).where(behind).values(claim_seq=fence))


KEEPS = ("pool",)
"""Settings that say where a provider keeps what is made. They stay: under another one nothing would be found again."""

_UNTOUCHED = {
    "generation": 1,
    "enabled": True,
    "dirty": False,
    "suspect_count": 0,
    "suspect_reason": "",
    "quarantined": "",
    "claim_seq": 0,
}


def _lot() -> int:
    return random.getrandbits(31)


def _check_inspection(name: str, inspection: Inspection) -> None:
    violations = []
    if not name:
        violations.append(("name", "must not be empty"))
    if inspection.kind is Kind.ANY:
        violations.append(("inspection.kind", "must be virtual or bare-metal"))
    names = [row.resource for row in inspection.inventory]
    if len(set(names)) != len(names):
        violations.append(("inspection.inventory", "a resource is listed twice"))
    for row in inspection.inventory:
        field = f"inspection.inventory.{row.resource}"
        if row.resource not in RESOURCES:
            violations.append((field, f"must be one of {', '.join(RESOURCES)}"))
        elif row.total < 0 or not 0 <= row.reserved <= row.total:
            violations.append((field, "needs 0 <= reserved <= total"))
        elif not 1 <= row.overcommit_percent <= _MOST_PERCENT:
            violations.append((field, f"overcommit_percent must be 1 to {_MOST_PERCENT}"))
    _refuse(f"provider {name!r}", violations)


def _refuse(what: str, violations: Sequence[tuple[str, str]]) -> None:
    if violations:
        said = "; ".join(f"{field} {description}" for field, description in violations)
        raise InvalidRequest(f"{what}: {said}", violations=violations)


def _check_same(known: Provider, partition: str, url: str, kind: Kind, settings: Mapping[str, str]) -> None:
    asked = {"partition": partition, "url": url, "kind": kind} | {name: settings.get(name, "") for name in KEEPS}
    have = {name: getattr(known, name) for name in ("partition", "url", "kind")}
    have |= {name: known.settings.get(name, "") for name in KEEPS}
    differing = [field for field, value in asked.items() if have[field] != value]
    if differing:
        said = ", ".join(
            f"{field} is {have[field] or 'the default'}, asked was {asked[field] or 'the default'}"
            for field in differing
        )
        first = f"provider {known.name!r} is registered already and differs: {said}"
        message = f"{first}; ask with the same, or choose another name"
        raise AlreadyExists(message, differing=differing, provider=known.name)


def _put_inventory(connection: Connection, known: Provider, inspection: Inspection) -> None:
    have = {row.resource: row for row in known.inventory}
    seen = {row.resource: row for row in inspection.inventory}
    for resource in RESOURCES:
        old, new = have.get(resource), seen.get(resource)
        if old is None and new is not None:
            columns = {"resource": resource, "total": new.total, "reserved": new.reserved, "used": 0}
            columns |= {"provider": known.name, "overcommit_percent": new.overcommit_percent}
            connection.execute(insert(inventories).values(columns))
        elif old is not None and new is None:
            if old.used:
                raise _too_small(known.name, replace(old, total=0, reserved=0))
            connection.execute(delete(inventories).where(_row(known.name, resource)))
        elif old is not None and new is not None and old.total != new.total:
            _set_row(connection, known.name, replace(old, total=new.total))


def _row(provider: str, resource: str) -> Any:
    return (inventories.c.provider == provider) & (inventories.c.resource == resource)


def _set_row(connection: Connection, provider: str, row: InventoryRow) -> None:
    """Write totals, reserve and overcommit, never `used`; `row.used` is current, for the provider is locked."""
    if row.reserved > row.total or row.used > row.capacity:
        raise _too_small(provider, row)
    amounts = {"total": row.total, "reserved": row.reserved, "overcommit_percent": row.overcommit_percent}
    connection.execute(update(inventories).where(_row(provider, row.resource)).values(amounts))


def _too_small(provider: str, row: InventoryRow) -> Conflict:
    return Conflict(
        f"provider {provider!r}: {row.resource} total {row.total} less {row.reserved} reserved at "
        f"{row.overcommit_percent} % is a capacity of {row.capacity}, but {row.used} are claimed; "
        "release machines there first, or ask for more",
        provider=provider,
        resource=row.resource,
        capacity=row.capacity,
        used=row.used,
    )


def _put_capabilities(connection: Connection, known: Provider, inspection: Inspection) -> None:
    table = provider_capabilities
    gone = set(known.capabilities) - set(inspection.capabilities)
    if gone:
        mine = (table.c.provider == known.name) & table.c.capability.in_(sorted(gone))
        connection.execute(delete(table).where(mine))
    for capability in sorted(set(inspection.capabilities) - set(known.capabilities)):
        connection.execute(insert(table).values(provider=known.name, capability=capability))


def edit(
    connection: Connection,
    name: str,
    generation: int,
    *,
    reserved: Mapping[str, int],
    overcommit_percent: Mapping[str, int],
    columns: Mapping[str, Any],
) -> Provider:
    """Change what the operator decides; see `Inventory.edit_provider`."""
    if "settings" in columns:
        macs.take_turn(connection)
    lock(connection, name)
    known = get(connection, name)
    if known.generation != generation:
        raise Conflict(
            f"provider {name!r} was changed by someone else: its generation is {known.generation}, the edit was made "
            f"on {generation}; read it again and decide anew",
            provider=name,
            generation=known.generation,
        )
    settings = columns.get("settings", known.settings)
    _check_edit(known, reserved, overcommit_percent, settings)
    held_servers.require_chosen(connection, known, settings)
    for row in known.inventory:
        percent = overcommit_percent.get(row.resource, row.overcommit_percent)
        changed = replace(row, reserved=reserved.get(row.resource, row.reserved), overcommit_percent=percent)
        if changed != row:
            _set_row(connection, name, changed)
    room.note(connection, name)
    values = {**columns, "generation": generation + 1}
    connection.execute(update(providers).where(providers.c.name == name).values(values))
    edited = get(connection, name)
    if macs.macs_of(edited.settings, edited.facts) != macs.macs_of(known.settings, known.facts):
        macs.require_own(connection, edited)
    return edited


def _check_edit(
    known: Provider, reserved: Mapping[str, int], percents: Mapping[str, int], settings: Mapping[str, str]
) -> None:
    have = {row.resource: row for row in known.inventory}
    violations = [
        (
            f"settings.{name}",
            f"must stay {known.settings.get(name, 'the default')}: what was made is kept there. Where nothing is held, "
            f"`mulligan provider remove {known.name}`, and add it with the other one",
        )
        for name in KEEPS
        if known.settings.get(name) != settings.get(name)
    ]
    for resource, amount in reserved.items():
        if resource not in have:
            violations.append((f"reserved.{resource}", f"must be one of {', '.join(have)}"))
        elif not 0 <= amount <= have[resource].total:
            violations.append((f"reserved.{resource}", f"must be 0 to {have[resource].total}"))
    for resource, percent in percents.items():
        if resource not in have:
            violations.append((f"overcommit_percent.{resource}", f"must be one of {', '.join(have)}"))
        elif not 1 <= percent <= _MOST_PERCENT:
            violations.append((f"overcommit_percent.{resource}", f"must be 1 to {_MOST_PERCENT}"))
        elif known.kind is Kind.BARE_METAL and percent != 100:
            violations.append((f"overcommit_percent.{resource}", "must be 100: bare metal is given whole"))
    _refuse(f"provider {known.name!r}", violations)


def change(connection: Connection, name: str, values: Mapping[str, Any]) -> Provider:
    """Set columns that runs, not operators, decide; leaves the generation alone."""
    if connection.execute(update(providers).where(providers.c.name == name).values(values)).rowcount == 0:
        raise no_provider(connection, name)
    return get(connection, name)
