"""Runs as they are shown: from Temporal's executions, from kept records, and from what is known of a machine."""

from __future__ import annotations

from temporalio.client import WorkflowExecution, WorkflowExecutionStatus

from mulligan.activities.inventory import RunRecord
from mulligan.activities.values import Machine, Outcome
from mulligan.api.convert_runs import RunView
from mulligan.api.enums import RunKind
from mulligan.workflows.runs import MEMO_MACHINE_ID, PROVISION, RECLAIM, RELEASE, provision_id, release_id

_ENDED = {
    WorkflowExecutionStatus.CANCELED: Outcome.CANCELLED,
    WorkflowExecutionStatus.TERMINATED: Outcome.TERMINATED,
    WorkflowExecutionStatus.TIMED_OUT: Outcome.TERMINATED,
    WorkflowExecutionStatus.FAILED: Outcome.FAILED,
}


def parse_id(workflow_id: str) -> tuple[RunKind, str, str] | None:
    """(kind, project, machine) of a run's workflow id; a reclaim names neither. None for what is no run of ours."""
    kind, *rest = workflow_id.split(":")
    if kind in (RunKind.PROVISION, RunKind.RELEASE) and len(rest) == 2 and all(rest):
        return RunKind(kind), rest[0], rest[1]
    if kind == RunKind.RECLAIM and len(rest) == 1 and rest[0]:
        return RunKind.RECLAIM, "", ""
    return None


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
        reason="" if record.outcome in (Outcome.READY, Outcome.RELEASED) else record.reason,
        started_at=record.started_at,
        ended_at=record.ended_at,
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
    )


async def view_of_execution(execution: WorkflowExecution) -> RunView:
    """What Temporal's lists and descriptions tell; why a run ended badly is in its history only."""
    kind, project, machine = parse_id(execution.id) or (RunKind.RECLAIM, "", "")
    outcome = Outcome.OPEN
    if execution.status is WorkflowExecutionStatus.COMPLETED:
        outcome = Outcome.READY if kind is RunKind.PROVISION else Outcome.RELEASED
    elif execution.status is not None:
        outcome = _ENDED.get(execution.status, Outcome.OPEN)
    return RunView(
        workflow_id=execution.id,
        run_id=execution.run_id,
        kind=kind,
        project=project,
        machine=machine,
        machine_id=await execution.memo_value(MEMO_MACHINE_ID, "", type_hint=str),
        outcome=outcome,
        started_at=execution.start_time,
        ended_at=execution.close_time,
    )


def visibility_query(project: str, machine: str, outcome: Outcome | None) -> str:
    """Temporal's list filter for these runs, and more: reclaims do not name their machine. The names were validated."""
    query = f"WorkflowType IN ('{PROVISION}', '{RELEASE}', '{RECLAIM}')"
    if outcome is not None:
        query += f" AND ExecutionStatus {'=' if outcome is Outcome.OPEN else '!='} 'Running'"
    if project and machine:
        ids = f"WorkflowId IN ('{provision_id(project, machine)}', '{release_id(project, machine)}')"
    elif project:
        kinds = (RunKind.PROVISION, RunKind.RELEASE)
        ids = " OR ".join(f"WorkflowId STARTS_WITH '{kind}:{project}:'" for kind in kinds)
    else:
        return query
    return f"{query} AND ({ids} OR WorkflowType = '{RECLAIM}')"
