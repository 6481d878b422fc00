"""The full screen: draws the model twice a second, and takes the keys."""

from __future__ import annotations

import asyncio
import signal
from typing import ClassVar

import grpc
from rich.text import Text
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.events import Resize
from textual.widgets import DataTable, Input

from mulligan.api.cli.client import Session
from mulligan.api.cli.errors import of_rpc
from mulligan.api.cli.exit_codes import ExitCode
from mulligan.api.cli.top.api import Api
from mulligan.api.cli.top.board import Board
from mulligan.api.cli.top.feeds import Feeds
from mulligan.api.cli.top.levers import LEVERS, Lever, refusal
from mulligan.api.cli.top.modal import Confirm, Help
from mulligan.api.cli.top.model import Model
from mulligan.api.cli.top.row import Row

REDRAW_SECONDS = 0.5
SIGNALS = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)


class TopApp(App[ExitCode]):
    """`mulligan top`. Its result is the exit code."""

    ENABLE_COMMAND_PALETTE = False
    TITLE = "mulligan top"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q", "leave('OK')", "Quit"),
        Binding("ctrl+c,ctrl+q", "leave('DETACHED')", "Quit", priority=True),
        Binding("slash", "filter", "Filter"),
        Binding("escape", "clear", "Clear"),
        Binding("tab,shift+tab", "turn", "Other table", priority=True),
        Binding("e", "ended", "Ended runs"),
        Binding("question_mark", "help", "Help"),
        *(Binding(lever.key, f"ask('{lever.name}')", lever.name) for lever in LEVERS),
    ]

    def __init__(self, session: Session) -> None:
        super().__init__()
        self.model = Model()
        self.board = Board(self.model, session.api)
        self._session = session
        self._feeds: Feeds | None = None
        self._api: Api | None = None
        self._filtered: DataTable[Text] = self.board.runs

    def compose(self) -> ComposeResult:
        """The board is all there is."""
        yield self.board

    def on_mount(self) -> None:
        """Begin to ask the API, and to draw."""
        loop = asyncio.get_running_loop()
        for number in SIGNALS:
            loop.add_signal_handler(number, self.exit, ExitCode.DETACHED)
        self.board.runs.focus()
        self.run_worker(self._feed(), exit_on_error=True)
        self.set_interval(REDRAW_SECONDS, self.board.redraw)

    def on_unmount(self) -> None:
        """Signals are what they were before."""
        for number in SIGNALS:
            asyncio.get_running_loop().remove_signal_handler(number)

    async def _feed(self) -> None:
        async with Api(self._session) as api:
            self._api, self._feeds = api, Feeds(api, self.model)
            await self._feeds.run()

    def on_data_table_row_selected(self) -> None:
        """Enter: open the details, or close them."""
        if self.board.runs.has_focus:
            self.board.show_details(not self.board.shows_details)

    def on_resize(self, event: Resize) -> None:
        """There may be more room now, or less; this screen's own size is still the one before."""
        self.board.make_room(event.size)

    def action_leave(self, how: str) -> None:
        """Leave; every run goes on."""
        self.exit(ExitCode[how])

    def action_help(self) -> None:
        """Show the keys."""
        self.push_screen(Help())

    def action_turn(self) -> None:
        """Tab: the other table; above a question, what comes next in it."""
        if self.screen.is_modal:
            self.screen.focus_next()
        else:
            self.board.turn()

    def action_ended(self) -> None:
        """Show ended runs too, or no more."""
        self.model.shows_ended = not self.model.shows_ended
        self._hurry()
        self.board.redraw()

    def action_filter(self) -> None:
        """Begin to type a filter for the table that has the focus."""
        board = self.board
        self._filtered = board.providers if board.providers.has_focus else board.runs
        board.filter.value = self.model.filters[self._filtered.id or ""]
        board.filter.display = True
        board.filter.focus()

    def on_input_changed(self, event: Input.Changed) -> None:
        """Filter while it is being typed."""
        if event.input is self.board.filter:
            self.model.filters[self._filtered.id or ""] = event.value.strip()
            self.board.redraw()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Enter keeps the filter."""
        if event.input is self.board.filter:
            self._end_filter()

    def _end_filter(self) -> None:
        self.board.filter.display = False
        self._filtered.focus()

    def action_clear(self) -> None:
        """Esc: leave the filter's line and clear it; else close the details; else clear the filters."""
        if self.board.filter.display:
            self.board.filter.value = ""
            self._end_filter()
        elif self.board.shows_details:
            self.board.show_details(False)
        else:
            self.model.filters.update(runs="", providers="")
        self.board.redraw()

    def action_ask(self, name: str) -> None:
        """Ask whether to pull this lever of the selected run."""
        lever, row = next(each for each in LEVERS if each.name == name), self.board.selected
        if row is None:
            self.board.say(f"{name}: no run is selected", "yellow")
            return
        if why := refusal(lever, row):
            self.board.say(f"{name} {row.key.workflow_id}: {why}", "yellow")
            return

        def answered(reason: str | None) -> None:
            if reason is None:
                self.board.say(f"{name} {row.key.workflow_id}: left as it is")
            else:
                self.run_worker(self._pull(lever, row, reason))

        self.push_screen(Confirm(lever, row), answered)

    async def _pull(self, lever: Lever, row: Row, reason: str) -> None:
        assert self._api is not None  # there is no row before there is an API
        what = f"{lever.name} {row.key.workflow_id}"
        self.board.say(f"{what}: asked, no answer yet")
        try:
            told = await lever.pull(self._api, row, reason)
        except grpc.RpcError as error:
            known = of_rpc(error, noun="run", api=self._session.api)
            more = "".join(f"; next: {command}" for command in known.next_commands[:1] if command not in known.message)
            self.board.say(f"{what}: refused: {known.message}{more}", "red")
        else:
            self.board.say(f"{what}: {told.said}", "green")
            if told.began is not None:
                self.board.runs.go_on_with(row.key, told.began)
        self._hurry()

    def _hurry(self) -> None:
        if self._feeds is not None:
            self._feeds.hurry()
