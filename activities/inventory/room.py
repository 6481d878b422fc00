"""How much room each provider has, kept beside it: a copy of its inventory rows that a search can walk in order.

The inventory rows decide: their counters are guarded. The copy is written in the same transactions, under the
provider's lock, so that a search reads one row for each provider and stops at the first that fit. The audit holds the
two against each other.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from sqlalchemy import BigInteger, Column, ColumnElement, Connection, case, func, literal, select, update

from mulligan.activities.inventory.tables import inventories, providers
from mulligan.activities.values import RESOURCES, Kind

CAPACITY: Mapping[str, Column[int]] = {resource: providers.c[f"capacity_{resource}"] for resource in RESOURCES}
"""What may be claimed of each resource in all; 0 where the provider has none."""
FREE: Mapping[str, Column[int]] = {resource: providers.c[f"free_{resource}"] for resource in RESOURCES}
"""What is left of it."""
IS_WHOLE: ColumnElement[bool] = providers.c.kind == Kind.BARE_METAL


def capacity() -> ColumnElement[int]:
    """What may be claimed of an inventory row in all, rounded down."""
    return (inventories.c.total - inventories.c.reserved) * inventories.c.overcommit_percent // 100


def slices_left(taken: Mapping[str, ColumnElement[int]]) -> ColumnElement[int]:
    """The rank, `_rank`, of a provider of slices once these amounts are taken too."""
    left = {resource: free - taken[resource] if resource in taken else free for resource, free in FREE.items()}
    shares = (
        func.coalesce(left[each] * 1000 // func.nullif(most, 0, type_=BigInteger()), 0, type_=BigInteger())
        for each, most in CAPACITY.items()
    )
    return sum(shares, start=literal(0, BigInteger()))


def note(connection: Connection, provider: str) -> None:
    """Copy the provider's inventory rows; the caller holds its lock."""
    amounts = select(inventories.c.resource, inventories.c.used, capacity().label("capacity"))
    rows = {row.resource: row for row in connection.execute(amounts.where(inventories.c.provider == provider))}
    most = {resource: rows[resource].capacity if resource in rows else 0 for resource in RESOURCES}
    free = {resource: most[resource] - (rows[resource].used if resource in rows else 0) for resource in RESOURCES}
    values: dict[str, Any] = {CAPACITY[resource].name: most[resource] for resource in RESOURCES}
    values |= {FREE[resource].name: free[resource] for resource in RESOURCES}
    rank = case((IS_WHOLE, _size(most)), else_=_rank(free, most))
    connection.execute(update(providers).where(providers.c.name == provider).values(**values, fill_rank=rank))


def _rank(free: Mapping[str, int], most: Mapping[str, int]) -> int:
    """Of what is given in slices: how much is free, per mille of each resource, added up."""
    return sum(free[resource] * 1000 // most[resource] for resource in RESOURCES if most[resource])


def _size(most: Mapping[str, int]) -> int:
    """Of what is given whole. It orders as the product of the capacities does.

    So it does, for every request, as the product of how many times more there is than asked: the tightest fit first.
    """
    return sum(round(1000 * math.log2(1 + each)) for each in most.values())
