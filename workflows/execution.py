"""How a run carries out actions: within deadlines, undone in reverse, safe from cancellation where they must be."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any, TypeVar

from temporalio import workflow
from temporalio.exceptions import ActivityError, ApplicationError, is_cancelled_exception
from temporalio.workflow import ActivityCancellationType

with workflow.unsafe.imports_passed_through():
    from mulligan.activities import calls
    from mulligan.activities.calls import CONTROL_QUEUE, partition_queue
    from mulligan.activities.story import TIMER_AWAITING, TIMER_DEADLINE, TIMER_SLOW, action_id
    from mulligan.workflows.failures import (
        ABORTED,
        DEADLINE_PASSED,
        NO_LONGER_OURS,
        Failure,
        UndoFailed,
        would_be_tried_again,
    )
    from mulligan.workflows.leases import leased
    from mulligan.workflows.shielding import raise_if_cancelled, shielded, shielded_until
    from mulligan.workflows.steps import KEEP_STORY, QUARANTINE, SUSPECT, WHY, Action
    from mulligan.workflows.targets import Targets

In = TypeVar("In")
Out = TypeVar("Out")
T = TypeVar("T")

SLOW_SHARE = 0.25
"""The share of its deadline after which a step is said to be slow."""

SLOW_AFTER = timedelta(minutes=5)
"""After so long every step is said to be slow, however much time it has."""

ORDER = ("claim", "image", "boot", "verify")
"""The steps, in order."""

STORY_WITHIN = timedelta(minutes=5)
WHY_WITHIN = timedelta(seconds=10)
LAST_CHANCE = timedelta(seconds=5)
"""How long an undo that is given up may still take."""

TRIED_AGAIN = "; it will be tried again"
"""How the reason of an attempt may end: untrue of the last one."""

STOPS_FOR_A_SWALLOWED_CANCEL = "stops-for-a-swallowed-cancel"
"""Of a step whose cancel a look for another provider, or an extension just at the deadline, has swallowed."""

SPARES_WHO_DID_NOT_FAIL = "spares-who-did-not-fail"
"""Of an undo that was given up before it had failed: since November 2026 it is not held against the provider."""

SPARES_WHOM_IT_DOES_NOT_BLAME = "spares-whom-an-undo-does-not-blame"
"""Of an undo whose failure blames the site's set-up: likewise."""

AWAIT_AT_MOST = timedelta(days=30)
"""How long a step may await something that is not in its hands; its own deadline comes long before."""


@dataclass(frozen=True)
class Undo:
    """What undoes an action of a step."""

    step: str
    action: str
    said: str
    do: Callable[[], Coroutine[Any, Any, object]]


async def _go_on() -> Failure | None:
    return None


class Execution:
    """Carries out the actions of one run."""

    def __init__(self, undo_seconds: int) -> None:
        self.try_number = 1
        self.step = ""
        """The step that runs, or ran last."""
        self.awaiting = ""
        """What the current step awaits; part of the error when its deadline passes."""
        self.changed: Callable[[], None] = lambda: None
        """Called when what the step awaits, its deadline, or what is to be undone is another."""
        self.when_slow: Callable[[], Awaitable[Failure | None]] = _go_on
        """Asked once when a step is slow; why it shall end now, if it shall."""
        self.ended_by: Failure | None = None
        """Why the current step shall end at once, whatever it is doing: its claim was lost, or an operator said so."""
        self.began = workflow.now()
        """When the current step began."""
        self.deadline = self.began
        """When the current step must be done; may be moved while it runs."""
        self.given_up = ""
        """Why an undo that cannot be done now is not tried any longer."""
        self.asking = asyncio.Lock()
        """Held by whoever asks for an action that an operator's lever may ask for at the same time."""
        self.undo_seconds = undo_seconds
        self.targets = Targets()
        self._undo: list[Undo] = []
        self._stopping = False

    async def act(
        self,
        action: Action[In, Out],
        argument: In,
        said: str,
        *,
        partition: str = "",
        limit: timedelta | None = None,
        begin_within: timedelta | None = None,
    ) -> Out:
        """Carry out one action, retried by its policy; `said` tells people what it is for. Where nobody can wait for a
        worker, `begin_within` says how soon one must have begun."""
        if self._stopping and action.step not in ("undo", "record"):
            raise asyncio.CancelledError("the step was stopped, and the action before this one finished all the same")
        begin = partial(
            workflow.start_activity,
            action.call.name,
            result_type=action.call.gives,
            task_queue=CONTROL_QUEUE if action.on_control else partition_queue(partition),
            activity_id=action_id(self.try_number, action.step, action.name),
            summary=said,
            start_to_close_timeout=action.attempt,
            schedule_to_close_timeout=limit,
            schedule_to_start_timeout=begin_within,
            heartbeat_timeout=action.heartbeat,
            retry_policy=action.retry,
            cancellation_type=ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
        )
        result: Out = await self.targets.carry_out(begin, argument)
        return result

    def undo_with(
        self,
        action: Action[In, Out],
        argument: In,
        said: str,
        *,
        partition: str = "",
        step: str = "",
        at_least: timedelta = timedelta(),
    ) -> None:
        """Register an undo of the step, else of the current one; to be called before its action is asked for.

        It is tried for `undo_seconds`, or for `at_least` where that is longer; what only needs the database, until that
        answers: without it nothing could be quarantined either.
        """
        limit = None if action.on_control else max(timedelta(seconds=self.undo_seconds), at_least)
        do = partial(self.act, action, argument, said, partition=partition, limit=limit)
        self._undo.append(Undo(step or self.step, action.name, said, do))
        self.changed()

    def to_undo(self) -> list[Undo]:
        """What would be undone now, in that order."""
        return self._undo[::-1]

    async def roll_back(self, to: str = ORDER[0]) -> None:
        """Undo everything that was done from this step on, in reverse. Raises `UndoFailed` at the first undo that
        cannot be done: what comes after it in reverse relies on it (no disk is removed under a machine that may be
        running, no claim is released before).
        """
        while self._undo and ORDER.index(self._undo[-1].step) >= ORDER.index(to):
            try:
                await self._unless_given_up(self._undo[-1])
            except ActivityError as error:
                failure = Failure.of(error)
                if failure.reason != NO_LONGER_OURS:
                    raise UndoFailed(failure) from error
            self._undo.pop()
            self.changed()

    async def _unless_given_up(self, undo: Undo) -> None:
        """Undo, until someone says that it is not to be tried any longer; what works has a few seconds to be done."""
        task = asyncio.create_task(undo.do())
        await workflow.wait_condition(lambda: task.done() or bool(self.given_up))
        with suppress(TimeoutError):
            await workflow.wait_condition(task.done, timeout=LAST_CHANCE, timeout_summary="a last chance for the undo")
        if not task.done():
            why = await self.why()
            await self._settle(task)
            if task.cancelled() or task.exception() is not None:
                last = f"; last: {why.said}" if why.said else ""
                blame = "" if why.reason else calls.OPERATOR
                raise UndoFailed(Failure("undo", undo.action, ABORTED, f"{self.given_up}{last}", blame))
        task.result()

    async def quarantine(self, claim_id: str, machine_id: str, project: str, machine: str, failure: Failure) -> str:
        """Keep a claim whose undo could not be done; the reason, with the command that mends it.

        Empty when the claim turns out to be given back already: the undo was done, only its answer was lost.
        """
        mend = f"mulligan machine release {machine} --project {project}"
        said = failure.message.removesuffix(TRIED_AGAIN)  # no longer
        reason = f"{failure.action} could not be done: {said}. When the cause is mended: {mend}"
        quarantine = calls.Quarantine(claim_id, machine_id, reason, mend)
        try:
            await self.act(QUARANTINE, quarantine, f"Quarantine what is left: {said}")
        except ActivityError as error:
            workflow.logger.warning("not quarantined: %s", Failure.of(error).message)
            return ""
        return reason

    async def keep_story(self, story: calls.StoryIn) -> None:
        """Keep the story in the database. Without it the run's end stands all the same, while Temporal keeps it.

        A local activity: it is short and ours, and nobody watches it.
        """
        try:
            await workflow.execute_local_activity(
                KEEP_STORY.call.name,
                story,
                result_type=KEEP_STORY.call.gives,
                activity_id=action_id(self.try_number, KEEP_STORY.step, KEEP_STORY.name),
                start_to_close_timeout=KEEP_STORY.attempt,
                schedule_to_close_timeout=STORY_WITHIN,
                retry_policy=KEEP_STORY.retry,
            )
        except ActivityError as error:
            workflow.logger.warning("the story could not be kept: %s", Failure.of(error).message)

    def forget_undo(self) -> None:
        """What was made is now the user's."""
        self._undo.clear()

    async def within(self, step: str, seconds: float, slow: str, body: Coroutine[Any, Any, T]) -> T:
        """Run a step within its deadline; `slow` says what it awaits. It has ended when this returns or raises."""
        raise_if_cancelled()
        self._stopping, self.step = False, step
        began = self.began = workflow.now()
        self.deadline = began + timedelta(seconds=seconds)
        self.awaits(slow)
        task = asyncio.create_task(body)
        why = calls.Why("")
        try:
            while (await self._done_or_over(task, step, began, slow)) and self.ended_by is None:
                deadline, why = self.deadline, await shielded(self.why())
                if task.done() or self.deadline == deadline:
                    break
        except asyncio.CancelledError:
            await self._settle(task)
            raise
        is_late = not task.done()
        if self.ended_by is not None or is_late:
            await self._settle(task)
        self.raise_if_ended()
        if task.cancelled() or is_cancelled_exception(task.exception() or Exception()):
            if workflow.cancellation_reason() is not None:
                raise asyncio.CancelledError
            raise self._too_late(step, began, why)
        if is_late and would_be_tried_again(task.exception()):
            raise self._too_late(step, began, why)
        raise_if_cancelled()
        return task.result()

    def raise_if_ended(self) -> None:
        """Raise why the current step shall end, or has ended, if someone said so."""
        if self.ended_by is not None:
            raise ApplicationError(self.ended_by.message, type=self.ended_by.reason, non_retryable=True) from None

    @property
    def stopping(self) -> bool:
        """Whether the current step is being stopped: more time is of no use to it."""
        return self._stopping or self.ended_by is not None

    def extend(self, seconds: float) -> None:
        """Give the current step more time."""
        self.deadline += timedelta(seconds=seconds)
        self.changed()

    @property
    def left(self) -> float:
        """Seconds until the current step's deadline."""
        return (self.deadline - workflow.now()).total_seconds()

    @property
    def allowed(self) -> int:
        """Seconds that the current step has in all."""
        return round((self.deadline - self.began).total_seconds())

    @staticmethod
    def leased(seconds: int) -> int:
        """Seconds to lease the claim for now, by a run that began with leases of so many."""
        return leased(seconds, workflow.now() - workflow.info().start_time)

    def awaits(self, what: str) -> None:
        """Say what the current step awaits."""
        self.awaiting = what
        self.changed()

    async def until(self, condition: Callable[[], bool], awaiting: str, *, at_first: timedelta = AWAIT_AT_MOST) -> bool:
        """Wait for something inside a step; ends when the step is stopped, also by a cancel that was swallowed.

        What is awaited stands in the history, as a timer's summary: this is how watchers get to know it. False when it
        had not come `at_first`, so that the wait can go on in another way.
        """
        self.awaits(awaiting)
        try:
            await workflow.wait_condition(
                lambda: condition() or self._stopping,
                timeout=at_first,
                timeout_summary=f"{TIMER_AWAITING}{self.step}: {awaiting}",
            )
        except TimeoutError:
            if at_first == AWAIT_AT_MOST:
                raise
            return False
        if self._stopping:
            raise asyncio.CancelledError("the step was stopped")
        return True

    async def _done_or_over(self, task: asyncio.Task[T], step: str, began: datetime, slow: str) -> bool:
        """Wait until the task is done, is to end, or is too late: then True. Say once that it is slow."""
        slow_at = began + min((self.deadline - began) * SLOW_SHARE, SLOW_AFTER)
        deadline, is_slow = self.deadline, False
        while not task.done() and self.ended_by is None:
            if workflow.cancellation_reason() is not None and workflow.patched(STOPS_FOR_A_SWALLOWED_CANCEL):
                raise_if_cancelled()
            allowed = f"{(deadline - began).total_seconds():.0f} s"
            due, summary = (
                (deadline, f"{TIMER_DEADLINE}{step}: not done within {allowed}: {slow}")
                if is_slow
                else (slow_at, f"{TIMER_SLOW}{step}: {slow}; allowed {allowed} in all")
            )
            if await self._changed_before(due, summary, task, deadline):
                deadline = self.deadline
            elif is_slow:
                return True
            else:
                is_slow = True
                ended_by = await self.when_slow()
                if ended_by is not None and self.ended_by is None and not task.done():
                    self.ended_by = ended_by
        return False

    async def _changed_before(self, due: datetime, summary: str, task: asyncio.Task[T], deadline: datetime) -> bool:
        """Wait until the step is done, is to end, or has another deadline; False when that moment comes first."""
        left = due - workflow.now()
        try:
            await workflow.wait_condition(
                lambda: task.done() or self.ended_by is not None or self.deadline != deadline,
                timeout=max(timedelta(0), left),
                timeout_summary=summary,
            )
        except TimeoutError:
            return self.deadline != deadline
        return True

    def _too_late(self, step: str, began: datetime, why: calls.Why) -> ApplicationError:
        allowed = (self.deadline - began).total_seconds()
        said = why.said.split("; ")
        if said[0].startswith(("awaits ", "awaiting ")):  # as is said below
            del said[0]
        seen = "; ".join(said).removeprefix("last seen: ")
        last = f"; last: {seen}" if seen else ""
        message = f"{step} was not done within {allowed:.0f} s; it was awaiting {self.awaiting}{last}"
        return ApplicationError(message, {"blame": why.blame}, type=DEADLINE_PASSED, non_retryable=True)

    async def suspect_undo(self, provider: str, failure: Failure) -> None:
        """Hold an undo that could not be done against the provider; not one that was given up before it had failed, or
        whose failure blames somebody else."""
        spares = SPARES_WHO_DID_NOT_FAIL if failure.blame == calls.OPERATOR else SPARES_WHOM_IT_DOES_NOT_BLAME
        if failure.blame and workflow.patched(spares):
            return
        await self.suspect(calls.Suspicion(provider, failure.message, step="undo"))

    async def suspect(self, suspicion: calls.Suspicion) -> None:
        """Hold a failure against a provider. Without that the run goes on all the same."""
        try:
            await self.act(SUSPECT, suspicion, f"{suspicion.provider} is suspect: {suspicion.reason}")
        except ActivityError as error:
            workflow.logger.warning("not held against %s: %s", suspicion.provider, Failure.of(error).message)

    async def why(self) -> calls.Why:
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
