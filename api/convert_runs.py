"""Runs, their events and what they are doing: the domain's values to the protocol's messages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from pydantic import TypeAdapter

from mulligan.activities.errors import InvalidRequest
from mulligan.activities.events import RunEvent
from mulligan.activities.inventory import Explanation
from mulligan.activities.inventory.machine import Machine
from mulligan.activities.levers import Lever
from mulligan.activities.values import Outcome, StepEstimate
from mulligan.api import enums, suggestions
from mulligan.api.convert import evidence_message, machine_message, timestamp
from mulligan.api.convert_inventory import explanation_message
from mulligan.v1 import inventory_pb2
from mulligan.v1 import run_pb2 as pb


@dataclass(frozen=True, slots=True)
class RunView:
    """One execution of a workflow, as it is shown."""

    workflow_id: str
    run_id: str
    kind: enums.RunKind
    project: str
    machine: str
    machine_id: str
    outcome: Outcome
    reason: str = ""
    started_at: datetime | None = None
    ended_at: datetime | None = None
    cancel_requested: bool = False
    held: bool = False
    provider: str = ""
    """The provider that is claimed, or was claimed last, or is registered; empty where not known."""
    undoing: bool = False
    holds_ahead: tuple[Lever, ...] = ()
    """The holds that were asked for and are still ahead, as far as its story is known."""
    superseded: bool = False
    """Whether a newer run has its workflow id, as far as the list knows that it is in."""
    mended: str = ""
    """What became since of what it left behind; empty where it left nothing, or that still stands."""


@dataclass(frozen=True, slots=True)
class Progress:
    """What one action in progress is doing."""

    try_number: int
    step: str
    action: str
    attempt: int
    message: str = ""
    done: int = 0
    total: int = 0
    last_failure: str = ""
    next_attempt_at: datetime | None = None
    suggestions: tuple[str, ...] = ()
    estimate: StepEstimate | None = None
    """How long the step usually takes, if that is known."""
    slower_than_p95: bool = False
    deadline: datetime | None = None
    """Until when the step has time, if that is known."""
    observed_at: datetime | None = field(default=None, compare=False)
    """When `message` was last said. That it was said again makes no other progress of it."""
    explanation: Mapping[str, Any] | None = field(default=None, compare=False)
    """Why the claim before found no provider; `last_failure` says it in a sentence."""


_EXPLANATION = TypeAdapter(Explanation)

Update = RunView | RunEvent | Progress | Machine
"""What a watcher is told."""


def cursor_of(run_id: str, event_id: int) -> str:
    """Where a watcher resumes to get everything after this event."""
    return f"{run_id}.{event_id}"


def parse_cursor(cursor: str) -> tuple[str, int]:
    """The (run id, event id) of a cursor; 0 and no run for an empty one."""
    if not cursor:
        return "", 0
    run_id, _, event_id = cursor.rpartition(".")
    if not run_id or not (event_id.isascii() and event_id.isdigit()) or len(event_id) > 16:
        what = "is no cursor; send one that an event carried, or none to begin at the beginning"
        raise InvalidRequest(f"cursor {cursor[:80]!r} {what}", violations=[("cursor", what)])
    return run_id, int(event_id)


def run_message(value: RunView) -> pb.Run:
    """A run."""
    return pb.Run(
        workflow_id=value.workflow_id,
        run_id=value.run_id,
        kind=enums.RUN_KIND.number(value.kind),
        project=value.project,
        machine=value.machine,
        machine_id=value.machine_id,
        outcome=enums.OUTCOME.number(value.outcome),
        reason=value.reason,
        started_at=timestamp(value.started_at),
        ended_at=timestamp(value.ended_at),
        cancel_requested=value.cancel_requested,
        held=value.held,
        provider=value.provider,
        undoing=value.undoing,
        holds_ahead=[_lever_message(each) for each in value.holds_ahead],
        superseded=value.superseded,
    )


def event_message(value: RunEvent, run_id: str, workflow_id: str = "") -> pb.RunEvent:
    """One event of that run; with its workflow id also what may help."""
    message = pb.RunEvent(
        cursor=cursor_of(run_id, value.id),
        at=timestamp(value.at),
        kind=enums.EVENT.number(value.kind),
        step=value.step,
        action=value.action,
        message=value.message,
        provider=value.provider,
        attempts=value.attempts,
        times_held=value.times_held,
        evidence=[evidence_message(one) for one in value.evidence],
        reason=value.reason,
        suggestions=suggestions.for_event(value, workflow_id) if workflow_id else (),
    )
    if value.lever is not None:
        message.lever.CopyFrom(_lever_message(value.lever))
    if value.erase is not None:
        message.erase = enums.ERASE.number(value.erase)
    if value.outcome is not Outcome.OPEN:
        message.outcome = enums.OUTCOME.number(value.outcome)
    if (explanation := _explanation(value.explanation)) is not None:
        message.explanation.CopyFrom(explanation)
    setattr(message, "try", value.try_number)
    return message


def _lever_message(value: Lever) -> pb.Lever:
    kind = enums.LEVER.number(value.kind)
    return pb.Lever(kind=kind, actor=value.actor, reason=value.reason, step=value.step, off=value.off)


def _explanation(value: Mapping[str, Any] | None) -> inventory_pb2.Explanation | None:
    return None if value is None else explanation_message(_EXPLANATION.validate_python(value))


def estimate_message(value: StepEstimate) -> pb.StepEstimate:
    """How long a step usually takes."""
    return pb.StepEstimate(
        step=value.step,
        p50_seconds=value.p50_seconds,
        p95_seconds=value.p95_seconds,
        runs=value.runs,
        basis=value.basis,
    )


def progress_message(value: Progress) -> pb.RunProgress:
    """What an action in progress is doing."""
    message = pb.RunProgress(
        step=value.step,
        action=value.action,
        attempt=value.attempt,
        message=value.message,
        done=value.done,
        total=value.total,
        last_failure=value.last_failure,
        next_attempt_at=timestamp(value.next_attempt_at),
        observed_at=timestamp(value.observed_at),
        suggestions=value.suggestions,
        estimate=estimate_message(value.estimate) if value.estimate is not None else None,
        slower_than_p95=value.slower_than_p95,
        deadline=timestamp(value.deadline),
        explanation=_explanation(value.explanation),
    )
    setattr(message, "try", value.try_number)
    return message


def update_message(value: Update, run_id: str, workflow_id: str = "") -> pb.RunUpdate:
    """One update of that run; with its workflow id also what may help."""
    if isinstance(value, RunView):
        return pb.RunUpdate(run=run_message(value))
    if isinstance(value, RunEvent):
        return pb.RunUpdate(event=event_message(value, run_id, workflow_id))
    if isinstance(value, Progress):
        return pb.RunUpdate(progress=progress_message(value))
    return pb.RunUpdate(machine=machine_message(value))
