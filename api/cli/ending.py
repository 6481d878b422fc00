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


def ending(run: run_pb2.Run) -> str:
    """`being cancelled` or `undoing`; empty for a run that still makes what it was asked for."""
    return "being cancelled" if run.cancel_requested else "undoing" if run.undoing else ""


def ending_machines(
    session: Session, machines: Iterable[machine_pb2.Machine], project: str, name: str = ""
) -> Mapping[str, str]:
    """Of those machines whose open run takes them back: how that is said, by the machine's id. Nothing is known where
    the runs cannot be asked for."""
    if not any(each.state in _UNSETTLED for each in machines):
        return {}
    request = provisioning_pb2.ListRunsRequest(
        project=project, machine=name, outcome=run_pb2.RUN_OUTCOME_OPEN, limit=MOST_RUNS
    )
    with suppress(grpc.RpcError):
        listed = [response.run for response in session.provisioning.ListRuns(request, timeout=session.deadline())]
        return {run.machine_id: ending(run) for run in listed if run.machine_id and ending(run)}
    return {}
