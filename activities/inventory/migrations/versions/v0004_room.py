"""How much room each provider has, beside it, and the index that a search walks."""

from __future__ import annotations

import math
import random

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

_RESOURCES = ("vcpu", "memory_mib", "disk_gib")
_FREE = tuple(f"free_{resource}" for resource in _RESOURCES)
_COLUMNS = (*(f"capacity_{resource}" for resource in _RESOURCES), *_FREE, "fill_rank", "lot")
_PROVIDERS = sa.table("providers", sa.column("name"), sa.column("kind"), *(sa.column(name) for name in _COLUMNS))
_INVENTORIES = sa.table(
    "inventories",
    *(sa.column(name) for name in ("provider", "resource", "total", "reserved", "overcommit_percent", "used")),
)


def upgrade() -> None:
    """Go forward: add the columns, copy what the inventory rows say, then index it."""
    for name in _COLUMNS:
        op.add_column("providers", sa.Column(name, sa.BigInteger(), nullable=False, server_default=sa.text("0")))
    _copy()
    order = ["partition", "kind", "suspect_count", "fill_rank", "lot", *_FREE]
    op.create_index("providers_search", "providers", order, unique=False)


def _copy() -> None:
    connection = op.get_bind()
    room: dict[str, dict[str, tuple[int, int]]] = {}
    for row in connection.execute(sa.select(_INVENTORIES)):
        capacity = (row.total - row.reserved) * row.overcommit_percent // 100
        room.setdefault(row.provider, {})[row.resource] = capacity, capacity - row.used
    providers = connection.execute(sa.select(_PROVIDERS.c.name, _PROVIDERS.c.kind)).all()
    if providers:
        write = sa.update(_PROVIDERS).where(_PROVIDERS.c.name == sa.bindparam("provider"))
        write = write.values({name: sa.bindparam(f"its_{name}") for name in _COLUMNS})
        connection.execute(write, [_values(name, kind, room.get(name, {})) for name, kind in providers])


def _values(name: str, kind: str, room: dict[str, tuple[int, int]]) -> dict[str, int | str]:
    capacities = [room.get(resource, (0, 0))[0] for resource in _RESOURCES]
    free = [room.get(resource, (0, 0))[1] for resource in _RESOURCES]
    size = sum(round(1000 * math.log2(1 + capacity)) for capacity in capacities)
    left = sum(amount * 1000 // capacity for amount, capacity in zip(free, capacities, strict=True) if capacity)
    values = (*capacities, *free, size if kind == "bare-metal" else left, random.getrandbits(31))
    return {"provider": name, **{f"its_{column}": value for column, value in zip(_COLUMNS, values, strict=True)}}
