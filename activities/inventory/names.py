"""Things looked up by name: what to say when there is none, and in what two things of one name differ."""

from __future__ import annotations

import difflib
from dataclasses import fields
from typing import Any

from sqlalchemy import Column, Connection, select

from mulligan.activities.errors import NotFound
from mulligan.activities.inventory.tables import partitions, providers


def not_found(connection: Connection, what: str, name: str, column: Column[Any], where: Any = True) -> NotFound:
    """The error for a `what` that is not there, with the nearest of the names in `column`."""
    names = connection.execute(select(column).where(where).distinct()).scalars().all()
    nearest = difflib.get_close_matches(name, names, n=3)
    hint = f"did you mean {' or '.join(nearest)}?" if nearest else f"`mulligan {what} list` says what there is"
    return NotFound(f"no {what} {name!r}: {hint}", nearest=nearest, what=what, name=name)


def require_partition(connection: Connection, name: str) -> None:
    """Raise `NotFound` unless there is such a partition."""
    found = connection.execute(select(partitions.c.name).where(partitions.c.name == name)).first()
    if found is None:
        raise not_found(connection, "partition", name, partitions.c.name)


def no_provider(connection: Connection, name: str) -> NotFound:
    """The error for a provider that is not there."""
    return not_found(connection, "provider", name, providers.c.name)


def differing_fields(one: Any, other: Any) -> tuple[str, ...]:
    """The names of the fields in which two values of the same dataclass differ."""
    return tuple(f.name for f in fields(one) if getattr(one, f.name) != getattr(other, f.name))
