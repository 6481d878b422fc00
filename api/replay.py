"""Whether today's workflow code would have done what a history says was done. Needs no server."""

from __future__ import annotations

import re
from dataclasses import dataclass

from temporalio.client import WorkflowHistory
from temporalio.worker import Replayer

from mulligan.api.processes.sandbox import workflow_runner
from mulligan.api.temporal import DATA_CONVERTER
from mulligan.workflows import all_workflows

_EVENT_ID = re.compile(r"HistoryEvent\(id: (\d+)")
_MESSAGE = re.compile(r'message: "((?:[^"\\]|\\.)+)"')
"""Where Temporal's core says at which event, and why, inside the text of its own value."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a replay found."""

    agrees: bool
    why: str = ""
    """Where and how today's code does otherwise; empty when it agrees."""
    event_id: int = 0
    """The history event at which it does; 0 where that is not known."""


async def replay(history: WorkflowHistory) -> Verdict:
    """Replay a history, whole or of a run that is still open, with today's code and the client's data converter."""
    replayer = Replayer(workflows=all_workflows(), data_converter=DATA_CONVERTER, workflow_runner=workflow_runner())
    result = await replayer.replay_workflow(history, raise_on_replay_failure=False)
    if result.replay_failure is None:
        return Verdict(agrees=True)
    told = " ".join(str(result.replay_failure).split())
    message, event = _MESSAGE.search(told), _EVENT_ID.search(told)
    return Verdict(agrees=False, why=message[1] if message else told, event_id=int(event[1]) if event else 0)
