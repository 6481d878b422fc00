"""What is known of one run, for the pane below the tables: its steps, what it awaits, evidence, undo, last events."""

from __future__ import annotations

import time

from rich.text import Text

from mulligan.api.cli.display import event_lines, evidence_text
from mulligan.api.cli.estimates import pace_text, until_text
from mulligan.api.cli.text import clean, clock, elapsed
from mulligan.api.cli.top.cells import style
from mulligan.api.cli.top.model import Model
from mulligan.api.cli.top.row import Row
from mulligan.api.cli.view import DONE, FAILED, RUNNING, StepView
from mulligan.v1 import run_pb2

LAST_EVENTS = 12
"""Events of the run that are shown, the newest."""

MARKS = {DONE: ("✔", "green"), FAILED: ("✘", "red"), RUNNING: ("▸", "cyan")}


def headline(model: Model, api: str, shown: int) -> Text:
    """The first line: whether the API answers, how many runs are in flight, and what is filtered."""
    head = Text(" mulligan top ", style="bold", no_wrap=True, overflow="ellipsis")
    if model.trouble:
        return head.append(f" disconnected, reconnecting: {clean(model.trouble)}", style="bold red")
    if not model.answered_once:
        return head.append(f" asking the API at {api}")
    head.append(f" {model.open_count} in flight")
    if model.shows_ended:
        head.append(", with ended runs")
    if model.filters["runs"]:
        head.append(f", {shown} with “{clean(model.filters['runs'])}”", style="yellow")
    if model.filters["providers"]:
        head.append(f", providers with “{clean(model.filters['providers'])}”", style="yellow")
    return head


def details(row: Row, now: float) -> Text:
    """Everything that is worth knowing of a run, the most urgent first."""
    text = Text()
    _head(text, row, now)
    if row.says(now):
        says = row.says(now).removeprefix("awaits ")
        text.append(f"{_heading(row)} ", style="bold").append(f"{says}\n", style=style(row))
    _progress(text, row)
    for number, command in enumerate(row.suggestions):
        text.append("try    " if number == 0 else "   or  ", style="bold").append(f"{clean(command)}\n", style="cyan")
    if not row.is_over and row.ahead:
        text.append("ahead  ", style="bold").append(f"{clean(row.ahead)}\n", style="yellow")
    for line in row.steps():
        _step(text, line, now)
    for line in row.view.undo.values():
        _step(text, line, now, undo=True)
    _block(text, "evidence", [evidence_text(item) for item in row.view.evidence])
    if not row.is_over and row.undo():
        title = "a cancel would undo" if row.run.kind == run_pb2.RUN_KIND_PROVISION else "still to be taken down"
        title = "still to be undone" if row.is_cancelling or row.run.undoing else title
        _block(text, title, [f"{each.action}: {each.description}" for each in row.undo()])
    _block(text, "notes", [clean(note) for note in row.view.notes])
    newest = list(row.events)[-LAST_EVENTS:]
    _block(text, f"last events, of {len(row.events)}", [line for event in newest for line in event_lines(event)])
    text.rstrip()
    return text


def _heading(row: Row) -> str:
    return "why    " if row.is_over else "held   " if row.is_held else "awaits "


def _head(text: Text, row: Row, now: float) -> None:
    facts = [row.outcome, elapsed(row.took(now))]
    facts += [f"on {row.provider}"] if row.provider else []
    facts += [f"try {row.view.try_number}"] if row.view.try_number > 1 else []
    facts += ["a cancel was asked for"] if row.is_cancelling else []
    text.append(clean(row.key.workflow_id), style="bold").append(f"  {'  '.join(map(clean, facts))}\n", style="dim")
    text.append(f"started {clock(row.run.started_at)}  run id {clean(row.key.run_id)}\n", style="dim")


def _progress(text: Text, row: Row) -> None:
    progress = row.progress()
    if progress is None:
        return
    if progress.last_failure and not progress.next_attempt_at.seconds:  # else it is what the row says
        text.append("before ", style="bold").append(f"{clean(progress.last_failure)}\n", style="yellow")
    if pace := ", ".join(part for part in (pace_text(progress), until_text(progress)) if part):
        text.append("time   ", style="bold").append(f"{clean(pace)}\n", style="yellow" * progress.slower_than_p95)


def _step(text: Text, line: StepView, now: float, *, undo: bool = False) -> None:
    mark, colour = MARKS.get(line.state, ("·", "dim"))
    took = line.elapsed(now)
    name = f"undo {line.name}" if undo else line.name
    attempts = f" ({line.attempt} attempts)" if line.attempt > 1 else ""
    text.append(f"{mark} ", style=colour).append(f"{clean(name):<19}")
    text.append(f"{elapsed(took) if took is not None else '':>8}  ", style="dim")
    text.append(f"{clean(line.message)}{attempts}\n", style="red" if line.state == FAILED else "")


def _block(text: Text, title: str, lines: list[str]) -> None:
    if lines:
        text.append(f"{title}\n", style="bold")
        for line in lines:
            text.append(f"  {line}\n")


def moment() -> str:
    """The time of day here, for a message."""
    return time.strftime("%H:%M:%S")
