"""Explains a claim: the conditions of the search counted one by one, and the providers that came nearest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, case, func, not_, select

from mulligan.activities.inventory import providers as store
from mulligan.activities.inventory.claims import ClaimRequest
from mulligan.activities.inventory.explanation import Explanation, NearMiss, Predicate, Verdict
from mulligan.activities.inventory.search import Condition, conditions, parameters
from mulligan.activities.inventory.tables import LIVE_CLAIM, claims, providers

NEAREST = 5

NAMED = 3
"""So many machines that could be released are named."""

_SERVICE = frozenset({"enabled", "not-quarantined", "clean"})
"""Conditions that are mended on the provider, and that no release makes true."""


def explain(connection: Connection, request: ClaimRequest) -> Explanation:
    """Why the claim fits, does not fit now, or never will; on one snapshot."""
    asked = conditions(request)
    values = parameters(request)
    passed = _passed(connection, asked, values)
    total = sum(passed.values())
    funnel, remaining = [], total
    for position, condition in enumerate(asked):
        removed = passed.get(position, 0)
        remaining -= removed
        funnel.append(Predicate(condition.name, condition.description, remaining, removed))
    never = sum(passed.get(position, 0) for position, condition in enumerate(asked) if condition.lasting)
    later = total - never - remaining
    verdict = Verdict.FITS if remaining else Verdict.NOT_NOW if later else Verdict.NEVER
    misses = _near_misses(connection, request.provider, asked, values)
    summary = _summary(request, funnel, later, misses)
    if request.provider and not remaining and funnel[0].remaining:
        summary = _pinned_summary(connection, request, misses, is_later=bool(later))
    return Explanation(verdict, summary, tuple(funnel), remaining, later, never, misses)


def _passed(connection: Connection, asked: tuple[Condition, ...], values: Mapping[str, Any]) -> dict[int, int]:
    """How many providers pass exactly the first N conditions, by N."""
    stage = case(*((not_(condition.holds), n) for n, condition in enumerate(asked)), else_=len(asked))
    stages = select(stage.label("stage")).select_from(providers).subquery()
    rows = connection.execute(select(stages.c.stage, func.count()).group_by(stages.c.stage), values)
    return {row[0]: row[1] for row in rows}


def _near_misses(
    connection: Connection, named: str, asked: tuple[Condition, ...], values: Mapping[str, Any]
) -> tuple[NearMiss, ...]:
    """Of the providers that fail, those that fail the fewest; among equals those that got furthest. The one that was
    asked for by name is first whatever it fails: it is what the question is about."""
    fails = [case((condition.holds, 0), else_=1) for condition in asked]
    columns = [fail.label(f"fails_{n}") for n, fail in enumerate(fails)]
    flags = select(providers.c.name, *columns).subquery()
    each = [flags.c[f"fails_{n}"] for n in range(len(asked))]
    count = sum(each[1:], start=each[0])
    furthest = case(*((fail == 1, n) for n, fail in enumerate(each)), else_=len(each))
    first = case((flags.c.name == named, 0), else_=1)
    nearest = select(flags).where(count > 0).order_by(first, count, furthest.desc(), flags.c.name).limit(NEAREST)
    rows = connection.execute(nearest, values).all()
    known = {provider.name: provider for provider in store.load(connection, [row.name for row in rows])}
    misses = []
    for row in rows:
        failing = [condition for condition, fail in zip(asked, row[1:], strict=True) if fail]
        detail = ", ".join(filter(None, (condition.tell(known[row.name]) for condition in failing)))
        misses.append(NearMiss(row.name, tuple(condition.name for condition in failing), detail))
    return tuple(misses)


def _summary(request: ClaimRequest, funnel: list[Predicate], later: int, misses: tuple[NearMiss, ...]) -> str:
    asked = _asked(request)
    total, fits = funnel[0].remaining + funnel[0].removed, funnel[-1].remaining
    if fits:
        return f"{asked}: {fits} of {total} providers can hold it now"
    if funnel[0].remaining == 0:
        return f"{asked}: no provider is registered there; register one, or choose another partition"
    removals = ", ".join(f"{stage.removed} by {stage.name}" for stage in funnel if stage.removed)
    nearest = f"; nearest: {misses[0].provider} {misses[0].detail}" if misses else ""
    if later:
        return (
            f"{asked}: {later} of {total} providers could hold it, but none can now (ruled out: {removals}){nearest}; "
            "wait, release a machine, or bring a provider back into service"
        )
    return (
        f"{asked}: none of {total} providers could ever hold it, even empty (ruled out: {removals}){nearest}; "
        "change the request, or register a provider that fits"
    )


def _pinned_summary(
    connection: Connection, request: ClaimRequest, misses: tuple[NearMiss, ...], *, is_later: bool
) -> str:
    """Of a request that names its provider: no other one would help it, so what that one lacks is all that counts."""
    named, asked = request.provider, _asked(request)
    if named in request.avoid:
        return f"{asked}: it was asked for on {named} only, and that was tried already"
    found = next((miss for miss in misses if miss.provider == named), None)
    if found is None:
        return f"{asked}: it was asked for on {named} only, and there is no such provider; name another, or none"
    others = any(miss.failing == ("provider",) for miss in misses)
    unpinned = f"ask without naming a provider{', for another one has room now' if others else ''}"
    if not is_later:
        return f"{asked}: it was asked for on {named} only, which {found.detail}; change the request, or {unpinned}"
    helps = [] if _SERVICE.issuperset(found.failing) else ["wait", _release(connection, request)]
    helps += [f"bring {named} back into service"] if _SERVICE.intersection(found.failing) else []
    return (
        f"{asked}: it was asked for on {named} only, which could hold it, but not now: {named} {found.detail}; "
        f"{', '.join(helps)}, or {unpinned}"
    )


def _release(connection: Connection, request: ClaimRequest) -> str:
    """What may be released there: machines of other projects are not named."""
    there = LIVE_CLAIM & (claims.c.provider == request.provider)
    own = there & (claims.c.project == request.project) & (claims.c.machine_id != request.machine_id)
    names = list(connection.execute(select(claims.c.machine).where(own).order_by(claims.c.machine)).scalars())
    if not names:
        return "release a machine there"
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return f"release a machine there (of this project: {', '.join(names[:NAMED])}{more})"


def _asked(request: ClaimRequest) -> str:
    amounts = " ".join(f"{amount} {resource}" for resource, amount in request.resources.rows())
    return f"{amounts} in partition {request.partition}"
