"""How a run carries out actions: within deadlines, undone in reverse, safe from cancellation where they must be."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

from temporalio import exceptions, workflow
from temporalio.exceptions import ActivityError, ApplicationError, FailureError, is_cancelled_exception
from temporalio.workflow import ActivityCancellationType

with workflow.unsafe.imports_passed_through():
    from mulligan.activities import calls
    from mulligan.activities.calls import CONTROL_QUEUE, partition_queue
    from mulligan.activities.story import TIMER_DEADLINE, TIMER_SLOW, action_id
    from mulligan.workflows.steps import KEEP_STORY, QUARANTINE, WHY, Action

In = TypeVar("In")
Out = TypeVar("Out")
T = TypeVar("T")

SLOW_SHARE = 0.25
"""The share of its deadline after which a step is said to be slow."""

DEADLINE_PASSED = "DEADLINE_PASSED"

STORY_WITHIN = timedelta(minutes=5)
WHY_WITHIN = timedelta(seconds=10)

NO_LONGER_OURS = "STALE_FENCE"
"""An undo that meets a newer claim's fence has nothing left to undo: what is there belongs to someone else."""


@dataclass(frozen=True)
class Failure:
    """Why a step failed: in one line for people, and by name for programs."""

    step: str
    action: str
    reason: str
    message: str
    blame: str = ""
    """`image` when the image's source, not the provider, is to blame."""

    @classmethod
    def of(cls, error: BaseException, step: str = "", action: str = "") -> Failure:
        """What an exception in a step means."""
        if isinstance(error, ActivityError):
            _, step, action = (error.activity_id or "//").split("/")
        cause: BaseException = error
        while isinstance(cause, FailureError) and not isinstance(cause, ApplicationError) and cause.cause is not None:
            cause = cause.cause
        if isinstance(cause, ApplicationError):
            return cls(step, action, cause.type or "ERROR", cause.message, blame_of(cause))
        if isinstance(cause, exceptions.TimeoutError):
            return cls(step, action, "NO_ANSWER", f"no worker or no answer in time ({cause.message})")
        return cls(step, action, "ERROR", str(cause) or type(cause).__name__)


def blame_of(error: ApplicationError) -> str:
    """Whom the error's metadata blames, if anyone."""
    metadata = error.details[0] if error.details else None
    return str(metadata.get("blame", "")) if isinstance(metadata, dict) else ""


class UndoFailed(Exception):
    """An undo could not be done; what is left is quarantined."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


class Execution:
    """Carries out the actions of one run."""

    def __init__(self, undo_seconds: int) -> None:
        self.try_number = 1
        self.step = ""
        """The step that runs, or ran last."""
        self.awaiting = ""
        """What the current step awaits; part of the error when its deadline passes."""
        self.lost = ""
        """Why the claim is no longer this run's; ends the current step."""
        self._undo: list[Callable[[], Coroutine[Any, Any, object]]] = []
        self._undo_seconds = undo_seconds
        self._stopping = False

    async def act(
        self, action: Action[In, Out], argument: In, said: str, *, partition: str = "", limit: timedelta | None = None
    ) -> Out:
        """Carry out one action, retried by its policy; `said` tells people what it is for."""
        if self._stopping and action.step not in ("undo", "record"):
            raise asyncio.CancelledError("the step was stopped, and the action before this one finished all the same")
        result: Out = await workflow.execute_activity(
            action.call.name,
            argument,
            result_type=action.call.gives,
            task_queue=CONTROL_QUEUE if action.on_control else partition_queue(partition),
            activity_id=action_id(self.try_number, action.step, action.name),
            summary=said,
            start_to_close_timeout=action.attempt,
            schedule_to_close_timeout=limit,
            heartbeat_timeout=action.heartbeat,
            retry_policy=action.retry,
            cancellation_type=ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
        )
        return result

    def undo_with(self, action: Action[In, Out], argument: In, said: str, *, partition: str = "") -> None:
        """Register an undo; to be called before its action is asked for."""
        limit = timedelta(seconds=self._undo_seconds)
        self._undo.append(lambda: self.act(action, argument, said, partition=partition, limit=limit))

    async def roll_back(self) -> None:
        """Undo everything in reverse. Raises `UndoFailed` at the first undo that cannot be done: what comes after it
        in reverse relies on it (no disk is removed under a machine that may be running, no claim is released before).
        """
        while self._undo:
            try:
                await self._undo[-1]()
            except ActivityError as error:
                failure = Failure.of(error)
                if failure.reason != NO_LONGER_OURS:
                    raise UndoFailed(failure) from error
            self._undo.pop()

    async def quarantine(self, claim_id: str, machine_id: str, project: str, machine: str, failure: Failure) -> str:
        """Keep a claim whose undo could not be done; the reason, with the command that mends it.

        Empty when the claim turns out to be given back already: the undo was done, only its answer was lost.
        """
        mend = f"mulligan machine release {machine} --project {project}"
        reason = f"{failure.action} could not be done: {failure.message}. When the cause is mended: {mend}"
        quarantine = calls.Quarantine(claim_id, machine_id, reason, mend)
        try:
            await self.act(QUARANTINE, quarantine, f"Quarantine what is left: {failure.message}")
        except ActivityError as error:
            workflow.logger.warning("not quarantined: %s", Failure.of(error).message)
            return ""
        return reason

    async def keep_story(self, story: calls.StoryIn) -> None:
        """Keep the story in the database. Without it the run's end stands all the same, while Temporal keeps it."""
        try:
            await self.act(KEEP_STORY, story, "Keep the story", limit=STORY_WITHIN)
        except ActivityError as error:
            workflow.logger.warning("the story could not be kept: %s", Failure.of(error).message)

    def forget_undo(self) -> None:
        """What was made is now the user's."""
        self._undo.clear()

    async def within(self, step: str, seconds: float, slow: str, body: Coroutine[Any, Any, T]) -> T:
        """Run a step within its deadline; `slow` says what it awaits. It has ended when this returns or raises."""
        self._stopping, self.step, self.awaiting = False, step, slow
        task = asyncio.create_task(body)
        try:
            for share, prefix, told in (
                (SLOW_SHARE, TIMER_SLOW, f"{slow}; allowed {seconds:.0f} s in all"),
                (1 - SLOW_SHARE, TIMER_DEADLINE, f"not done within {seconds:.0f} s: {slow}"),
            ):
                if await self._done_within(task, seconds * share, f"{prefix}{step}: {told}"):
                    break
        except asyncio.CancelledError:
            await self._settle(task)
            raise
        why = calls.Why("")
        if not self.lost and not task.done():
            why = await shielded(self._why())
        if self.lost or not task.done():
            await self._settle(task)
        if self.lost:
            raise ApplicationError(self.lost, type="CLAIM_LOST", non_retryable=True)
        if task.cancelled() or (
            task.exception() is not None and is_cancelled_exception(task.exception() or Exception())
        ):
            if workflow.cancellation_reason() is not None:
                raise asyncio.CancelledError
            last = f"; last: {why.said}" if why.said else ""
            message = f"{step} was not done within {seconds:.0f} s; it was awaiting {self.awaiting}{last}"
            raise ApplicationError(message, {"blame": why.blame}, type=DEADLINE_PASSED, non_retryable=True)
        raise_if_cancelled()
        return task.result()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for something inside a step; ends when the step is stopped, also by a cancel that was swallowed."""
        await workflow.wait_condition(lambda: condition() or self._stopping)
        if self._stopping:
            raise asyncio.CancelledError("the step was stopped")

    async def _done_within(self, task: asyncio.Task[T], seconds: float, summary: str) -> bool:
        try:
            await workflow.wait_condition(
                lambda: task.done() or bool(self.lost), timeout=timedelta(seconds=seconds), timeout_summary=summary
            )
        except TimeoutError:
            return False
        return True

    async def _why(self) -> calls.Why:
        """What the step's last attempt failed with, or was doing: only Temporal knows, before the step is stopped."""
        try:
            return await self.act(WHY, calls.Nothing(), "Ask why", limit=WHY_WITHIN)
        except ActivityError:
            return calls.Why("")

    async def _settle(self, task: asyncio.Task[Any]) -> None:
        """Cancel a step and wait until it has really ended, whatever it ends with."""
        self._stopping = True
        task.cancel()
        await shielded_until(task.done)
        if not task.cancelled():
            task.exception()


def raise_if_cancelled() -> None:
    """Look for a cancel that an activity swallowed by finishing. An empty reason counts; None means never cancelled."""
    if workflow.cancellation_reason() is not None:
        raise asyncio.CancelledError("cancelled between steps")


async def shielded(body: Coroutine[Any, Any, T]) -> T:
    """Run to the end whatever is cancelled meanwhile."""
    task = asyncio.create_task(body)
    await shielded_until(task.done)
    return task.result()


async def shielded_until(done: Callable[[], bool]) -> None:
    """Wait for a condition; a cancel meanwhile is left to be found by `raise_if_cancelled`."""
    while not done():
        try:
            await workflow.wait_condition(done)
        except asyncio.CancelledError:
            continue
