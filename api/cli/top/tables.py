"""A table that follows a list: only what changed is drawn anew, and the cursor stays on its row."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import ClassVar, Generic, TypeVar

from rich.text import Text
from textual.binding import BindingType
from textual.widgets import DataTable, Static

from mulligan.api.cli.top.cells import Column, cut

T = TypeVar("T")


class Words(Static):
    """Text that is drawn anew only when it changed."""

    shown = Text()

    def show(self, text: Text) -> None:
        """Show this text."""
        if text != self.shown:
            self.shown = text
            self.update(text)


class Rows(DataTable[Text], Generic[T]):
    """Shows items, each under a key of its own. `show` may be called as often as you like."""

    BINDINGS: ClassVar[list[BindingType]] = [("home", "scroll_top", "First"), ("end", "scroll_bottom", "Last")]

    def __init__(
        self,
        columns: Callable[[int], list[Column[T]]],
        key_of: Callable[[T], Hashable],
        style_of: Callable[[T], str],
        name: str,
    ) -> None:
        super().__init__(id=name, cursor_type="row", cell_padding=0, zebra_stripes=False)
        self._columns_for = columns
        self._key_of = key_of
        self._style_of = style_of
        self._shown_columns: list[Column[T]] = []
        self._keys: list[Hashable] = []
        self._cells: dict[tuple[Hashable, str], tuple[str, str]] = {}
        self._goes_on: tuple[Hashable, Hashable] | None = None

    @property
    def selected(self) -> Hashable | None:
        """The key of the row under the cursor; None when there is none."""
        return self._keys[self.cursor_row] if 0 <= self.cursor_row < len(self._keys) else None

    @property
    def on_screen(self) -> Sequence[Hashable]:
        """The keys that can be seen, the selected one first."""
        first = int(self.scroll_y)
        seen = self._keys[first : first + max(1, self.size.height)]
        return [*([self.selected] if self.selected is not None else []), *seen]

    def go_on_with(self, old: Hashable, new: Hashable) -> None:
        """Put the cursor on the row with the new key as soon as there is one, unless it has left the old one's."""
        self._goes_on = (old, new)

    def show(self, items: Sequence[T], now: float) -> None:
        """Show these items, in this order, as they are at this moment."""
        width = self.scrollable_content_region.width
        if not width:
            return  # not laid out yet
        columns = self._columns_for(width)
        keys = [self._key_of(item) for item in items]
        if _shape(columns) != _shape(self._shown_columns):
            self._build(columns, items, keys, now)
        elif keys[: len(self._keys)] == self._keys:
            for item in items[len(self._keys) :]:
                self._append(item, now)
        elif keys != self._keys:
            self._build(columns, items, keys, now)
        first = int(self.scroll_y)
        for item in items[first : first + self.size.height + 1]:
            self._update(item, now)
        if self._goes_on is not None and self._goes_on[1] in self._keys:
            (old, new), self._goes_on = self._goes_on, None
            if self.selected == old or old not in self._keys:
                self.move_cursor(row=self._keys.index(new), animate=False)

    def _build(self, columns: list[Column[T]], items: Sequence[T], keys: list[Hashable], now: float) -> None:
        selected, row, scroll = self.selected, self.cursor_row, self.scroll_y
        self.clear(columns=True)
        self._shown_columns, self._keys, self._cells = columns, [], {}
        for column in columns:
            gap = 0 if column is columns[-1] else 1
            self.add_column(Text(cut(column.name, column.width)), width=column.width + gap, key=column.name)
        for item in items:
            self._append(item, now)
        index = keys.index(selected) if selected in keys else min(row, len(keys) - 1)
        if index >= 0:
            self.move_cursor(row=index, animate=False, scroll=False)
            self.scroll_to(y=scroll, animate=False, immediate=True)

    def _append(self, item: T, now: float) -> None:
        key, style = self._key_of(item), self._style_of(item)
        cells = [cut(column.text(item, now), column.width) for column in self._shown_columns]
        for column, text in zip(self._shown_columns, cells, strict=True):
            self._cells[key, column.name] = (text, style)
        self.add_row(*(Text(text, style=style, no_wrap=True) for text in cells), key=str(key))
        self._keys.append(key)

    def _update(self, item: T, now: float) -> None:
        key, style = self._key_of(item), self._style_of(item)
        for column in self._shown_columns:
            text = cut(column.text(item, now), column.width)
            if self._cells[key, column.name] != (text, style):
                self._cells[key, column.name] = (text, style)
                self.update_cell(str(key), column.name, Text(text, style=style, no_wrap=True))


def _shape(columns: Sequence[Column[T]]) -> list[tuple[str, int]]:
    return [(column.name, column.width) for column in columns]
