"""The part of the Provisioning service by which operators steer runs. Handlers validate, convert and call."""

from __future__ import annotations

from dataclasses import replace

from mulligan.activities.levers import HOLDABLE, UNKNOWN, LeverIn, LeverKind
from mulligan.api.cancels import Cancels
from mulligan.api.convert_runs import run_message
from mulligan.api.interceptor import Context
from mulligan.api.levers import Answer, Levers
from mulligan.api.retries import Retries
from mulligan.api.services.checks import check_run
from mulligan.api.validate import Faults, words
from mulligan.v1 import provisioning_pb2 as pb

MOST_SECONDS = 604_800


class Steering:
    """The levers, cancel and retry. For the servicer, which sets these."""

    _cancels: Cancels
    _levers: Levers
    _retries: Retries

    async def CancelRun(self, request: pb.CancelRunRequest, context: Context) -> pb.CancelRunResponse:  # noqa: N802
        """Ask a run to stop and undo; what it will undo."""
        faults = Faults(request)
        words(faults, request.actor, request.reason)
        check_run(request, faults)
        answer = await self._cancels.cancel(request.workflow_id, request.run_id, request.actor, request.reason)
        undo = [each.message() for each in answer.undo]
        return pb.CancelRunResponse(run=run_message(answer.run), undo=undo, said=answer.said)

    async def RetryRun(self, request: pb.RetryRunRequest, context: Context) -> pb.RetryRunResponse:  # noqa: N802
        """Make a machine afresh whose run ended badly."""
        faults = Faults(request)
        words(faults, request.actor, request.reason)
        check_run(request, faults)
        run = await self._retries.retry(request.workflow_id, request.actor, request.reason)
        return pb.RetryRunResponse(run=run_message(run))

    async def RetryRunNow(self, request: pb.RetryRunNowRequest, context: Context) -> pb.RetryRunNowResponse:  # noqa: N802
        """Begin the next attempt now."""
        answer = await self._pull(LeverKind.RETRY_NOW, request.lever, Faults(request))
        return pb.RetryRunNowResponse(answer=_message(answer))

    async def HoldRun(self, request: pb.HoldRunRequest, context: Context) -> pb.HoldRunResponse:  # noqa: N802
        """Hold a run before a step."""
        faults = Faults(request)
        _check_step(faults, "before_step", request.before_step)
        asked = LeverIn(step=request.before_step, off=request.off)
        answer = await self._pull(LeverKind.HOLD, request.lever, faults, asked)
        return pb.HoldRunResponse(answer=_message(answer))

    async def ResumeRun(self, request: pb.ResumeRunRequest, context: Context) -> pb.ResumeRunResponse:  # noqa: N802
        """Go on with a held run."""
        faults = Faults(request)
        _check_step(faults, "from_step", request.from_step)
        if request.times_held < 0:
            faults.add("times_held", "is negative; use the number that the run's hold told, or 0")
        asked = LeverIn(step=request.from_step, holds=request.times_held or -1)
        answer = await self._pull(LeverKind.RESUME, request.lever, faults, asked)
        return pb.ResumeRunResponse(answer=_message(answer))

    async def ExtendRun(self, request: pb.ExtendRunRequest, context: Context) -> pb.ExtendRunResponse:  # noqa: N802
        """Give a step, or the run, more time."""
        faults = Faults(request)
        faults.between("seconds", request.seconds, 1, MOST_SECONDS, "seconds (7 days)")
        more = LeverIn(seconds=request.seconds, whole_run=request.whole_run)
        answer = await self._pull(LeverKind.EXTEND, request.lever, faults, more)
        return pb.ExtendRunResponse(answer=_message(answer))

    async def TakeMulligan(self, request: pb.TakeMulliganRequest, context: Context) -> pb.TakeMulliganResponse:  # noqa: N802
        """Give this provider up, and try another."""
        answer = await self._pull(LeverKind.MULLIGAN, request.lever, Faults(request))
        return pb.TakeMulliganResponse(answer=_message(answer))

    async def AbortRun(self, request: pb.AbortRunRequest, context: Context) -> pb.AbortRunResponse:  # noqa: N802
        """Stop trying."""
        answer = await self._pull(LeverKind.ABORT, request.lever, Faults(request))
        return pb.AbortRunResponse(answer=_message(answer), undo=[each.message() for each in answer.undo])

    async def _pull(
        self, kind: LeverKind, lever: pb.LeverRequest, faults: Faults, asked: LeverIn | None = None
    ) -> Answer:
        words(faults, lever.actor, lever.reason, "lever.")
        check_run(lever, faults, "lever.")
        asked = replace(asked or LeverIn(), actor=lever.actor or UNKNOWN, reason=lever.reason)
        return await self._levers.pull(lever.workflow_id, lever.run_id, kind, asked)


def _message(answer: Answer) -> pb.LeverAnswer:
    return pb.LeverAnswer(run=run_message(answer.run), said=answer.said)


def _check_step(faults: Faults, field: str, step: str) -> None:
    if step:
        faults.known(field, step, HOLDABLE)
