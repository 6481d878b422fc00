"""Levers inside a run: each is checked before it is taken, answered, and kept in the history by Temporal itself.

`Undoing` is for every run that takes something down; `Steering` adds what a run that makes a machine can be told.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from temporalio import workflow
from temporalio.exceptions import ActivityError, ApplicationError
from temporalio.workflow import HandlerUnfinishedPolicy

with workflow.unsafe.imports_passed_through():
    from mulligan.activities import calls
    from mulligan.activities.levers import GIVEN_UP, HOLDABLE, NOTE_CANCEL, LeverIn, LeverKind, Pulled, command
    from mulligan.activities.values import MachineRequest
    from mulligan.workflows import steps
    from mulligan.workflows.execution import ORDER, Execution
    from mulligan.workflows.failures import ABORTED, MULLIGAN_ASKED, Failure
    from mulligan.workflows.holds import Holds

ABANDON = HandlerUnfinishedPolicy.ABANDON
"""A run that ends while a lever is being answered has answered it by its end."""


class Phase(StrEnum):
    """What a run is at."""

    WORKING = "working"
    HELD = "held"
    UNDOING = "undoing"
    ENDING = "ending"


MOST_LEVERS = 1500
"""Of one run. What is left of Temporal's 2000 updates is for the guest's call home, and for what is refused late."""

POSSIBLE: Mapping[Phase, tuple[LeverKind, ...]] = {
    Phase.WORKING: (LeverKind.EXTEND, LeverKind.RETRY_NOW, LeverKind.HOLD, LeverKind.MULLIGAN, LeverKind.ABORT),
    Phase.HELD: (LeverKind.RESUME, LeverKind.MULLIGAN, LeverKind.ABORT),
    Phase.UNDOING: (LeverKind.RETRY_NOW, LeverKind.ABORT),
    Phase.ENDING: (LeverKind.RETRY_NOW,),
}
"""Which levers there are in which phase, the likeliest first. Cancelling a run that makes a machine is possible until
it is ending."""


@dataclass(frozen=True)
class Decision:
    """How a held run goes on: with which step, or by which lever."""

    lever: LeverKind
    by: LeverIn
    step: str = ""


def why(asked: LeverIn, what: str) -> str:
    """What was done, by whom, and why they said."""
    return f"{what} by {asked.actor}{f': {asked.reason}' if asked.reason else ''}"


class Undoing:
    """What operators can do to any run: try again now, and give up an undo that cannot be done."""

    run: Execution
    phase = Phase.UNDOING
    taken = 0
    """How many levers were pulled, those too that were refused when they had been looked into."""

    def _check(self, asked: LeverIn | None) -> None:
        """Refuse what no lever takes, before its handler sees it: what a handler raised for that would stop the run."""
        if asked is None:  # `null`, typed by hand
            raise ApplicationError("give an object, or nothing, not null", type="INVALID_REQUEST", non_retryable=True)
        if self.taken >= MOST_LEVERS:
            last = f"mulligan run {self._last_resort()} {workflow.info().workflow_id}"
            message = f"it has taken {self.taken} levers, and takes no more: Temporal allows a run 2000 updates"
            raise ApplicationError(
                f"{message}; possible now: `{last}`", {"remedy": last}, type="CONFLICT", non_retryable=True
            )

    def possible(self) -> tuple[LeverKind, ...]:
        """The levers that would do something now."""
        return tuple(lever for lever in POSSIBLE[self.phase] if not (lever is LeverKind.ABORT and self.run.given_up))

    def refuse(self, lever: LeverKind, message: str, likeliest: str = "", **metadata: str) -> ApplicationError:
        """A lever that cannot do what is asked; nothing has changed. Says what can be done instead, `likeliest` (what
        follows `mulligan run`, without the id) first."""
        workflow_id = workflow.info().workflow_id
        commands = [command(other, workflow_id) for other in self.possible() if other is not lever]
        last = f"mulligan run {self._last_resort()} {workflow_id}"
        commands.insert(0 if self.phase in (Phase.UNDOING, Phase.ENDING) else len(commands), last)
        if likeliest:
            verb, *flags = likeliest.split(" ", 1)
            commands.insert(0, " ".join(("mulligan run", verb, workflow_id, *flags)))
        instead = ", ".join(f"`{each}`" for each in commands)
        told = {"remedy": commands[0], **metadata}
        return ApplicationError(f"{message}; possible now: {instead}", told, type="CONFLICT", non_retryable=True)

    def _last_resort(self) -> str:
        """What can be done when no lever can: what takes a machine down goes on to its end."""
        return "watch"

    def _is_to_undo(self) -> bool:
        """Whether it was cancelled, and waits for what is under way to stop before it undoes."""
        return self.phase in (Phase.WORKING, Phase.HELD) and workflow.cancellation_reason() is not None

    def _must_go_on(self, lever: LeverKind) -> None:
        """A lever that comes between a cancel and its undo has nothing to do any more."""
        if self._is_to_undo():
            raise self.refuse(lever, "it is being cancelled, and what was made will be undone", phase=self.phase)

    @workflow.update(
        name=LeverKind.RETRY_NOW,
        description="Begin the next attempt of whatever waits for it, now",
        unfinished_policy=ABANDON,
    )
    async def retry_now(self, asked: LeverIn = LeverIn()) -> Pulled:  # noqa: B008 - frozen
        """Begin the next attempt of whatever waits for it, with its provider's settings of now.

        An action that makes something and is under way goes on with those that it began with, unless it waits; an undo
        is begun anew.
        """
        self.taken += 1
        async with self.run.asking:
            try:
                used = self.run.targets.used()
                done = await self.run.act(steps.RETRY_NOW, calls.RetryIn(used), "Try again now")
            except ActivityError as error:
                failure = Failure.of(error)
                message = f"it could not be tried again now: {failure.message}"
                raise self.refuse(LeverKind.RETRY_NOW, message, cause=failure.reason) from None
        for target in done.newer:
            if done.waits or self.phase is Phase.UNDOING:
                self.run.targets.begin_anew(target)
            else:
                self.run.targets.learn(target)
        return Pulled(done.said)

    @retry_now.validator
    def _may_retry_now(self, asked: LeverIn = LeverIn()) -> None:  # noqa: B008 - frozen
        self._check(asked)
        if self.phase is Phase.HELD:
            raise self.refuse(LeverKind.RETRY_NOW, "it is held, and tries nothing; resume it", phase=self.phase)

    @workflow.update(
        name=LeverKind.ABORT,
        description="Stop trying: fail now and undo; while undoing: quarantine now what cannot be undone",
        unfinished_policy=ABANDON,
    )
    async def abort(self, asked: LeverIn = LeverIn()) -> Pulled:  # noqa: B008 - frozen
        """Stop trying."""
        self.taken += 1
        return self._abort(asked)

    @abort.validator
    def _may_abort(self, asked: LeverIn = LeverIn()) -> None:  # noqa: B008 - frozen
        self._check(asked)
        self._must_go_on(LeverKind.ABORT)
        if self.phase is Phase.ENDING:
            raise self.refuse(LeverKind.ABORT, "it is ending, and tries nothing any more", phase=self.phase)
        if self.phase is Phase.UNDOING and self.run.given_up:
            raise self.refuse(LeverKind.ABORT, f"the undo was given up before: {self.run.given_up}", phase=self.phase)

    def _abort(self, asked: LeverIn) -> Pulled:
        self.run.given_up = why(asked, "the undo was given up")
        return Pulled(GIVEN_UP)


class Steering(Undoing):
    """What operators can do to a run that makes a machine."""

    request: MachineRequest
    step_to_resume: Callable[[str], str]
    """The step with which it really goes on, when this one is asked for."""
    is_another: Callable[[], Awaitable[calls.Another]]
    """Whether another provider could be claimed now."""

    def __init__(self) -> None:
        self.phase = Phase.WORKING
        self.holds_ahead = Holds()
        self.holds = 0
        """How often it was held."""
        self.decision: Decision | None = None
        self.ends_at: datetime = workflow.now()
        """When the whole run must be done."""

    def possible(self) -> tuple[LeverKind, ...]:
        """The levers that would do something now."""
        left = set() if self._is_to_undo() else set(super().possible())
        if not self._later_steps() or self.run.ended_by is not None:
            left.discard(LeverKind.HOLD)
        if self.run.stopping:
            left.discard(LeverKind.EXTEND)
        if self.request.provider or self.run.step not in HOLDABLE or self.run.ended_by is not None:
            left.discard(LeverKind.MULLIGAN)
        if self.phase is Phase.HELD and self.decision is not None:
            left -= {LeverKind.RESUME, LeverKind.MULLIGAN}
        return tuple(lever for lever in POSSIBLE[self.phase] if lever in left)

    def _last_resort(self) -> str:
        stops = self.phase is Phase.ENDING or workflow.cancellation_reason() is not None
        return "watch" if stops else "cancel"

    @workflow.update(
        name=LeverKind.HOLD,
        description="Hold before `step`: image, boot or verify; empty for the next one; `off` takes it back",
        unfinished_policy=ABANDON,
    )
    async def hold(self, asked: LeverIn = LeverIn()) -> Pulled:  # noqa: B008 - frozen
        """Hold before a step begins, or take that back."""
        self.taken += 1
        if asked.off:
            self.holds_ahead.drop(asked.step)
        else:
            self.holds_ahead.add(asked, asked.step or self._later_steps()[0])
        self.run.changed()
        return Pulled(self.holds_ahead.said() or "it will not be held")

    @hold.validator
    def _may_hold(self, asked: LeverIn = LeverIn()) -> None:  # noqa: B008 - frozen
        self._check(asked)
        _check_step(asked.step)
        if asked.off:
            self._may_take_back(asked.step)
            return
        self._must_be(LeverKind.HOLD, Phase.WORKING, "held")
        if self.run.ended_by is not None:
            raise self.refuse(LeverKind.HOLD, f"this try ends already: {self.run.ended_by.message}")
        if not self._later_steps():
            message = f"{self.run.step} is the last step and has begun; there is none to hold before"
            raise self.refuse(LeverKind.HOLD, message)
        if asked.step and asked.step not in self._later_steps():
            left = self._later_steps()
            message = f"{asked.step} has begun in this try; it can be held before {' or '.join(left)}"
            raise self.refuse(LeverKind.HOLD, message, f"hold --before {left[0]}", step=self.run.step)

    def _may_take_back(self, step: str) -> None:
        """Only what is still ahead. A run that is held goes on when it is resumed."""
        self._must_go_on(LeverKind.HOLD)
        ahead = self.holds_ahead.steps()
        if not ahead or step not in ("", *ahead):
            where = f" before {step}" if step else ""
            message = f"nobody asked to hold it{where}, so there is nothing to take back"
            message += f"; {self.holds_ahead.said()}" if ahead else ""
            raise self.refuse(LeverKind.HOLD, message, f"hold --off --before {ahead[0]}" if ahead else "")

    @workflow.update(
        name=LeverKind.RESUME,
        description="Go on with a held run: `step` is the one to go on with; empty for the one at which it is held",
        unfinished_policy=ABANDON,
    )
    async def resume(self, asked: LeverIn = LeverIn()) -> Pulled:  # noqa: B008 - frozen
        """Go on with a held run."""
        self.taken += 1
        step = self.step_to_resume(asked.step or self.run.step)
        self.decision = Decision(LeverKind.RESUME, asked, step)
        ahead = self.holds_ahead.said()
        return Pulled(f"it goes on with {step}{f'; {ahead}' if ahead else ''}")

    @resume.validator
    def _may_resume(self, asked: LeverIn = LeverIn()) -> None:  # noqa: B008 - frozen
        self._check(asked)
        _check_step(asked.step)
        self._must_be(LeverKind.RESUME, Phase.HELD, "resumed")
        self._must_be_undecided(LeverKind.RESUME)
        if asked.holds not in (-1, self.holds):
            message = "it went on meanwhile, and is held anew: see why before it is resumed again"
            raise self.refuse(LeverKind.RESUME, message, "show")
        if asked.step and ORDER.index(asked.step) > ORDER.index(self.run.step):
            message = f"it is held at {self.run.step}, which is to be done before {asked.step}"
            raise self.refuse(LeverKind.RESUME, message, "resume", step=self.run.step)

    @workflow.update(
        name=LeverKind.EXTEND,
        description="Give the step that runs `seconds` more; with `whole_run` the run's deadline only",
        unfinished_policy=ABANDON,
    )
    async def extend(self, asked: LeverIn = LeverIn()) -> Pulled:  # noqa: B008 - frozen
        """Move a deadline."""
        self.taken += 1
        more = timedelta(seconds=asked.seconds)
        if asked.whole_run:
            self.ends_at += more
            return Pulled(f"the run has until {self.ends_at:%Y-%m-%d %H:%M:%S} UTC")
        self.run.extend(asked.seconds)
        self.ends_at = max(self.ends_at, self.run.deadline)
        return Pulled(f"{self.run.step} has until {self.run.deadline:%Y-%m-%d %H:%M:%S} UTC")

    @extend.validator
    def _may_extend(self, asked: LeverIn = LeverIn()) -> None:  # noqa: B008 - frozen
        self._check(asked)
        if not 1 <= asked.seconds <= 604_800:
            raise ApplicationError("seconds must be 1 to 604800", type="INVALID_REQUEST", non_retryable=True)
        self._must_be(LeverKind.EXTEND, Phase.WORKING, "extended")
        if self.run.stopping:
            message = f"{self.run.step} is being stopped; its time cannot be extended now"
            raise self.refuse(LeverKind.EXTEND, message, step=self.run.step)

    @workflow.update(
        name=LeverKind.MULLIGAN,
        description="Give this provider up, undo what was made there, and try another",
        unfinished_policy=ABANDON,
    )
    async def mulligan(self, asked: LeverIn = LeverIn()) -> Pulled:  # noqa: B008 - frozen
        """Take another provider, if there is one."""
        self.taken += 1
        tried = self.run.try_number
        async with self.run.asking:
            found = await self.is_another()
        if not found.fits:
            what = (
                "there is no other provider to try" if found.known else "it is not known whether another provider fits"
            )
            raise self.refuse(LeverKind.MULLIGAN, f"{what}: {found.said}")
        self._may_mulligan(asked)
        if self.run.try_number != tried:
            raise self.refuse(LeverKind.MULLIGAN, "it has left that provider meanwhile", phase=self.phase)
        message = why(asked, "given up")
        if self.phase is Phase.HELD:
            self.decision = Decision(LeverKind.MULLIGAN, asked)
        else:
            self.run.ended_by = Failure(self.run.step, "", MULLIGAN_ASKED, message)
        return Pulled("what was made is undone, then another provider is tried")

    @mulligan.validator
    def _may_mulligan(self, asked: LeverIn = LeverIn()) -> None:  # noqa: B008 - frozen
        self._check(asked)
        if self.phase is Phase.HELD:
            self._must_be_undecided(LeverKind.MULLIGAN)
            return
        self._must_be(LeverKind.MULLIGAN, Phase.WORKING, "given another provider")
        if self.run.step not in HOLDABLE:
            raise self.refuse(LeverKind.MULLIGAN, "it has no provider yet that could be given up", step=self.run.step)
        if self.run.ended_by is not None:
            raise self.refuse(LeverKind.MULLIGAN, f"this try ends already: {self.run.ended_by.message}")

    @workflow.signal(name=NOTE_CANCEL, description="Keep who else asked to cancel the run; changes nothing")
    def note_cancel(self, asked: LeverIn = LeverIn()) -> None:  # noqa: B008 - frozen
        """Nothing is to be done: that it came is in the history."""

    def _abort(self, asked: LeverIn) -> Pulled:
        if self.phase is Phase.UNDOING:
            return super()._abort(asked)
        if self.phase is Phase.HELD:
            self.decision = Decision(LeverKind.ABORT, asked)
        else:
            self.run.ended_by = Failure(self.run.step, "", ABORTED, why(asked, "aborted"))
        return Pulled("it fails now, and what was made is undone")

    def _later_steps(self) -> tuple[str, ...]:
        """The steps of this try that have not begun."""
        begun = ORDER.index(self.run.step) if self.run.step in ORDER else 0
        return tuple(step for step in HOLDABLE if ORDER.index(step) > begun)

    def _must_be(self, lever: LeverKind, phase: Phase, done: str) -> None:
        self._must_go_on(lever)
        if self.phase is not phase:
            raise self.refuse(lever, f"it is {self.phase} and cannot be {done} now", phase=self.phase)

    def _must_be_undecided(self, lever: LeverKind) -> None:
        self._must_go_on(lever)
        if self.decision is not None:
            decided = self.decision.lever
            message = f"{self.decision.by.actor} decided before how it goes on: {decided}"
            raise self.refuse(lever, message, decided=decided)


def _check_step(step: str) -> None:
    if step and step not in HOLDABLE:
        message = f"there is no step {step[:40]!r} to hold before or go on with; use {', '.join(HOLDABLE)}"
        raise ApplicationError(message, type="INVALID_REQUEST", non_retryable=True)
