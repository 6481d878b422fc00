"""A run as it is shown: its updates folded into steps, evidence and what is undone. Knows no terminal."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field

from mulligan.api.cli.text import seconds
from mulligan.v1 import inventory_pb2, machine_pb2, run_pb2

STEPS = ("claim", "image", "boot", "verify")
UNDO = "undo"
AWAIT = "await"
"""What a step does that awaits something without an action, such as a guest's call home."""

WAITING, RUNNING, DONE, FAILED, SKIPPED = "waiting", "running", "done", "failed", "skipped"

STOPPED = "CANCELLED"
"""Why an action ended badly that was stopped, and did not fail."""

NOTED = frozenset(
    {
        run_pb2.RUN_EVENT_KIND_CANCEL_REQUESTED,
        run_pb2.RUN_EVENT_KIND_DEADLINE_PASSED,
        run_pb2.RUN_EVENT_KIND_LEVER_PULLED,
        run_pb2.RUN_EVENT_KIND_LEVER_REFUSED,
        run_pb2.RUN_EVENT_KIND_RESUMED,
    }
)
"""Events of the run as a whole, which are told beside its steps."""

GOES_ON = frozenset({run_pb2.RUN_EVENT_KIND_CANCEL_REQUESTED, run_pb2.RUN_EVENT_KIND_RESUMED})
"""Events after which a run is no longer held."""


@dataclass
class StepView:
    """One line of the table: a step, or one action of the undo."""

    name: str
    state: str = WAITING
    started: float = 0.0
    ended: float = 0.0
    message: str = ""
    slow: bool = False
    attempt: int = 0
    open_actions: set[str] = field(default_factory=set)
    progress: run_pb2.RunProgress | None = None

    def elapsed(self, now: float) -> float | None:
        """Seconds that it took, or has taken so far; None before it begins."""
        if not self.started:
            return None
        return max(0.0, (now if self.open_actions else self.ended) - self.started)


class RunView:
    """Feed it every update of one run, in order."""

    def __init__(self) -> None:
        self.run: run_pb2.Run | None = None
        self.machine: machine_pb2.Machine | None = None
        self.finished: run_pb2.RunEvent | None = None
        self.held: run_pb2.RunEvent | None = None
        self.explanation: inventory_pb2.Explanation | None = None
        self.joined = False
        self.cursor = ""
        self.try_number = 1
        self.provider = ""
        self.steps: dict[str, StepView] = {}
        self.undo: dict[str, StepView] = {}
        self.evidence: list[machine_pb2.Evidence] = []
        self.notes: list[str] = []
        self.began = time.time()

    @property
    def workflow_id(self) -> str:
        """The run's workflow id; empty before the first update."""
        return self.run.workflow_id if self.run else ""

    @property
    def ended(self) -> bool:
        """Whether the run is over."""
        return self.outcome not in ("", "OPEN")

    @property
    def outcome(self) -> str:
        """How the run ended, e.g. `READY`; `OPEN` while it has not; empty before the first update."""
        number = self.finished.outcome if self.finished else self.run.outcome if self.run else 0
        name = run_pb2.RunOutcome.DESCRIPTOR.values_by_number[number].name.removeprefix("RUN_OUTCOME_")
        return "" if name == "UNSPECIFIED" else name

    @property
    def failure(self) -> tuple[str, str]:
        """(name of the error, why) of a run that ended badly."""
        reason = self.finished.reason if self.finished else ""
        message = self.finished.message if self.finished else ""
        return reason, message or (self.run.reason if self.run else "")

    def feed(self, update: run_pb2.RunUpdate) -> None:
        """Take one update."""
        kind = update.WhichOneof("update")
        if kind == "run":
            self._run(update.run)
        elif kind == "event":
            self.event(update.event)
        elif kind == "progress":
            self.progress(update.progress)
        elif kind == "machine":
            self.machine = update.machine
            self._see(update.machine.evidence)

    def event(self, event: run_pb2.RunEvent) -> None:
        """Take one durable event."""
        self.cursor = event.cursor
        if getattr(event, "try") > self.try_number and event.step in STEPS:
            self._next_try(getattr(event, "try"))
        self.provider = event.provider or self.provider
        self._see(event.evidence)
        if event.HasField("explanation"):
            self.explanation = event.explanation
        if event.kind == run_pb2.RUN_EVENT_KIND_RUN_FINISHED:
            self._finish(event)
        elif event.kind == run_pb2.RUN_EVENT_KIND_HELD:
            self.held = event
            self.notes.append(event.message or "held for inspection")
        elif event.kind in NOTED:
            if event.kind in GOES_ON:
                self.held = None
            self.notes.append(event.message)
            if event.kind == run_pb2.RUN_EVENT_KIND_DEADLINE_PASSED and event.step in self.steps:
                self._too_late(self.steps[event.step], event)
        elif event.step:
            self._action(event)

    def progress(self, progress: run_pb2.RunProgress) -> None:
        """Take what an action in progress is doing."""
        line = self._line(progress.step, progress.action)
        line.progress = progress
        line.attempt = progress.attempt

    def lines(self) -> list[StepView]:
        """The steps in the order in which they are shown; those of a provision run are there from the start."""
        return list(self.steps.values())

    def _run(self, run: run_pb2.Run) -> None:
        self.run = run
        if run.started_at.seconds:
            self.began = seconds(run.started_at)
        if run.kind == run_pb2.RUN_KIND_PROVISION:
            for name in STEPS:
                self.steps.setdefault(name, StepView(name))

    def _next_try(self, number: int) -> None:
        failed = [step for step in self.steps.values() if step.state == FAILED]
        why = f": {failed[0].name}: {failed[0].message}" if failed else ""
        where = f" on {self.provider}" if self.provider else ""
        self.notes.append(f"try {self.try_number}{where} failed{why}; taking a mulligan")
        self.try_number, self.provider = number, ""
        self.undo.clear()
        self.evidence.clear()
        self.steps = {name: StepView(name) for name in STEPS}

    def _line(self, step: str, action: str) -> StepView:
        if step == UNDO:
            return self.undo.setdefault(action, StepView(action))
        return self.steps.setdefault(step, StepView(step))

    def _action(self, event: run_pb2.RunEvent) -> None:
        line = self._line(event.step, event.action)
        line.message = event.message or line.message
        at = seconds(event.at)
        if event.kind == run_pb2.RUN_EVENT_KIND_ACTION_STARTED:
            self.held = None
            if event.step == UNDO:
                self._stop_waiting(at)
            line = self._begun(line, event.step)
            line.message = event.message or line.message
            line.started = line.started or at
            line.open_actions.add(event.action)
            line.state, line.progress, line.attempt = RUNNING, None, 0
        elif event.kind == run_pb2.RUN_EVENT_KIND_AWAITING:
            line.started = line.started or at
            line.open_actions.add(AWAIT)
            line.state = RUNNING
        elif event.kind == run_pb2.RUN_EVENT_KIND_CALLED_HOME and AWAIT in line.open_actions:
            line.open_actions.discard(AWAIT)
            line.ended, line.progress = at, None
            line.state = RUNNING if line.open_actions else DONE
        elif event.kind == run_pb2.RUN_EVENT_KIND_SLOW:
            line.slow = True
        elif event.kind in (run_pb2.RUN_EVENT_KIND_ACTION_FINISHED, run_pb2.RUN_EVENT_KIND_ACTION_FAILED):
            line.open_actions.discard(event.action)
            line.ended, line.progress, line.attempt = at, None, event.attempts
            if event.kind == run_pb2.RUN_EVENT_KIND_ACTION_FAILED:
                line.state = FAILED
                if event.reason != STOPPED:
                    line.open_actions.discard(AWAIT)  # it fails the step, and so ends its wait
            elif line.state != FAILED and not line.open_actions:
                line.state = DONE

    def _too_late(self, line: StepView, event: run_pb2.RunEvent) -> None:
        """A step that only awaited something has failed with its deadline; an action of it tells by itself."""
        if AWAIT in line.open_actions:
            line.open_actions.discard(AWAIT)
            line.ended, line.progress, line.state = seconds(event.at), None, FAILED
            line.message = event.message or line.message

    def _stop_waiting(self, at: float) -> None:
        """A step that only awaited something has come to nothing when the undo begins, or the run ends."""
        for line in self.steps.values():
            if line.open_actions == {AWAIT}:
                line.open_actions.clear()
                line.ended, line.progress = at, None
                if line.state != FAILED:
                    line.state, line.message = FAILED, "stopped"

    def _begun(self, line: StepView, step: str) -> StepView:
        """The line of an action that begins. A step that failed, and whatever comes after it, begins anew."""
        if line.state == FAILED and step in STEPS:
            line = self.steps[step] = StepView(step)
        for later in STEPS[STEPS.index(step) + 1 :] if step in STEPS else ():
            if later in self.steps and self.steps[later].state != WAITING:
                self.steps[later] = StepView(later)
        return line

    def _finish(self, event: run_pb2.RunEvent) -> None:
        self.finished = event
        self._stop_waiting(seconds(event.at))
        for line in [*self.steps.values(), *self.undo.values()]:
            line.progress = None
            if line.open_actions:
                line.open_actions.clear()
                line.ended = seconds(event.at)
            if line.state == WAITING:
                line.state = SKIPPED

    def _see(self, evidence: Iterable[machine_pb2.Evidence]) -> None:
        known = {(item.source, item.observed) for item in self.evidence}
        for item in evidence:
            if (item.source, item.observed) not in known:
                self.evidence.append(item)
