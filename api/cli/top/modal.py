"""What stands above the tables: the question before a lever is pulled, and the help."""

from __future__ import annotations

from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Vertical, VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Input, Static

from mulligan.api.cli.text import clean
from mulligan.api.cli.top.levers import LEVERS, Lever, undo_lines
from mulligan.api.cli.top.row import Row

REDRAW_SECONDS = 1.0
LONGEST_REASON = 500
BOX = """
{name} {{ align: center middle; }}
{name} > #box {{ width: 76; max-width: 96%; height: auto; max-height: 96%; padding: 0 1;
    border: round $primary; background: $surface; }}
{name} #text {{ height: auto; }}
{name} #scroll {{ height: auto; max-height: {height}; }}
"""


class Confirm(ModalScreen[str | None]):
    """Asks before a lever is pulled. Gives the reason, which may be empty; None when it shall not be pulled."""

    CSS = BOX.format(name="Confirm", height=14) + "Confirm Input { border: tall $panel; }"
    BINDINGS: ClassVar[list[BindingType]] = [("escape", "leave", "Leave it")]

    def __init__(self, lever: Lever, row: Row) -> None:
        super().__init__()
        self._lever = lever
        self._row = row
        self._text = Static(self.question(), id="text")

    def compose(self) -> ComposeResult:
        """The question, a line for the reason, and the keys."""
        with Vertical(id="box"):
            with VerticalScroll(id="scroll", can_focus=False):
                yield self._text
            yield Input(placeholder="why, for the history (may stay empty)", max_length=LONGEST_REASON)
            yield Static(
                Text.assemble(("Enter", "bold"), f" {self._lever.name} it    ", ("Esc", "bold"), " leave it as it is")
            )

    def on_mount(self) -> None:
        """The run goes on while its operator thinks: what would be undone is kept up to date."""
        self.set_interval(REDRAW_SECONDS, lambda: self._text.update(self.question()))

    def question(self) -> Text:
        """Which run, where it is, and what will happen to it."""
        row = self._row
        text = Text.assemble((f"{self._lever.name} ", "bold"), (clean(row.key.workflow_id), "bold cyan"), "\n")
        where = f" on {clean(row.provider)}" if row.provider else ""
        text.append(f"now: {row.step()} {row.state()}".rstrip() + f"{where}\n\n", style="dim")
        text.append(f"{self._lever.does}\n")
        for line in undo_lines(row) if self._lever.shows_undo else []:
            text.append(f"  {clean(line)}\n")
        return text

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Enter pulls it."""
        event.stop()
        self.dismiss(event.value.strip())

    def action_leave(self) -> None:
        """Esc leaves it."""
        self.dismiss(None)


KEYS = (
    ("↑ ↓ Home End", "choose a row; Tab goes to the other table"),
    ("Enter", "details: steps, evidence, what it awaits, what may help"),
    ("/", "filter: id, machine, project, provider, step, or held"),
    ("Esc", "close the details; else clear the filters"),
    ("e", "also show runs that have ended"),
    *((lever.key, f"{lever.name}: {lever.short}") for lever in LEVERS),
    ("q Ctrl-C", "leave; every run goes on"),
)


class Help(ModalScreen[None]):
    """The keys."""

    CSS = BOX.format(name="Help", height=40)
    BINDINGS: ClassVar[list[BindingType]] = [("escape,question_mark,q,enter", "dismiss", "Close")]

    def compose(self) -> ComposeResult:
        """One line for each key."""
        text = Text()
        for key, meaning in KEYS:
            text.append(f"{key:<14}", style="bold").append(f"{meaning}\n")
        text.append("\nEvery lever asks first. ‖ held  × being cancelled  ! in trouble", style="dim")
        with Vertical(id="box"), VerticalScroll(id="scroll"):
            yield Static(text, id="text")
