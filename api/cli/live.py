"""The live table of a run on a terminal: steps with their marks, times and progress, evidence, and undo."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.constrain import Constrain
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from mulligan.api.cli.display import evidence_text, progress_text
from mulligan.api.cli.estimates import pace_text, until_text
from mulligan.api.cli.text import clean, elapsed, seconds, size
from mulligan.api.cli.view import DONE, FAILED, RUNNING, SKIPPED, WAITING, RunView, StepView
from mulligan.v1 import run_pb2

MARKS = {DONE: ("✔", "green"), FAILED: ("✘", "red"), WAITING: ("·", "dim"), SKIPPED: ("–", "dim")}
ASCII_MARKS = {DONE: "+", FAILED: "x", WAITING: ".", SKIPPED: "-"}
MOST_EVIDENCE = 8
MOST_NOTES = 6
MOST_HELPS = 3
TIME_WIDTH = 8
ECHO_WIDTH = 4
"""Columns left free at the right: a terminal shows `^C` where the cursor is, and what it breaks is not redrawn."""


class LiveDisplay:
    """Draws the view four times a second until it is left; what is on the screen then stays."""

    def __init__(self, console: Console, view: RunView) -> None:
        self._console = console
        self._view = view
        self._spinner = Spinner("dots" if _is_unicode(console) else "line", style="cyan")
        self._live = Live(console=console, get_renderable=self.render, refresh_per_second=4, redirect_stdout=False)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def update(self, update: run_pb2.RunUpdate) -> None:
        """Nothing to do: the table is drawn from the view."""

    def say(self, message: str) -> None:
        """Keep the message above the evidence."""
        self._view.notes.append(message)

    def render(self) -> RenderableType:
        """The whole table as it is now."""
        view, now = self._view, time.time()
        parts: list[RenderableType] = [self._head(now)]
        if not (view.ended and view.machine and all(line.state == WAITING for line in view.lines())):
            parts.append(self._steps(view.lines(), now))  # unless the machine was there already
        parts += [Text(f"! {clean(note)}", style="yellow") for note in view.notes[-MOST_NOTES:]]
        parts += [Text(f"  try: {clean(command)}", style="cyan") for command in self._helps()]
        if view.evidence and view.outcome not in ("READY", "RELEASED"):  # the summary tells it, or it is past
            parts.append(Text("evidence", style="bold"))
            parts += [Text(f"  {evidence_text(item)}", style="green") for item in view.evidence[-MOST_EVIDENCE:]]
        if view.undo:
            parts += [Text("undo", style="bold"), self._steps(list(view.undo.values()), now)]
        return Constrain(Group(*parts), max(1, self._console.width - ECHO_WIDTH))

    def _helps(self) -> list[str]:
        """Commands that may help: those of a run that is held, else of what is slow, or was tried before."""
        if self._view.ended:
            return []
        if self._view.held is not None:
            return list(self._view.held.suggestions)[:MOST_HELPS]
        under_way = [line.progress for line in (*self._view.lines(), *list(self._view.undo.values())) if line.progress]
        return [command for progress in under_way for command in progress.suggestions][:MOST_HELPS]

    def _head(self, now: float) -> Text:
        view = self._view
        end = seconds(view.finished.at) if view.finished else now
        if view.run and view.run.ended_at.seconds:
            end = seconds(view.run.ended_at)
        head = Text(clean(view.workflow_id) or "asking the API", style="bold")
        facts = [f"on {clean(view.provider)}"] if view.provider else []
        facts += [f"try {view.try_number}"] if view.try_number > 1 else []
        facts += ["joined"] if view.joined else []
        facts.append(elapsed(end - view.began))
        for line in view.lines():  # here no narrow terminal cuts it off
            if line.state == RUNNING and line.progress is not None and (until := until_text(line.progress)):
                facts.append(f"{clean(line.name)} {until}")
        return head.append(f"  {'  '.join(facts)}", style="not bold dim")

    def _steps(self, lines: list[StepView], now: float) -> Table:
        grid = Table.grid(padding=(0, 1), expand=True)
        for width in (
            1,
            max((len(line.name) for line in lines), default=1),
            TIME_WIDTH,
        ):  # fixed: only the message gives way
            grid.add_column(no_wrap=True, width=width)
        grid.add_column(overflow="ellipsis", no_wrap=True, ratio=1)
        for line in lines:
            taken = line.elapsed(now)
            time_text = Text(elapsed(taken) if taken is not None else "", style="dim", justify="right")
            grid.add_row(self._mark(line), Text(clean(line.name)), time_text, self._doing(line, now))
        return grid

    def _mark(self, line: StepView) -> RenderableType:
        if line.state == RUNNING:
            return self._spinner
        mark, style = MARKS[line.state]
        return Text(mark if _is_unicode(self._console) else ASCII_MARKS[line.state], style=style)

    def _doing(self, line: StepView, now: float) -> RenderableType:
        progress = line.progress
        if progress is None or line.state not in (RUNNING, WAITING):
            attempts = f" ({line.attempt} attempts)" if line.attempt > 1 else ""
            slow = " (slower than usual)" if line.slow and line.state == RUNNING else ""
            style = "red" if line.state == FAILED else "dim" if line.state == DONE else ""
            return Text(f"{clean(line.message)}{attempts}{slow}", style=style)
        if not progress.total:
            return Text(f"{progress_text(progress)}{_until(progress, now)}")
        bar = Table.grid(padding=(0, 1))
        amount = f"{100 * progress.done // progress.total:>3} %  {size(progress.done)} of {size(progress.total)}"
        said = clean(", ".join(part for part in (progress.message, pace_text(progress)) if part))
        bar.add_row(ProgressBar(total=progress.total, completed=progress.done, width=24), Text(amount), said)
        return bar


def _until(progress: run_pb2.RunProgress, now: float) -> str:
    if not progress.next_attempt_at.seconds:
        return ""
    return f"; tries again in {elapsed(max(0.0, seconds(progress.next_attempt_at) - now))}"


def _is_unicode(console: Console) -> bool:
    return console.encoding.lower().startswith("utf")
