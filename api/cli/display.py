"""Where a run's progress goes: a live table on a terminal, plain lines elsewhere, JSON lines for programs."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Protocol, Self

import click
from rich.console import Console

from mulligan.api.cli.estimates import pace_text, until_text
from mulligan.api.cli.exit_codes import NO_ROOM_REASONS
from mulligan.api.cli.output import print_json, word
from mulligan.api.cli.text import clean, clock, outcome_text, size
from mulligan.api.cli.view import RunView
from mulligan.v1 import machine_pb2, run_pb2

PROGRESS_SECONDS = 10.0
"""How often plain lines tell of the same action's progress."""


class Display(Protocol):
    """Shows one run. Use it as a context; `view` has taken the update before `update` is called."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def update(self, update: run_pb2.RunUpdate) -> None:
        """Show one update."""

    def say(self, message: str) -> None:
        """Show a message of this client's own."""


def display_for(view: RunView, *, as_json: bool) -> Display:
    """The display that suits standard error and what was asked for."""
    if as_json:
        return JsonDisplay(view)
    console = Console(stderr=True, highlight=False, markup=False, emoji=False)
    if console.is_terminal and not console.is_dumb_terminal:
        from mulligan.api.cli.live import LiveDisplay  # noqa: PLC0415 - only where there is a terminal

        return LiveDisplay(console, view)
    return PlainDisplay(view)


class _Unframed:
    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        sys.stdout.flush()


class JsonDisplay(_Unframed):
    """Every update as one line of JSON on standard output; messages on standard error."""

    def __init__(self, view: RunView) -> None:
        self._view = view
        self._first = True

    def update(self, update: run_pb2.RunUpdate) -> None:
        """Write the update; the first also says whether the run was joined."""
        more = {"joined": self._view.joined} if self._first else {}
        self._first = False
        print_json(update, **more)
        sys.stdout.flush()

    def say(self, message: str) -> None:
        """Write the message to standard error."""
        click.echo(message, err=True)


class PlainDisplay(_Unframed):
    """One line an event on standard error, with its time; progress now and then."""

    def __init__(self, view: RunView) -> None:
        self._view = view
        self._named = view.run is not None
        self._no_room = ""
        self._told: dict[tuple[str, str], tuple[float, tuple[int, str, bool, int]]] = {}

    def update(self, update: run_pb2.RunUpdate) -> None:
        """Write a line for what the update tells, if anything."""
        kind = update.WhichOneof("update")
        if kind == "run" and not self._named:
            self._named = True
            joined = " (joined: it was there already)" if self._view.joined else ""
            self.say(f"run {update.run.workflow_id}{joined}")
        elif kind == "event":
            for line in event_lines(self._without_no_room(update.event)):
                click.echo(line, err=True)
        elif kind == "progress":
            self._progress(update.progress)

    def say(self, message: str) -> None:
        """Write the message with the time of this host."""
        click.echo(f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())} {clean(message)}", err=True)

    def _without_no_room(self, event: run_pb2.RunEvent) -> run_pb2.RunEvent:
        """The event without why the first claim found no room: that is said, with all it is made of, at the end."""
        is_first = getattr(event, "try") <= 1 and event.kind == run_pb2.RUN_EVENT_KIND_ACTION_FAILED
        if is_first and event.reason in NO_ROOM_REASONS:
            self._no_room = event.message
        if not self._no_room or not event.message.endswith(self._no_room) or event.kind == run_pb2.RUN_EVENT_KIND_HELD:
            return event
        brief = run_pb2.RunEvent()
        brief.CopyFrom(event)
        brief.message = "no provider fits" if is_first else event.message.removesuffix(self._no_room).removesuffix(": ")
        return brief

    def _progress(self, progress: run_pb2.RunProgress) -> None:
        key = (progress.step, progress.action)
        state = (progress.attempt, progress.last_failure, progress.slower_than_p95, progress.deadline.seconds)
        at, before = self._told.get(key, (0.0, (1, "", False, 0)))
        if state != before or time.monotonic() - at > PROGRESS_SECONDS:
            self._told[key] = (time.monotonic(), state)
            self.say(f"  {progress.step}/{progress.action}: {progress_text(progress)}")


MARKS = {
    run_pb2.RUN_EVENT_KIND_ACTION_STARTED: "begins",
    run_pb2.RUN_EVENT_KIND_ACTION_FINISHED: "done",
    run_pb2.RUN_EVENT_KIND_ACTION_FAILED: "FAILED",
    run_pb2.RUN_EVENT_KIND_SLOW: "slow",
    run_pb2.RUN_EVENT_KIND_CALLED_HOME: "called home",
    run_pb2.RUN_EVENT_KIND_CANCEL_REQUESTED: "cancel",
    run_pb2.RUN_EVENT_KIND_DEADLINE_PASSED: "deadline",
    run_pb2.RUN_EVENT_KIND_HELD: "HELD",
    run_pb2.RUN_EVENT_KIND_LEVER_PULLED: "lever",
    run_pb2.RUN_EVENT_KIND_LEVER_REFUSED: "lever REFUSED",
    run_pb2.RUN_EVENT_KIND_RESUMED: "resumed",
    run_pb2.RUN_EVENT_KIND_AWAITING: "awaits",
}

HELPED = frozenset({run_pb2.RUN_EVENT_KIND_HELD, run_pb2.RUN_EVENT_KIND_SLOW, run_pb2.RUN_EVENT_KIND_AWAITING})
"""Events after which lines say what may help. After a failure the run itself says how it goes on."""


def event_lines(event: run_pb2.RunEvent, *, detailed: bool = True) -> list[str]:
    """An event as plain lines: what happened, a line for each piece of evidence, and a command that may help; without
    detail the provider, the try and the command are left out."""
    at = clock(event.at)
    if event.kind == run_pb2.RUN_EVENT_KIND_RUN_FINISHED:
        outcome = word(run_pb2.RunOutcome, event.outcome)
        return [clean(f"{at} run ended: {outcome_text(outcome, event.message)}")]
    where = event.step if event.action in ("", event.step) else f"{event.step}/{event.action}"
    tries = f" [try {getattr(event, 'try')}]" if getattr(event, "try") > 1 and detailed else ""
    provider = f" [{event.provider}]" if event.provider and detailed else ""
    attempts = f" [{event.attempts} attempts]" if event.attempts > 1 else ""
    mark = MARKS.get(event.kind)
    said = f"{mark}: {event.message}" if mark and event.message else mark or event.message
    lines = [clean(" ".join(part for part in (at, where, said) if part) + f"{attempts}{provider}{tries}")]
    lines += [f"{at}   {evidence_text(item)}" for item in event.evidence]
    if detailed and event.kind in HELPED and event.suggestions:
        lines.append(clean(f"{at}   try: {event.suggestions[0]}"))
    return lines


def evidence_text(evidence: machine_pb2.Evidence) -> str:
    """One observation: what it proves, where it was seen, and what was seen."""
    level = word(machine_pb2.VerifyLevel, evidence.level)
    parts = [part for part in (level, evidence.source) if part and not evidence.observed.startswith(f"{part}: ")]
    return clean(": ".join([*dict.fromkeys(parts), evidence.observed]))


def progress_text(progress: run_pb2.RunProgress) -> str:
    """What an action in progress is doing, in one line."""
    parts = [progress.message] if progress.message else []
    if progress.total:
        percent = 100 * progress.done // progress.total
        parts.append(f"{percent} % ({size(progress.done)} of {size(progress.total)})")
    if progress.attempt > 1 or progress.last_failure:
        parts.append(f"attempt {progress.attempt}")
    if progress.last_failure:
        parts.append(f"last failure: {progress.last_failure}")
    parts += [text for text in (pace_text(progress), until_text(progress)) if text]
    return clean(", ".join(parts) or "in progress")
