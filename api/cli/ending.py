"""Whether what a run does is of no use any more: told of the run itself, and of the machine that it would have made."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress

import grpc

from mulligan.api.cli.client import Session
from mulligan.v1 import machine_pb2, provisioning_pb2, run_pb2

MOST_RUNS = 10_000
_UNSETTLED = (machine_pb2.MACHINE_STATE_PROVISIONING, machine_pb2.MACHINE_STATE_HELD)
"""The states of machines whose run may be taking them back."""

MOST_ASKED = 50
"""Of how many machines without an open run it is asked what became of that run."""

TERMINATED = "its run was terminated"


def ending(run: run_pb2.Run) -> str:
    """`being cancelled` or `undoing`; empty for a run that still makes what it was asked for."""
    return "being cancelled" if run.cancel_requested else "undoing" if run.undoing else ""


def ending_machines(
    session: Session, machines: Iterable[machine_pb2.Machine], project: str, name: str = ""
) -> Mapping[str, str]:
    """Of those machines whose open run takes them back, or whose run was terminated: how that is said, by the
    machine's id. Nothing is known where the runs cannot be asked for."""
    unsettled = [each for each in machines if each.state in _UNSETTLED]
    if not unsettled:
        return {}
    request = provisioning_pb2.ListRunsRequest(
        project=project, machine=name, outcome=run_pb2.RUN_OUTCOME_OPEN, limit=MOST_RUNS
    )
    with suppress(grpc.RpcError):
        listed = [response.run for response in session.provisioning.ListRuns(request, timeout=session.deadline())]
        is_open = {run.machine_id for run in listed}
        told = {run.machine_id: ending(run) for run in listed if run.machine_id and ending(run)}
        alone = [each for each in unsettled if each.id not in is_open][:MOST_ASKED]
        return told | {each.id: TERMINATED for each in alone if _was_terminated(session, each)}
    return {}


def _was_terminated(session: Session, machine: machine_pb2.Machine) -> bool:
    """Whether nothing makes it any more, although nobody undid it."""
    request = provisioning_pb2.GetRunRequest(workflow_id=machine.workflow_id)
    with suppress(grpc.RpcError):
        run = session.provisioning.GetRun(request, timeout=session.deadline()).run
        return run.machine_id == machine.id and run.outcome == run_pb2.RUN_OUTCOME_TERMINATED
    return False
