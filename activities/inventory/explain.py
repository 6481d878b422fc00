"""Explains a claim: the conditions of the search counted one by one, and the providers that came nearest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, case, func, not_, select

from mulligan.activities.inventory import providers as store
from mulligan.activities.inventory.claims import ClaimRequest
from mulligan.activities.inventory.explanation import Explanation, NearMiss, Predicate, Verdict
from mulligan.activities.inventory.search import Condition, conditions, parameters
from mulligan.activities.inventory.tables import providers

NEAREST = 5


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
    amounts = " ".join(f"{amount} {resource}" for resource, amount in request.resources.rows())
    asked = f"{amounts} in partition {request.partition}"
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
    if request.provider and request.provider in request.avoid:
        return f"{asked}: it was asked for on {request.provider} only, and that was tried already"
    return (
        f"{asked}: none of {total} providers could ever hold it, even empty (ruled out: {removals}){nearest}; "
        "change the request, or register a provider that fits"
    )
