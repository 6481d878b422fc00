"""Cancelling a run: it stops, and undoes what it made.

Temporal keeps one request to cancel a run, the first. Whoever asks later, or at the same moment, is kept beside it by a
signal, which needs no worker and changes nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from temporalio.service import RPCError, RPCStatusCode

from mulligan.activities.errors import Conflict
from mulligan.activities.events import EventKind, RunEvent
from mulligan.activities.levers import NOTE_CANCEL, UNKNOWN, LeverIn, LeverKind, cause_of_cancel, command
from mulligan.activities.values import Outcome
from mulligan.api.convert_runs import RunView
from mulligan.api.enums import RunKind
from mulligan.api.levers import Answer
from mulligan.api.runs import Found, Runs
from mulligan.api.undo import undo_list

TELLS_SECONDS = 3.0
"""How long it is waited for that a run's history tells of a cancel; a worker decides within moments."""
LOOK_SECONDS = 0.05

_REQUESTED = "cancel requested"
_ALREADY = "it is being cancelled already"


class Cancels:
    """Cancels runs that make machines."""

    def __init__(self, runs: Runs) -> None:
        self._runs = runs

    async def cancel(self, workflow_id: str, run_id: str, actor: str, reason: str) -> Answer:
        """Ask it to stop and undo; harmless when it ended, or when asked before.

        Raises `NotFound`, and `Conflict` for an open run that takes a machine down, or registers a provider.
        """
        found = await self._runs.find(workflow_id, run_id)
        if not found.is_open:
            return _too_late(found.view)
        if found.view.kind is not RunKind.PROVISION:
            raise _goes_on(found.view)
        asked, by = found.view, LeverIn(actor or UNKNOWN, reason)
        undo = tuple(undo_list(await self._runs.story(found)))
        if not asked.cancel_requested:
            await self._request(asked, by)
        first = await self._first(found)
        if first is None:
            after = (await self._runs.find(workflow_id, asked.run_id)).view
            if after.outcome is not Outcome.OPEN:
                return _too_late(after)
            said = _ALREADY if asked.cancel_requested else _REQUESTED
            return Answer(after, f"{said}{await self._note(asked, by)}", undo)
        is_own = not asked.cancel_requested and first.cause == cause_of_cancel(by.actor, by.reason)
        said = _REQUESTED if is_own else f"{_already(first)}{await self._note(asked, by)}"
        return Answer((await self._runs.find(workflow_id, asked.run_id)).view, said, undo)

    async def _first(self, found: Found) -> RunEvent | None:
        """The request by which the run is cancelled; None where it ended before, or its history does not tell yet.

        While a worker decides what a run does next, what comes is not in its history: that is waited for.
        """
        end = asyncio.get_running_loop().time() + TELLS_SECONDS
        while True:
            told = await self._runs.story(found)
            first = next((each for each in told if each.kind is EventKind.CANCEL_REQUESTED), None)
            over = told and told[-1].kind is EventKind.RUN_FINISHED
            if first is not None or over or asyncio.get_running_loop().time() > end:
                return first
            await asyncio.sleep(LOOK_SECONDS)

    async def _request(self, run: RunView, by: LeverIn) -> None:
        with _unless_it_ended():
            cause = cause_of_cancel(by.actor, by.reason)
            await self._runs.handle(run.workflow_id, run.run_id).cancel(reason=cause)

    async def _note(self, run: RunView, by: LeverIn) -> str:
        """Keep who asked too; what is to be said where that could not be done. The run is being cancelled anyhow."""
        try:
            with _unless_it_ended():
                await self._runs.handle(run.workflow_id, run.run_id).signal(NOTE_CANCEL, by)
        except RPCError as error:
            return f"; that you asked too could not be kept: {error.message}"
        return ""


@contextmanager
def _unless_it_ended() -> Iterator[None]:
    """What Temporal does not find has ended since it was found."""
    try:
        yield
    except RPCError as error:
        if error.status is not RPCStatusCode.NOT_FOUND:
            raise


def _already(first: RunEvent) -> str:
    """The answer to whoever asks after, or beside, another one."""
    by = f" {first.cause}" if first.cause else ""
    return f"{_ALREADY}, since {first.at:%Y-%m-%dT%H:%M:%SZ}{by}"


def _too_late(run: RunView) -> Answer:
    outcome = str(run.outcome)
    why = run.reason if run.reason.startswith(outcome) else ", ".join(filter(None, (outcome, run.reason)))
    return Answer(run, f"had ended before: {why}")


def _goes_on(run: RunView) -> Conflict:
    """The answer to whoever would cancel a run that makes no machine."""
    watch = f"mulligan run watch {run.workflow_id}"
    if run.kind is RunKind.ENROL:
        what, levers = "registers a provider", ""
    else:
        what = "takes a machine down"
        retry, abort = (command(lever, run.workflow_id) for lever in (LeverKind.RETRY_NOW, LeverKind.ABORT))
        levers = f", try again now with `{retry}`, or give up, and quarantine what cannot be undone, with `{abort}`"
    return Conflict(
        f"{run.workflow_id} {what} and cannot be cancelled: once begun it goes on to its end; watch it with `{watch}`"
        f"{levers}",
        workflow_id=run.workflow_id,
        remedy=watch,
    )
