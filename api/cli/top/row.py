"""A run as one row: everything that the API told of it, folded. Knows no terminal."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import NamedTuple

from mulligan.activities.events import EventKind
from mulligan.activities.events import RunEvent as StoryEvent
from mulligan.activities.holds import holds_ahead
from mulligan.activities.levers import Lever, LeverKind, will_be_held
from mulligan.activities.values import Erase
from mulligan.api.cli.output import word
from mulligan.api.cli.text import clean, seconds
from mulligan.api.cli.view import FAILED, RUNNING, UNDO, WAITING, RunView, StepView
from mulligan.api.undo import Undo, undo_list
from mulligan.v1 import machine_pb2, provisioning_pb2, run_pb2

RECORD = "record"

HELD_FOR = "recorded as held: "
"""How a hold's record begins; what the row says has no room for it, and its state says so."""

MOST_EVENTS = 1000
"""Events of a run that are kept; a run has a few dozen."""

_LEVERS = (run_pb2.RUN_EVENT_KIND_LEVER_PULLED, run_pb2.RUN_EVENT_KIND_LEVER_REFUSED)


class Key(NamedTuple):
    """Which execution of which run."""

    workflow_id: str
    run_id: str


class Row:
    """One run. `run` is what a list said of it last; the rest comes from its stream, or from GetRun."""

    def __init__(self, run: run_pb2.Run) -> None:
        self.key = Key(run.workflow_id, run.run_id)
        self.run = run
        self.ended_at: float | None = None
        """When its end became known here, on this process's clock."""
        self.told_at = 0.0
        """When its story was last read, on this process's clock."""
        self._forget()
        self.feed(run_pb2.RunUpdate(run=run))

    def _forget(self) -> None:
        self.view = RunView()
        self.events: deque[run_pb2.RunEvent] = deque(maxlen=MOST_EVENTS)
        self._awaiting: run_pb2.RunEvent | None = None
        self._suggesting: tuple[str, ...] = ()

    def story(self, told: provisioning_pb2.GetRunResponse) -> None:
        """Take the whole story so far, in place of what was known."""
        self._forget()
        self.feed(run_pb2.RunUpdate(run=told.run))
        for event in told.events:
            self.feed(run_pb2.RunUpdate(event=event))
        for progress in told.progress:
            self.feed(run_pb2.RunUpdate(progress=progress))

    def feed(self, update: run_pb2.RunUpdate) -> None:
        """Take one update of its stream."""
        if update.HasField("event"):
            self._event(update.event)
        elif update.HasField("run"):
            self.run = update.run
        elif update.HasField("progress"):
            self._suggesting = tuple(update.progress.suggestions)
        self.view.feed(update)

    def _event(self, event: run_pb2.RunEvent) -> None:
        self.events.append(event)
        if event.kind in _LEVERS:
            return
        self._suggesting = tuple(event.suggestions)
        self._awaiting = event if event.kind == run_pb2.RUN_EVENT_KIND_AWAITING else None

    @property
    def outcome(self) -> str:
        """How it ended, e.g. `ready`; `open` while it has not."""
        return self.view.outcome.lower() or "open"

    @property
    def is_over(self) -> bool:
        """Whether it has ended."""
        return self.view.ended

    @property
    def is_held(self) -> bool:
        """Whether it waits for an operator."""
        return not self.is_over and (self.view.held is not None or (not self.events and self.run.held))

    @property
    def times_held(self) -> int:
        """How often it had been held when it was held last, as it is shown; 0 where that is not known."""
        return self.view.held.times_held if self.view.held is not None else 0

    @property
    def ahead(self) -> str:
        """Before which steps it will be held, and by whom; empty where nobody asked for it."""
        return will_be_held((each.step, each.actor) for each in holds_ahead(_told(self.events)))

    @property
    def is_cancelling(self) -> bool:
        """Whether a cancel was asked for, and it has not ended."""
        asked = any(event.kind == run_pb2.RUN_EVENT_KIND_CANCEL_REQUESTED for event in self.events)
        return not self.is_over and (asked or self.run.cancel_requested)

    @property
    def project(self) -> str:
        """The project of its machine; empty for a run without one."""
        return self.run.project

    @property
    def provider(self) -> str:
        """Where it is at work; empty before a claim."""
        return self.view.provider or self.run.provider

    @property
    def suggestions(self) -> tuple[str, ...]:
        """Commands that may help now, the likeliest first; none for one of whose end nothing but the list told."""
        return self._suggesting if not self.is_over or self.view.finished is not None else ()

    def steps(self) -> list[StepView]:
        """Its steps, without the keeping of books between them."""
        return [line for line in self.view.lines() if line.name != RECORD]

    def line(self) -> StepView | None:
        """The part that is in progress, or else what failed, or what comes next; None where nothing is known."""
        undo, steps = list(self.view.undo.values()), self.steps()
        for state in (RUNNING, FAILED, WAITING):
            for line in [*undo, *steps] if state == RUNNING else steps:
                if line.state == state:
                    return line
        return steps[-1] if steps else None

    def step(self) -> str:
        """The step that it is at, e.g. `boot`, or `undo`; empty where it is not known."""
        line = self.line()
        if line is None or self.is_over or not self.events:
            return ""
        return UNDO if any(line is each for each in self.view.undo.values()) else line.name

    def state(self) -> str:
        """How the step goes, in one word."""
        line = self.line()
        if self.is_over:
            return self.outcome
        if self.is_held:
            return "held"
        if line is None or not self.events:
            return "open"
        if line.progress is not None and line.progress.next_attempt_at.seconds:
            return "retries"
        if line.slow or (line.progress is not None and line.progress.slower_than_p95):
            return "slow"
        return {RUNNING: "runs", FAILED: "failed", WAITING: "next"}.get(line.state, line.state)

    def progress(self) -> run_pb2.RunProgress | None:
        """What the part in progress last said; None when it said nothing."""
        line = self.line()
        return line.progress if line is not None and not self.is_over else None

    def attempt(self) -> int:
        """Which attempt of the part in progress; 0 where none is known."""
        line = self.line()
        return line.attempt if line is not None and not self.is_over else 0

    def took(self, now: float) -> float:
        """Seconds from its beginning to its end, or to `now`."""
        end = now
        if self.run.ended_at.seconds:
            end = seconds(self.run.ended_at)
        elif self.view.finished is not None:
            end = seconds(self.view.finished.at)
        return max(0.0, end - self.view.began)

    def says(self, now: float) -> str:
        """What it awaits or why the last attempt failed; for a run that is over, how it ended."""
        return clean(" ".join(self._says(now).split()))

    def _says(self, now: float) -> str:
        line, progress = self.line(), self.progress()
        if self.is_over:
            return self.view.finished.message if self.view.finished is not None else self.view.failure[1]
        if self.is_held:
            why = self.view.held.message if self.view.held is not None else ""
            return why.removeprefix(HELD_FOR) or "held, and waits for an operator"
        if progress is not None and progress.next_attempt_at.seconds:
            left = seconds(progress.next_attempt_at) - now
            when = f"again in {left:.0f} s" if left > 0.5 else "again now"
            return f"{when}: {progress.last_failure or progress.message}"
        if progress is not None and (progress.message or progress.last_failure):
            return progress.message or progress.last_failure
        if self._awaiting is not None:
            return self._awaiting.message
        return line.message if line is not None else ""

    def undo(self) -> list[Undo]:
        """What would be undone if it were cancelled now, in that order, as far as its story is known."""
        return undo_list(_told(self.events))

    def matches(self, text: str) -> bool:
        """Whether its id, machine, project, provider or step has this in it."""
        state = "held" if self.is_held else ""
        where = (self.key.workflow_id, self.run.machine, self.project, self.provider, self.step(), state)
        return any(text.lower() in each.lower() for each in where)


def _told(events: Iterable[run_pb2.RunEvent]) -> Iterable[StoryEvent]:
    """The events as a story has them, with what an undo list is read from."""
    known = set(EventKind)
    for event in events:
        kind = word(run_pb2.RunEventKind, event.kind)
        if kind in known:
            at = datetime.fromtimestamp(seconds(event.at), UTC)
            erase = Erase(word(machine_pb2.EraseMode, event.erase)) if event.erase else None
            yield StoryEvent(
                0,
                at,
                EventKind(kind),
                step=event.step,
                action=event.action,
                message=event.message,
                reason=event.reason,
                erase=erase,
                lever=_lever(event.lever) if event.HasField("lever") else None,
            )


def _lever(lever: run_pb2.Lever) -> Lever | None:
    kind = word(run_pb2.LeverKind, lever.kind)
    known = kind in set(LeverKind)
    return Lever(LeverKind(kind), lever.actor, lever.reason, step=lever.step, off=lever.off) if known else None
