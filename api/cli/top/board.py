"""The board: first line, both tables, details, and the lines below. It draws the model, and takes no keys."""

from __future__ import annotations

import time

from rich.text import Text
from textual.app import ComposeResult
from textual.containers import Vertical, VerticalScroll
from textual.geometry import Size
from textual.widgets import Input

from mulligan.api.cli.text import clean
from mulligan.api.cli.top import cells
from mulligan.api.cli.top.detail import details, headline, moment
from mulligan.api.cli.top.model import Model
from mulligan.api.cli.top.row import Key, Row
from mulligan.api.cli.top.tables import Rows, Words
from mulligan.v1 import inventory_pb2

TALL = 36
"""From so many lines on there is room for the details beside the providers."""

LOW = 18
"""Below so many lines there is room for one table only: the runs, or after Tab the providers."""

MESSAGE_SECONDS = 30.0
"""How long a message stays; then its line tells more of the selected run."""

HINT = " / filter c cancel h hold u resume r retry x extend m mulligan a abort ? help q"
SHORT_HINT = " ? help  q leave  / filter  Tab providers"


class Board(Vertical):
    """Everything on the screen but what stands above it."""

    DEFAULT_CSS = """
    Board { height: 100%; }
    Board > #head { height: 1; background: $primary-background; }
    Board DataTable { scrollbar-size-vertical: 1; scrollbar-gutter: stable; overflow-x: hidden; }
    Board DataTable > .datatable--header { background: $panel; }
    Board > #runs { height: 2fr; }
    Board > #providers { height: 1fr; min-height: 4; }
    Board > #detail { height: 2fr; border-top: solid $primary; display: none; scrollbar-size-vertical: 1; }
    Board > #filter { height: 1; border: none; padding: 0 1; display: none; }
    Board > #about, Board > #message { height: auto; max-height: 3; padding: 0 1; }
    Board > #hint { height: 1; background: $primary-background; color: $text-muted; }
    """

    def __init__(self, model: Model, api: str) -> None:
        super().__init__()
        self._model = model
        self._api = api
        self._said_until = 0.0
        self._turned = False
        self._head, self._details, self._about, self._message, self._hint = (
            Words(id=name) for name in ("head", "details", "about", "message", "hint")
        )
        self.runs = Rows[Row](cells.run_columns, lambda row: row.key, cells.style, "runs")
        self.providers = Rows[inventory_pb2.Provider](
            cells.provider_columns, lambda each: each.name, cells.service_style, "providers"
        )
        self._detail = VerticalScroll(self._details, id="detail")
        self.filter = Input(id="filter", placeholder="show only what has this in it; Enter keeps it, Esc clears it")

    def compose(self) -> ComposeResult:
        """From above to below."""
        yield from (self._head, self.runs, self.providers, self._detail, self.filter, self._about, self._message)
        yield self._hint

    @property
    def selected(self) -> Row | None:
        """The run under the cursor."""
        key = self.runs.selected
        return self._model.row(key) if isinstance(key, Key) else None

    @property
    def shows_details(self) -> bool:
        """Whether the details of the selected run are open."""
        return bool(self._detail.display)

    def redraw(self) -> None:
        """Draw what changed."""
        if not self.is_attached:
            return  # the screen is being left
        now, runs = time.time(), self._model.runs()
        self.runs.show(runs, now)
        self.providers.show(self._model.providers(), now)
        self._model.on_screen = [key for key in self.runs.on_screen if isinstance(key, Key)]
        self._head.show(headline(self._model, self._api, len(runs)))
        self._draw_selected(now)

    def _draw_selected(self, now: float) -> None:
        """The details, where they are open; else one line of what the narrow columns have no room for."""
        row, says = self.selected, time.monotonic() <= self._said_until
        self._message.display = says
        self._about.display = row is not None and not says and not self.shows_details
        if self.shows_details:
            self._details.show(Text("no run is selected") if row is None else details(row, now))
        elif row is not None:
            self._about.show(Text(f"{row.key.workflow_id}: {row.state()}: {row.says(now)}", style="dim"))

    def say(self, message: str, style: str = "") -> None:
        """Show a message of this program's own, or an answer, for a while or until the next one."""
        self._message.show(Text(f"{moment()} ", style="dim").append(clean(message), style=style))
        self._said_until = time.monotonic() + MESSAGE_SECONDS
        self._draw_selected(time.time())

    def show_details(self, shown: bool) -> None:
        """Open the details of the selected run, or close them."""
        self._detail.display = shown
        self.make_room()
        self._draw_selected(time.time())

    def turn(self) -> None:
        """Go to the other table."""
        self._turned = not self.providers.has_focus
        self.make_room()
        (self.providers if self._turned else self.runs).focus()

    def make_room(self, size: Size | None = None) -> None:
        """The providers give way to the details, or to the runs, where there is no room for both."""
        width, height = size or self.app.size
        is_low = height < LOW
        self.runs.display = not (is_low and self._turned)
        self.providers.display = self._turned or not (is_low or (self.shows_details and height < TALL))
        self._hint.show(Text(HINT if width >= len(HINT) else SHORT_HINT, no_wrap=True))
