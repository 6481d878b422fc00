"""The one list of named conditions that decides which provider may hold a claim.

Claiming takes their conjunction, explaining counts them one by one, so that the explanation cannot drift from the
decision. Conditions that no waiting can change come first; a provider that fails one of them is a *never*, one that
fails only later ones is a *not now*.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from sqlalchemy import (
    BigInteger,
    BindParameter,
    ColumnElement,
    Connection,
    Select,
    and_,
    bindparam,
    case,
    exists,
    not_,
    or_,
    select,
)

from mulligan.activities.inventory.claims import ClaimRequest
from mulligan.activities.inventory.room import CAPACITY, FREE, IS_WHOLE
from mulligan.activities.inventory.tables import provider_capabilities, providers
from mulligan.activities.values import RESOURCES, InventoryRow, Kind, Placement, Provider, Resources

_NOTHING = InventoryRow("", 0)
SHAPES = 256
"""How many kinds of statements are kept ready; those asked for longest ago go first."""


@dataclass(frozen=True, slots=True)
class Condition:
    """A named condition on a provider. `tell` says, of a provider that fails it, what it has instead; nothing when
    another condition that it fails says it already.

    What `holds` compares with is left open: a statement made of it is executed with the request's `parameters`.
    """

    name: str
    description: str
    lasting: bool
    """Whether no release and no repair on the provider can make it true."""
    holds: ColumnElement[bool]
    tell: Callable[[Provider], str]


def conditions(request: ClaimRequest) -> tuple[Condition, ...]:
    """What a provider must satisfy to hold the claim now: the lasting conditions first."""
    return (*_place(request), *_abilities(request), *_sizes(request), *_service(), *_room(request))


def parameters(request: ClaimRequest) -> dict[str, Any]:
    """What the conditions compare with."""
    values: dict[str, Any] = {"asked_partition": request.partition}
    values |= {"asked_provider": request.provider, "asked_avoid": request.avoid, "asked_kind": request.kind}
    for n, name in enumerate(request.requires):
        values[f"asked_requires_{n}"], either, other = name.partition("|")
        values |= {f"asked_requires_{n}_or": other} if either else {}
    values |= {f"asked_forbids_{n}": name for n, name in enumerate(request.forbids)}
    return values | {asked(resource).key: amount for resource, amount in request.resources.rows()}


def shape(request: ClaimRequest) -> ClaimRequest:
    """A request that has the same conditions but for what they compare with: what is made for one serves all."""
    return ClaimRequest(
        *("",) * 6,
        resources=Resources(**{resource: min(1, getattr(request.resources, resource)) for resource in RESOURCES}),
        kind=request.kind,
        requires=tuple("|" if "|" in name else "" for name in request.requires),
        forbids=("",) * len(request.forbids),
        provider="any" if request.provider else "",
        avoid=("any",) if request.avoid else (),
        placement=request.placement,
    )


def asked(resource: str) -> BindParameter[int]:
    """The amount that is asked for of it."""
    return bindparam(f"asked_{resource}", type_=BigInteger())


def _place(request: ClaimRequest) -> Iterator[Condition]:
    where = f"is in partition {request.partition}"
    holds = providers.c.partition == bindparam("asked_partition")
    yield Condition("partition", where, True, holds, lambda p: f"is in partition {p.partition}")
    if request.provider:
        named = providers.c.name == bindparam("asked_provider")
        yield Condition("provider", f"is {request.provider}", True, named, lambda p: "is not the one asked for")
    if request.avoid:
        other = providers.c.name.not_in(bindparam("asked_avoid", expanding=True))
        yield Condition("not-tried", "was not tried in this run", True, other, lambda p: "was tried in this run")
    if request.kind is not Kind.ANY:
        kind = providers.c.kind == bindparam("asked_kind")
        yield Condition("kind", f"is {request.kind}", True, kind, lambda p: f"is {p.kind}")


def _abilities(request: ClaimRequest) -> Iterator[Condition]:
    for n, name in enumerate(request.requires):
        first, either, _ = name.partition("|")
        has, words = _has(f"asked_requires_{n}"), name.replace("|", " or ")
        has, lacks = or_(has, _has(f"asked_requires_{n}_or")) if either else has, f"lacks {words}"
        yield Condition(f"requires.{first}", f"has {words}", True, has, lambda p, t=lacks: t)  # type: ignore[misc]
    for n, name in enumerate(request.forbids):
        not_had, has_it = not_(_has(f"asked_forbids_{n}")), f"has {name}"
        yield Condition(f"forbids.{name}", f"lacks {name}", True, not_had, lambda p, t=has_it: t)  # type: ignore[misc]


def _has(parameter: str) -> ColumnElement[bool]:
    table = provider_capabilities
    return exists().where(table.c.provider == providers.c.name, table.c.capability == bindparam(parameter))


def _sizes(request: ClaimRequest) -> Iterator[Condition]:
    for resource, amount in request.resources.rows():

        def tell(p: Provider, resource: str = resource, amount: int = amount) -> str:
            return f"has {_amounts(p, resource).capacity} {resource} in all (asked: {amount})"

        holds = CAPACITY[resource] >= asked(resource)
        yield Condition(f"size.{resource}", f"holds {amount} {resource} when empty", True, holds, tell)


def _service() -> Iterator[Condition]:
    enabled = providers.c.enabled.is_(True)
    yield Condition("enabled", "is enabled", False, enabled, lambda p: "is disabled")
    sound = providers.c.quarantined == ""
    yield Condition("not-quarantined", "is not quarantined", False, sound, lambda p: "is quarantined")
    clean = providers.c.dirty.is_(False)
    yield Condition("clean", "is erased", False, clean, lambda p: "waits to be erased")


def _room(request: ClaimRequest) -> Iterator[Condition]:
    held = or_(*(FREE[resource] < CAPACITY[resource] for resource in RESOURCES))
    unheld = not_(and_(IS_WHOLE, held))
    yield Condition("unheld", "if given whole, is held by nobody", False, unheld, lambda p: "is held already")
    for resource, amount in request.resources.rows():

        def tell(p: Provider, resource: str = resource, amount: int = amount) -> str:
            row = _amounts(p, resource)
            if row.capacity < amount:  # said of its size
                return ""
            return f"has {max(0, row.capacity - row.used)} of its {row.capacity} {resource} free (asked: {amount})"

        holds = FREE[resource] >= asked(resource)
        yield Condition(f"free.{resource}", f"has {amount} {resource} free", False, holds, tell)


def _amounts(provider: Provider, resource: str) -> InventoryRow:
    return next((row for row in provider.inventory if row.resource == resource), _NOTHING)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A provider that could hold the claim when it was looked for."""

    name: str
    whole: bool
    suspect_count: int
    rank: int
    """By policy; what ranks alike is as good."""


def candidates(connection: Connection, request: ClaimRequest, limit: int) -> list[Candidate]:
    """Up to `limit` candidates, best first: unsuspected slices by policy; else servers, tightest first; else suspects.

    Each group is looked for only when the one before has no room; within the first, the walk along the index ends with
    the last that is wanted.
    """
    alike, values = shape(request), parameters(request)
    for group in _groups(request.kind):
        rows = connection.execute(_search(alike, group), {**values, "limit": limit}).all()
        if rows:
            return [Candidate(row.name, row.kind is Kind.BARE_METAL, row.suspect_count, row.fill_rank) for row in rows]
    return []


def in_trying_order(found: list[Candidate]) -> list[Candidate]:
    """One of the best first; the others shuffled among their equals: they are tried only when others race for it."""
    if not found:
        return []
    first = random.choice([each for each in found if _standing(each) == _standing(found[0])])
    rest = [each for each in found if each is not first]
    return [first, *sorted(rest, key=lambda each: (each.suspect_count, each.whole, random.random()))]


def _standing(candidate: Candidate) -> tuple[int, bool, int]:
    return candidate.suspect_count, candidate.whole, candidate.rank


def _groups(kind: Kind) -> Iterator[Kind | None]:
    """The unsuspected of each kind, then (None) the suspects of either."""
    yield from (Kind.VIRTUAL, Kind.BARE_METAL) if kind is Kind.ANY else (kind,)
    yield None


@lru_cache(maxsize=SHAPES)
def _search(request: ClaimRequest, group: Kind | None) -> Select[Any]:
    """The search within a group, for every request of this shape."""
    holds = [condition.holds for condition in conditions(request)]
    best = select(providers.c.name, providers.c.kind, providers.c.suspect_count, providers.c.fill_rank).where(*holds)
    best = best.limit(bindparam("limit", type_=BigInteger()))
    slices = -providers.c.fill_rank if request.placement is Placement.SPREAD else providers.c.fill_rank
    if group is None:
        order = case((IS_WHOLE, providers.c.fill_rank), else_=slices)
        return best.where(providers.c.suspect_count > 0).order_by(
            providers.c.suspect_count, IS_WHOLE, order, providers.c.lot
        )
    best = best.where(providers.c.kind == group, providers.c.suspect_count == 0)
    if group is Kind.VIRTUAL and request.placement is Placement.SPREAD:
        return best.order_by(providers.c.fill_rank.desc(), providers.c.lot.desc())
    return best.order_by(providers.c.fill_rank, providers.c.lot)
