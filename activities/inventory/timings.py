"""How long steps usually take, learned from runs that ended ready."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from math import ceil
from typing import Any

from sqlalchemy import ColumnElement, Connection, case, delete, func, literal_column, select

from mulligan.activities.durations import LEARNED
from mulligan.activities.inventory.database import inserting
from mulligan.activities.inventory.tables import machines, provider_capabilities, providers, timings
from mulligan.activities.values import Provider, StepEstimate, VerifyLevel

NEWEST = 200
"""From how many runs an estimate is made, the newest first."""

FEWEST = 3
"""Fewer runs than this teach nothing."""

KEPT = 500
"""How many runs are kept for each step, image, driver and model."""

_DRIVER = "driver."

_PROOF = "verify"
"""The step that takes as long as the level of proof asks for: it is kept as e.g. `verify:service`, by runs of old
without a level."""


@dataclass(frozen=True, slots=True)
class Lesson:
    """What a run that ended ready teaches: seconds by step."""

    run_id: str
    machine_id: str
    at: datetime
    seconds: Mapping[str, float] = field(default_factory=dict)


def driver_of(provider: Provider) -> str:
    """The driver's name as the driver itself declares it; else the first part of its URL's scheme."""
    return _driver(next((name for name in provider.capabilities if name.startswith(_DRIVER)), ""), provider.url)


def _driver(declared: str, url: str) -> str:
    return declared.removeprefix(_DRIVER) or url.partition("://")[0].partition("+")[0]


def model_of(provider: Provider) -> str:
    """What the driver says of the hardware's model; empty where it says nothing."""
    return _model(provider.facts)


def _model(facts: Mapping[str, str]) -> str:
    return facts.get("model", "")


def learn(connection: Connection, lesson: Lesson) -> None:
    """Keep a run's times, once however often it is asked; see `Inventory.keep_run`."""
    found = _group(connection, lesson.machine_id)
    if found is None or not lesson.seconds:
        return
    group, level = found
    known = {"run_id": lesson.run_id, "at": lesson.at, **group}
    kept = {_kept(step, level): seconds for step, seconds in lesson.seconds.items()}
    rows = [{**known, "step": step, "seconds": seconds} for step, seconds in kept.items()]
    if connection.execute(inserting(connection.dialect.name, timings), rows).first() is not None:
        proof = _kept(_PROOF, level)
        for steps in ([step for step in kept if step != proof], [step for step in kept if step == proof]):
            if steps:
                _prune(connection, steps, group)


def _kept(step: str, level: VerifyLevel) -> str:
    """The step as it is kept."""
    return f"{step}:{level}" if step == _PROOF else step


def _group(connection: Connection, machine_id: str) -> tuple[dict[str, str], VerifyLevel] | None:
    """Image, driver and model of what this machine was made on, and its level; None when one of them is no more."""
    able, driver = provider_capabilities, provider_capabilities.c.capability
    declared = (able.c.provider == providers.c.name) & driver.startswith(_DRIVER, autoescape=True)
    made = machines.join(providers, providers.c.name == machines.c.provider).outerjoin(able, declared)
    columns = (machines.c.image_name, machines.c.request, providers.c.url, providers.c.facts, driver)
    found = connection.execute(select(*columns).select_from(made).where(machines.c.id == machine_id)).first()
    if found is None:
        return None
    image, request, url, facts, name = found
    return {"image": image, "driver": _driver(name or "", url), "model": _model(facts)}, request.verify


def _prune(connection: Connection, steps: list[str], group: Mapping[str, str]) -> None:
    """Forget runs older than the last one to be kept. Runs teach these steps at once, so any tells which that is."""
    same = [timings.c[name] == value for name, value in group.items()]
    newest_first = select(timings.c.at).where(timings.c.step == steps[0], *same).order_by(timings.c.at.desc())
    if (at := connection.execute(newest_first.offset(KEPT - 1).limit(1)).scalar()) is not None:
        connection.execute(delete(timings).where(timings.c.step.in_(steps), *same, timings.c.at < at))


def estimates(
    connection: Connection, image: str, driver: str, model: str, level: VerifyLevel | None
) -> tuple[StepEstimate, ...]:
    """One for each step that enough runs have taught; see `Inventory.estimates`."""
    found: dict[str, StepEstimate] = {}
    for steps, proved in _steps(level):
        for where, basis in _groups(image, driver, model):
            if len(found) == len(LEARNED):
                break
            for step, seconds in _newest(connection, [timings.c.step.in_(steps), *where]).items():
                if step not in found and len(seconds) >= FEWEST:
                    said = f"{basis}, {proved}" if step == _PROOF else basis
                    p50, p95 = percentile(seconds, 50), percentile(seconds, 95)
                    found[step] = StepEstimate(step, p50, p95, len(seconds), said)
    return tuple(found[step] for step in sorted(found))


def _steps(level: VerifyLevel | None) -> Iterator[tuple[list[str], str]]:
    """The steps as they are kept, those of this level of proof before those of any, and which proof it is in words."""
    others = [step for step in LEARNED if step != _PROOF]
    yield [*others, *([_kept(_PROOF, level)] if level is not None else [])], f"level {level}"
    yield [_PROOF, *(_kept(_PROOF, each) for each in VerifyLevel)], "any level"


def _groups(image: str, driver: str, model: str) -> Iterator[tuple[list[ColumnElement[bool]], str]]:
    """The groups of runs that are like the one at hand, the closest first, and what they have in common, in words."""
    same_image, same_driver = timings.c.image == image, timings.c.driver == driver
    if not driver:  # not known before a provider is claimed
        yield [same_image], f"image {image}"
        yield [], "all runs"
        return
    if model:
        yield [same_image, same_driver, timings.c.model == model], f"image {image} on {driver}, model {model}"
    yield [same_image, same_driver], f"image {image} on {driver}"
    yield [same_driver], f"any image on {driver}"


def _newest(connection: Connection, where: Sequence[ColumnElement[bool]]) -> dict[str, list[float]]:
    """The seconds of the newest runs, by step."""
    newest_first = (timings.c.at.desc(), timings.c.run_id)
    is_proof = timings.c.step.startswith(f"{_PROOF}:", autoescape=True)
    step: ColumnElement[str] = case((is_proof, literal_column(f"'{_PROOF}'")), else_=timings.c.step)
    place: ColumnElement[Any] = func.row_number().over(partition_by=step, order_by=newest_first)
    ranked = select(step.label("step"), timings.c.seconds, place.label("place")).where(*where).subquery()
    rows = connection.execute(select(ranked.c.step, ranked.c.seconds).where(ranked.c.place <= NEWEST))
    found: dict[str, list[float]] = {}
    for row in rows:
        found.setdefault(row.step, []).append(row.seconds)
    return found


def percentile(values: Sequence[float], percent: int) -> float:
    """The smallest of the values that so many percent of them do not exceed (the nearest-rank method)."""
    return sorted(values)[max(0, ceil(len(values) * percent / 100) - 1)]
