"""Pulling a lever of a run: an update of its workflow, which the workflow itself answers (see `activities.levers`)."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta

import structlog
from temporalio.client import WorkflowUpdateFailedError, WorkflowUpdateRPCTimeoutOrCancelledError
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError, RPCStatusCode

from mulligan.activities.errors import Busy, Conflict, Final, Unreachable
from mulligan.activities.events import EventKind, RunEvent
from mulligan.activities.levers import UPDATE_LIMIT, LeverIn, LeverKind, Pulled, command
from mulligan.activities.values import Outcome
from mulligan.api.convert_runs import RunView
from mulligan.api.enums import RunKind
from mulligan.api.errors import domain_error
from mulligan.api.runs import Found, Runs
from mulligan.api.undo import Undo, undo_list
from mulligan.workflows.steps import RECORD_HELD

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

ANSWER_SECONDS = 10.0
"""How long a worker may take to answer for the run. Temporal asks for 60 s by itself, which no operator waits."""

_ALL = frozenset(LeverKind)
LEVERS: Mapping[RunKind, frozenset[LeverKind]] = {
    RunKind.PROVISION: _ALL,
    RunKind.RELEASE: frozenset({LeverKind.RETRY_NOW, LeverKind.ABORT}),
    RunKind.RECLAIM: frozenset({LeverKind.RETRY_NOW, LeverKind.ABORT}),
    RunKind.ENROL: frozenset(),
}
"""Which levers each kind of run has: what takes a machine down goes on to its end, and what registers ends soon."""

_ENDED_MEANWHILE = "AcceptedUpdateCompletedWorkflow"
"""What Temporal says of an update that was accepted by a run which then ended without answering it."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a lever did to which run."""

    run: RunView
    said: str
    undo: tuple[Undo, ...] = ()
    """What was to be undone when it was pulled."""


class Levers:
    """Pulls the levers of open runs."""

    def __init__(self, runs: Runs, *, answer_seconds: float = ANSWER_SECONDS) -> None:
        self._runs = runs
        self._patience = timedelta(seconds=answer_seconds)

    async def pull(self, workflow_id: str, run_id: str, kind: LeverKind, asked: LeverIn) -> Answer:
        """What the lever did, in the words of the run.

        Raises `NotFound` for the run, `Conflict` when it is over, has no such lever, or refuses; `InvalidRequest` when
        it refuses what was asked for; `Unreachable` when no worker answers for it, `Busy` when too many others ask it.
        """
        found = await self._runs.find(workflow_id, run_id)
        if not found.is_open:
            raise over(found.view)
        _require_lever(found.view, kind)
        told = await self._runs.story(found) if kind in (LeverKind.ABORT, LeverKind.RESUME) else []
        undo = undo_list(told) if kind is LeverKind.ABORT else []
        if kind is LeverKind.RESUME and asked.holds < 0:
            asked = replace(asked, holds=times_held(told))
        try:
            pulled = await self._update(found, kind, asked)
        except Final as error:  # Temporal keeps nothing of an update that its workflow refused
            by = {"actor": asked.actor, "reason": asked.reason}
            log.info("lever refused", lever=kind.value, workflow_id=workflow_id, why=error.message, **by)
            raise
        after = await self._runs.find(workflow_id, found.view.run_id)
        return Answer(after.view, pulled.said, tuple(undo))

    async def _update(self, found: Found, kind: LeverKind, asked: LeverIn) -> Pulled:
        view = found.view
        try:
            pulled: Pulled = await self._runs.handle(view.workflow_id, view.run_id).execute_update(
                kind.value, asked, id=f"{kind}-{uuid.uuid4()}", result_type=Pulled, rpc_timeout=self._patience
            )
        except WorkflowUpdateRPCTimeoutOrCancelledError as error:
            raise _unanswered(view, kind, self._patience.total_seconds()) from error
        except RPCError as error:
            if error.status is RPCStatusCode.RESOURCE_EXHAUSTED:
                raise _too_many_at_once(view, kind, error.message) from error
            if error.status is RPCStatusCode.FAILED_PRECONDITION:
                refusal = _took_all if UPDATE_LIMIT in error.message else _decides_nothing
                raise refusal(view, kind, error.message) from error
            if error.status is not RPCStatusCode.NOT_FOUND:
                raise
            raise over((await self._runs.find(view.workflow_id, view.run_id)).view) from error
        except WorkflowUpdateFailedError as error:
            if isinstance(error.cause, ApplicationError) and error.cause.type == _ENDED_MEANWHILE:
                raise over((await self._runs.find(view.workflow_id, view.run_id)).view) from error
            raise domain_error(error) or _refused(view, kind, str(error.cause)) from error
        return pulled


def times_held(events: Iterable[RunEvent]) -> int:
    """How often a run was held, counted from when that is recorded: nobody sees a hold before."""
    return sum(each.kind is EventKind.ACTION_STARTED and each.action == RECORD_HELD.name for each in events)


def over(view: RunView) -> Conflict:
    """The answer to whoever steers a run that has ended: how, and what can be done now."""
    ended = str(view.outcome) if view.outcome is not Outcome.OPEN else "over"
    remedy = f"mulligan run show {view.workflow_id}"
    if view.mended or (view.kind is RunKind.PROVISION and view.outcome is Outcome.READY):
        remedy = f"mulligan machine show {view.machine} --project {view.project}"
    elif view.kind is RunKind.PROVISION and view.outcome in (Outcome.QUARANTINED, Outcome.TERMINATED):
        remedy = f"mulligan machine release {view.machine} --project {view.project}"
    elif view.kind is RunKind.PROVISION and view.outcome is not Outcome.OPEN:
        remedy = f"mulligan run retry {view.workflow_id}"
    why = f": {view.reason}" if view.reason else ""
    return Conflict(
        f"{view.workflow_id} has ended {ended}{why}; there is nothing left to steer; next: `{remedy}`",
        workflow_id=view.workflow_id,
        run_id=view.run_id,
        outcome=view.outcome,
        remedy=remedy,
    )


def _require_lever(view: RunView, kind: LeverKind) -> None:
    if kind in LEVERS[view.kind]:
        return
    what = "takes a machine down" if LEVERS[view.kind] else "registers a provider"
    watch = f"mulligan run watch {view.workflow_id}"
    levers = [command(each, view.workflow_id) for each in LeverKind if each in LEVERS[view.kind]]
    raise Conflict(
        f"{view.workflow_id} {what}, and has no lever {kind}: it goes on to its end; possible now: "
        f"{', '.join(f'`{each}`' for each in (*levers, watch))}",
        workflow_id=view.workflow_id,
        lever=kind,
        remedy=watch,
    )


def _refused(view: RunView, kind: LeverKind, why: str) -> Conflict:
    """A refusal without a name that is known here, such as that of a worker of another version."""
    return Conflict(
        f"{view.workflow_id} does not take the lever {kind}: {why}; nothing was changed",
        workflow_id=view.workflow_id,
        lever=kind,
        remedy=f"mulligan run show {view.workflow_id}",
    )


def _unanswered(view: RunView, kind: LeverKind, seconds: float) -> Unreachable:
    watch = f"mulligan run watch {view.workflow_id}"
    return Unreachable(
        f"no worker answered for {view.workflow_id} within {seconds:.0f} s, so nothing is known to have changed; the "
        f"lever {kind} may still work when a worker comes back. See that one runs (`mulligan worker --control`), watch "
        f"the run with `{watch}`, and pull again if nothing is told",
        workflow_id=view.workflow_id,
        lever=kind,
        remedy=watch,
    )


def _too_many_at_once(view: RunView, kind: LeverKind, why: str) -> Busy:
    return Busy(
        f"{view.workflow_id} could not be given the lever {kind}: Temporal takes no more for it at this moment, as "
        f"where many are pulled at once ({why}); nothing was changed: pull it again in a moment",
        after_seconds=1,
        workflow_id=view.workflow_id,
        lever=kind,
    )


def _decides_nothing(view: RunView, kind: LeverKind, why: str) -> Unreachable:
    """The run's own code fails, again and again, until a mended version is deployed; then it goes on."""
    return Unreachable(
        f"{view.workflow_id} decides nothing now, as its workflow's code fails ({why}); {kind} has changed nothing, "
        "and nothing is lost: the control workers' log says what fails, and the run goes on when that is mended",
        workflow_id=view.workflow_id,
        lever=kind,
    )


def _took_all(view: RunView, kind: LeverKind, why: str) -> Conflict:
    """Temporal takes so many updates of one run, and no more. A cancel is none."""
    limit = why.partition(". ")[0]  # what follows is for programmers
    remedy, instead = f"mulligan run watch {view.workflow_id}", "it goes on without"
    if view.kind is RunKind.PROVISION:
        remedy, instead = f"mulligan run cancel {view.workflow_id}", "it goes on without, and can still be cancelled"
    return Conflict(
        f"{view.workflow_id} has taken all the levers that Temporal allows one run ({limit}); {kind} has changed "
        f"nothing: {instead}; possible now: `{remedy}`",
        workflow_id=view.workflow_id,
        lever=kind,
        remedy=remedy,
    )
