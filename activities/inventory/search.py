"""The one list of named conditions that decides which provider may hold a claim.

Claiming takes their conjunction, explaining counts them one by one, so that the explanation cannot drift from the
decision. Conditions that no waiting can change come first; a provider that fails one of them is a *never*, one that
fails only later ones is a *not now*.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, FromClause, and_, case, exists, func, literal, not_, or_, select

from mulligan.activities.inventory.claims import ClaimRequest
from mulligan.activities.inventory.tables import inventories, provider_capabilities, providers
from mulligan.activities.values import RESOURCES, InventoryRow, Kind, Placement, Provider

_ROWS = {resource: inventories.alias(resource) for resource in RESOURCES}


def _joined() -> FromClause:
    joined: FromClause = providers
    for resource, row in _ROWS.items():
        joined = joined.outerjoin(row, (row.c.provider == providers.c.name) & (row.c.resource == resource))
    return joined


SEARCHED = _joined()
"""What the conditions are about: each provider once, beside its inventory rows."""
_IS_WHOLE: ColumnElement[bool] = providers.c.kind == Kind.BARE_METAL
_NOTHING = InventoryRow("", 0)


def capacity(row: FromClause = inventories) -> ColumnElement[int]:
    """What may be claimed of an inventory row in all, rounded down; 0 where there is no row."""
    return func.coalesce((row.c.total - row.c.reserved) * row.c.overcommit_percent // 100, 0)


def _used(resource: str) -> ColumnElement[int]:
    return func.coalesce(_ROWS[resource].c.used, 0)


def _free(resource: str) -> ColumnElement[int]:
    return capacity(_ROWS[resource]) - _used(resource)


@dataclass(frozen=True, slots=True)
class Condition:
    """A named condition on a provider. `tell` says, of a provider that fails it, what it has instead."""

    name: str
    description: str
    lasting: bool
    """Whether no release and no repair on the provider can make it true."""
    holds: ColumnElement[bool]
    tell: Callable[[Provider], str]


def conditions(request: ClaimRequest) -> tuple[Condition, ...]:
    """What a provider must satisfy to hold the claim now: the lasting conditions first."""
    return (*_place(request), *_abilities(request), *_sizes(request), *_service(), *_room(request))


def _place(request: ClaimRequest) -> Iterator[Condition]:
    where = f"is in partition {request.partition}"
    holds = providers.c.partition == request.partition
    yield Condition("partition", where, True, holds, lambda p: f"is in partition {p.partition}")
    if request.provider:
        named = providers.c.name == request.provider
        yield Condition("provider", f"is {request.provider}", True, named, lambda p: "is not the one asked for")
    if request.avoid:
        other = providers.c.name.not_in(request.avoid)
        yield Condition("not-tried", "was not tried in this run", True, other, lambda p: "was tried in this run")
    if request.kind is not Kind.ANY:
        kind = providers.c.kind == request.kind
        yield Condition("kind", f"is {request.kind}", True, kind, lambda p: f"is {p.kind}")


def _abilities(request: ClaimRequest) -> Iterator[Condition]:
    for name in request.requires:
        lacks = f"lacks {name}"
        yield Condition(f"requires.{name}", f"has {name}", True, _has(name), lambda p, t=lacks: t)  # type: ignore[misc]
    for name in request.forbids:
        has = f"has {name}"
        yield Condition(f"forbids.{name}", f"lacks {name}", True, not_(_has(name)), lambda p, t=has: t)  # type: ignore[misc]


def _has(capability: str) -> ColumnElement[bool]:
    table = provider_capabilities
    return exists().where(table.c.provider == providers.c.name, table.c.capability == capability)


def _sizes(request: ClaimRequest) -> Iterator[Condition]:
    for resource, amount in request.resources.rows():

        def tell(p: Provider, resource: str = resource, amount: int = amount) -> str:
            return f"holds {_amounts(p, resource).capacity} {resource} at most of {amount} asked"

        holds = capacity(_ROWS[resource]) >= amount
        yield Condition(f"size.{resource}", f"holds {amount} {resource} when empty", True, holds, tell)


def _service() -> Iterator[Condition]:
    enabled = providers.c.enabled.is_(True)
    yield Condition("enabled", "is enabled", False, enabled, lambda p: "is disabled")
    sound = providers.c.quarantined == ""
    yield Condition("not-quarantined", "is not quarantined", False, sound, lambda p: "is quarantined")
    clean = providers.c.dirty.is_(False)
    yield Condition("clean", "is erased", False, clean, lambda p: "waits to be erased")


def _room(request: ClaimRequest) -> Iterator[Condition]:
    held = or_(*(_used(resource) > 0 for resource in RESOURCES))
    unheld = not_(and_(_IS_WHOLE, held))
    yield Condition("unheld", "if given whole, is held by nobody", False, unheld, lambda p: "is held already")
    for resource, amount in request.resources.rows():

        def tell(p: Provider, resource: str = resource, amount: int = amount) -> str:
            row = _amounts(p, resource)
            return f"has {max(0, row.capacity - row.used)} of {amount} {resource} free"

        holds = _free(resource) >= amount
        yield Condition(f"free.{resource}", f"has {amount} {resource} free", False, holds, tell)


def _amounts(provider: Provider, resource: str) -> InventoryRow:
    return next((row for row in provider.inventory if row.resource == resource), _NOTHING)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A provider that could hold the claim when it was looked for."""

    name: str
    whole: bool
    suspect_count: int


def candidates(connection: Connection, request: ClaimRequest, limit: int) -> list[Candidate]:
    """Up to `limit` candidates, best first: unsuspected, virtual, by policy, then at random."""
    best = select(providers.c.name, _IS_WHOLE.label("whole"), providers.c.suspect_count)
    best = best.select_from(SEARCHED).where(*(condition.holds for condition in conditions(request)))
    order = (providers.c.suspect_count, _IS_WHOLE, _rank(request), func.random())
    rows = connection.execute(best.order_by(*order).limit(limit))
    return [Candidate(row.name, bool(row.whole), row.suspect_count) for row in rows]


def in_trying_order(found: list[Candidate]) -> list[Candidate]:
    """The best first; the others shuffled among their equals, for they are tried only when others race for the best."""
    rest = sorted(found[1:], key=lambda candidate: (candidate.suspect_count, candidate.whole, random.random()))
    return found[:1] + rest


def _rank(request: ClaimRequest) -> ColumnElement[Any]:
    """Lowest first. Whole: how much more it has than asked; slices: how much is free; per mille, over what is asked."""
    asked = request.resources.rows()
    excess = sum((capacity(_ROWS[name]) * 1000 // amount for name, amount in asked), start=literal(0))
    free = sum((_free(name) * 1000 // func.nullif(capacity(_ROWS[name]), 0) for name, _ in asked), start=literal(0))
    return case((_IS_WHOLE, excess), else_=-free if request.placement is Placement.SPREAD else free)
