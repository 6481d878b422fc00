"""Runs as they are shown: from Temporal's executions, from kept records, and from what is known of a machine."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from temporalio.client import WorkflowExecution, WorkflowExecutionStatus

from mulligan.activities.events import EventKind, RunEvent
from mulligan.activities.holds import holds_ahead
from mulligan.activities.inventory import RunRecord
from mulligan.activities.inventory.machine import Machine
from mulligan.activities.values import Outcome
from mulligan.api.convert_runs import RunView
from mulligan.api.enums import RunKind
from mulligan.api.run_ids import parse_id, provider_of
from mulligan.api.undo import UNDO
from mulligan.workflows.runs import ENROL, MEMO_MACHINE_ID, PROVISION, RECLAIM, RELEASE
from mulligan.workflows.search import MACHINE, PROJECT, PROVIDER, STEP

GOOD = frozenset({Outcome.READY, Outcome.RELEASED, Outcome.ENROLLED})
"""How a run ends that reached its aim; there is no reason to tell."""

_ENDED = {
    WorkflowExecutionStatus.CANCELED: Outcome.CANCELLED,
    WorkflowExecutionStatus.TERMINATED: Outcome.TERMINATED,
    WorkflowExecutionStatus.TIMED_OUT: Outcome.TERMINATED,
    WorkflowExecutionStatus.FAILED: Outcome.FAILED,
}
_GOES_ON = frozenset({EventKind.RESUMED, EventKind.ACTION_STARTED, EventKind.CANCEL_REQUESTED, EventKind.RUN_FINISHED})
_DONE = {RunKind.PROVISION: Outcome.READY, RunKind.ENROL: Outcome.ENROLLED}


def view_of_record(record: RunRecord) -> RunView:
    """A kept run."""
    return RunView(
        workflow_id=record.workflow_id,
        run_id=record.run_id,
        kind=RunKind(record.kind),
        project=record.project,
        machine=record.machine,
        machine_id=record.machine_id,
        outcome=record.outcome,
        reason="" if record.outcome in GOOD else record.reason,
        started_at=record.started_at,
        ended_at=record.ended_at,
        provider=provider_of(record.workflow_id) or record.provider,
    )


def view_of_machine(workflow_id: str, run_id: str, machine: Machine) -> RunView:
    """The run that made a machine, when it is no longer kept anywhere."""
    return RunView(
        workflow_id=workflow_id,
        run_id=run_id,
        kind=RunKind.PROVISION,
        project=machine.project,
        machine=machine.name,
        machine_id=machine.id,
        outcome=Outcome.READY if machine.ready_at is not None else Outcome.FAILED,
        reason=machine.reason,
        started_at=machine.created_at,
        ended_at=machine.ready_at,
        provider=machine.provider,
    )


def is_held(events: Iterable[RunEvent], *, before: bool = False) -> bool:
    """Whether a run waits for an operator after these events: nothing happened since it was held."""
    held = before
    for event in events:
        if event.kind is EventKind.HELD:
            held = True
        elif event.kind in _GOES_ON:
            held = False
    return held


def is_undoing(events: Iterable[RunEvent], *, before: bool = False) -> bool:
    """Whether a run undoes after these events: the newest action that began is one of its undo."""
    undoing = before
    for event in events:
        if event.kind is EventKind.ACTION_STARTED:
            undoing = event.step == UNDO
        elif event.kind in (EventKind.RESUMED, EventKind.RUN_FINISHED):
            undoing = False
    return undoing


def as_told(view: RunView, events: Sequence[RunEvent]) -> RunView:
    """The view with what its whole story adds: whether it is held, undoes, and on which provider it was last."""
    is_open = view.outcome is Outcome.OPEN
    provider = next((event.provider for event in reversed(events) if event.provider), "")
    return replace(
        view,
        held=is_open and is_held(events),
        undoing=is_open and view.kind is RunKind.PROVISION and is_undoing(events),
        holds_ahead=holds_ahead(events) if is_open else (),
        provider=provider or view.provider,
    )


async def view_of_execution(execution: WorkflowExecution) -> RunView:
    """What Temporal's lists and descriptions tell; why a run ended badly is in its history only."""
    kind, project, machine = parse_id(execution.id) or (RunKind.RECLAIM, "", "")
    known = execution.typed_search_attributes  # a reclaim's id does not name its machine
    outcome = Outcome.OPEN
    if execution.status is WorkflowExecutionStatus.COMPLETED:
        outcome = _DONE.get(kind, Outcome.RELEASED)
    elif execution.status is not None:
        outcome = _ENDED.get(execution.status, Outcome.OPEN)
    return RunView(
        workflow_id=execution.id,
        run_id=execution.run_id,
        kind=kind,
        project=project or known.get(PROJECT, ""),
        machine=machine or known.get(MACHINE, ""),
        machine_id=await execution.memo_value(MEMO_MACHINE_ID, "", type_hint=str),
        outcome=outcome,
        started_at=execution.start_time,
        ended_at=execution.close_time,
        provider=provider_of(execution.id) or known.get(PROVIDER, ""),
        undoing=outcome is Outcome.OPEN and kind is RunKind.PROVISION and known.get(STEP) == UNDO,
    )


def visibility_query(project: str, machine: str, outcome: Outcome | None) -> str:
    """Temporal's list filter for these runs. The names were validated.

    An enrolment belongs to no project, and so is in the list of all runs only.
    """
    wanted = [f"WorkflowType IN ({', '.join(repr(kind) for kind in (PROVISION, RELEASE, RECLAIM, ENROL))})"]
    if outcome is not None:
        wanted.append(f"ExecutionStatus {'=' if outcome is Outcome.OPEN else '!='} 'Running'")
    wanted += [f"{key.name} = '{name}'" for key, name in ((PROJECT, project), (MACHINE, machine)) if name]
    return " AND ".join(wanted)
