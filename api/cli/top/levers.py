"""The levers of the screen: their keys, what each will do, and how it is pulled. Knows no terminal."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass

from mulligan.api.cli.actor import this_actor
from mulligan.api.cli.naming import of_this_run
from mulligan.api.cli.output import word
from mulligan.api.cli.top.api import Api
from mulligan.api.cli.top.row import Key, Row
from mulligan.v1 import provisioning_pb2 as pb
from mulligan.v1 import run_pb2

EXTEND_SECONDS = 600

LEVER_SECONDS = 30
"""How long the API may take to answer."""


@dataclass(frozen=True)
class Told:
    """What came of a lever."""

    said: str
    began: Key | None = None
    """The run that began with it."""


@dataclass(frozen=True)
class Lever:
    """Something that an operator can do to a run; it is asked for, and the API says what came of it."""

    key: str
    name: str
    short: str
    """What it does, in a few words."""
    does: str
    """What will happen, for whoever confirms it."""
    pull: Callable[[Api, Row, str], Awaitable[Told]]
    """Asks the API, with a reason; returns its answer. Raises grpc.RpcError when it refuses."""
    shows_undo: bool = False
    """Whether it undoes what was made, so that the list of that is shown before."""


def _asked(key: Key, reason: str) -> pb.LeverRequest:
    return pb.LeverRequest(workflow_id=key.workflow_id, run_id=key.run_id, reason=reason, actor=this_actor())


def _undone(undo: Iterable[pb.UndoAction]) -> str:
    return ", ".join(each.action for each in undo)


async def _cancel(api: Api, row: Row, reason: str) -> Told:
    request = pb.CancelRunRequest(
        workflow_id=row.key.workflow_id, run_id=row.key.run_id, reason=reason, actor=this_actor()
    )
    answer = await api.provisioning.CancelRun(request, timeout=LEVER_SECONDS)
    if answer.run.outcome != run_pb2.RUN_OUTCOME_OPEN:
        return Told(f"it had ended before: {word(run_pb2.RunOutcome, answer.run.outcome)}")
    undo = _undone(answer.undo)
    return Told(f"{answer.said}; it undoes {undo}" if undo else f"{answer.said}; there is nothing to undo")


async def _retry_now(api: Api, row: Row, reason: str) -> Told:
    request = pb.RetryRunNowRequest(lever=_asked(row.key, reason))
    return Told((await api.provisioning.RetryRunNow(request, timeout=LEVER_SECONDS)).answer.said)


async def _retry_afresh(api: Api, row: Row, reason: str) -> Told:
    request = pb.RetryRunRequest(workflow_id=row.key.workflow_id, reason=reason, actor=this_actor())
    answer = await api.provisioning.RetryRun(request, timeout=LEVER_SECONDS)
    return Told(f"a new run of {answer.run.workflow_id} began", Key(answer.run.workflow_id, answer.run.run_id))


async def _hold(api: Api, row: Row, reason: str) -> Told:
    request = pb.HoldRunRequest(lever=_asked(row.key, reason))
    return Told((await api.provisioning.HoldRun(request, timeout=LEVER_SECONDS)).answer.said)


async def _resume(api: Api, row: Row, reason: str) -> Told:
    request = pb.ResumeRunRequest(lever=_asked(row.key, reason), times_held=row.times_held)
    return Told((await api.provisioning.ResumeRun(request, timeout=LEVER_SECONDS)).answer.said)


async def _extend(api: Api, row: Row, reason: str) -> Told:
    request = pb.ExtendRunRequest(lever=_asked(row.key, reason), seconds=EXTEND_SECONDS)
    return Told((await api.provisioning.ExtendRun(request, timeout=LEVER_SECONDS)).answer.said)


async def _mulligan(api: Api, row: Row, reason: str) -> Told:
    request = pb.TakeMulliganRequest(lever=_asked(row.key, reason))
    return Told((await api.provisioning.TakeMulligan(request, timeout=LEVER_SECONDS)).answer.said)


async def _abort(api: Api, row: Row, reason: str) -> Told:
    request = pb.AbortRunRequest(lever=_asked(row.key, reason))
    answer = await api.provisioning.AbortRun(request, timeout=LEVER_SECONDS)
    undo = _undone(answer.undo)
    return Told(f"{answer.answer.said}; it undoes {undo}" if undo else answer.answer.said)


LEVERS = (
    Lever("c", "cancel", "stop it, and undo what it made", "The run stops, and undoes what it made:", _cancel, True),
    Lever(
        "r",
        "retry now",
        "begin the next attempt now, also out of a long wait",
        "What waits for its next attempt begins it now, also out of a long wait.",
        _retry_now,
    ),
    Lever(
        "R",
        "retry afresh",
        "make a failed or cancelled one again, from the start",
        "A run that failed or was cancelled is made again, with the same request.",
        _retry_afresh,
    ),
    Lever(
        "h",
        "hold",
        "stop it before its next step, and keep everything",
        "The run stops before its next step, and keeps everything as it is until it is resumed.",
        _hold,
    ),
    Lever("u", "resume", "go on with a held one", "The run goes on with the step at which it is held.", _resume),
    Lever(
        "x",
        "extend",
        "give its step 10 minutes more",
        "The step gets 10 minutes more, and the run too where it needs them.",
        _extend,
    ),
    Lever(
        "m",
        "mulligan",
        "give its provider up, and try another",
        "This provider is given up and another one tried; without another one nothing is touched. Undone is here:",
        _mulligan,
        True,
    ),
    Lever("a", "abort", "stop trying: it fails now", "The run fails now, and undoes what it made:", _abort, True),
)


AFRESH = next(lever for lever in LEVERS if lever.pull is _retry_afresh)
"""The one lever of a run that has ended."""


def refusal(lever: Lever, row: Row) -> str:
    """Why this lever cannot do anything for this run, and what to do instead; empty where the run may be asked."""
    if not row.is_over or (lever is AFRESH and not row.run.superseded):
        return ""
    why = "a newer run has its id" if lever is AFRESH else f"it has ended: {row.outcome}"
    then = of_this_run(row.suggestions, row.run)[:1]
    return "; next: ".join((why, *then))


def undo_lines(row: Row) -> list[str]:
    """What would be undone, one a line, in that order."""
    undo = [f"{number}. {each.action}: {each.description}" for number, each in enumerate(row.undo(), 1)]
    return undo or ["nothing: as far as is known, nothing was made"]
