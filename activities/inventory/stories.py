"""Kept runs: what remains of a run after its history has expired."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, Select, func, or_, select, update

from mulligan.activities.errors import NotFound
from mulligan.activities.inventory.claims import RunRecord
from mulligan.activities.inventory.database import insert_if_new
from mulligan.activities.inventory.names import not_found
from mulligan.activities.inventory.tables import machines, runs
from mulligan.activities.values import Outcome


def keep(connection: Connection, run: RunRecord) -> None:
    """Keep a run; once kept as ended it never changes, so keeping it again is harmless."""
    kept = {name: value for name, value in asdict(run).items() if name in runs.c}
    if insert_if_new(connection, runs, kept):
        return
    still_open = (runs.c.run_id == run.run_id) & (runs.c.outcome == Outcome.OPEN)
    connection.execute(update(runs).where(still_open).values(kept))


def get(connection: Connection, workflow_id: str, run_id: str) -> RunRecord:
    """The kept run, or `NotFound`; without a run id the newest of the workflow id."""
    chosen = _with_provider().where(runs.c.workflow_id == workflow_id)
    if run_id:
        chosen = chosen.where(runs.c.run_id == run_id)
    row = connection.execute(chosen.order_by(runs.c.started_at.desc(), runs.c.run_id.desc()).limit(1)).first()
    if row is None and run_id:
        raise NotFound(f"no kept run {run_id!r} of {workflow_id!r}: ask without the run id for the newest")
    if row is None:
        raise not_found(connection, "run", workflow_id, runs.c.workflow_id)
    return _record(row)


def listed(
    connection: Connection, project: str, machine: str, limit: int, before: tuple[datetime, str] | None
) -> list[RunRecord]:
    """Kept runs, newest first; `before` is (started_at, run_id) of the last one that was seen."""
    where: list[Any] = []
    if project:
        where.append(runs.c.project == project)
    if machine:
        where.append(runs.c.machine == machine)
    if before is not None:
        started_at, run_id = before
        same = (runs.c.started_at == started_at) & (runs.c.run_id < run_id)
        where.append(or_(runs.c.started_at < started_at, same))
    newest = (runs.c.started_at.desc(), runs.c.run_id.desc())
    rows = connection.execute(_with_provider().where(*where).order_by(*newest).limit(limit))
    return [_record(row) for row in rows]


def _with_provider() -> Select[Any]:
    """Every kept run, beside the provider of its machine while that is kept too."""
    provider = func.coalesce(machines.c.provider, "").label("provider")
    return select(runs, provider).outerjoin(machines, machines.c.id == runs.c.machine_id)


def _record(row: Row[Any]) -> RunRecord:
    return RunRecord(**row._mapping)
