"""Data on standard output: tables and details for people, JSON for programs."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol

import click
from google.protobuf.descriptor import EnumDescriptor
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from mulligan.api.cli.client import Session
from mulligan.api.cli.text import clean

Row = Sequence[str]


class ProtoEnum(Protocol):
    """An enum of the contract, e.g. `machine_pb2.MachineKind`."""

    @property
    def DESCRIPTOR(self) -> EnumDescriptor:  # noqa: N802 - the generated code's name
        """Its names and numbers."""

    def Value(self, name: str) -> Any:  # noqa: N802 - the generated code's name
        """The number of a name."""


SHORT = 20
"""Cells of up to so many characters are not broken."""

PIPE_WIDTH = 1000
"""Columns of a table that no terminal limits, so that nothing in it is cut off."""


def as_dict(message: Message) -> dict[str, Any]:
    """The message as JSON has it: field names as in the contract, every plain field present."""
    return MessageToDict(message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)


def print_json(message: Message, **more: object) -> None:
    """Write one message, and what else is said of it, as one line of JSON."""
    click.echo(json.dumps({**more, **as_dict(message)}))


def listing(
    session: Session, messages: Iterable[Message], head: Row, row: Callable[[Any], Row], *, whole: Row = ()
) -> None:
    """Write a list: a table, or one JSON object a line as each arrives. The columns `whole` are never broken."""
    if session.as_json:
        for message in messages:
            print_json(message)
        return
    rows = [row(message) for message in messages]
    if rows:
        show(table(head, rows, whole=whole))
    else:
        click.echo("none", err=True)


def details(session: Session, message: Message, rows: Callable[[Any], Iterable[tuple[str, str]]]) -> None:
    """Write one thing: its fields one a line, without the empty ones, or one JSON object."""
    if session.as_json:
        print_json(message)
        return
    grid = Table.grid(padding=(0, 2))
    for name, value in rows(message):
        if value:
            grid.add_row(Text(name, style="bold"), Text(clean(value, lines=True)))
    show(grid)


def table(head: Row, rows: Iterable[Row], *, whole: Row = ()) -> Table:
    """A table without lines around it. On a narrow screen only long cells are broken, never a number or a name."""
    made = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    cells = [tuple(clean(cell) for cell in row) for row in rows]
    for number, name in enumerate(head):
        widest = max((len(row[number]) for row in cells), default=0)
        made.add_column(name.upper(), overflow="fold", no_wrap=widest <= SHORT or name in whole)
    for row in cells:
        made.add_row(*(Text(cell) for cell in row))
    return made


def show(renderable: RenderableType, *, err: bool = False) -> None:
    """Write it to standard output (or error): in colour on a terminal, unwrapped otherwise."""
    stream = sys.stderr if err else sys.stdout
    width = shutil.get_terminal_size().columns if stream.isatty() else PIPE_WIDTH
    console = Console(file=stream, width=width, highlight=False, markup=False, emoji=False)
    with console.capture() as captured:
        console.print(renderable)
    for line in captured.get().splitlines():
        click.echo(line.rstrip(), err=err)


def word(enum: ProtoEnum, value: int) -> str:
    """The value as people write it, e.g. `bare-metal` for MACHINE_KIND_BARE_METAL; empty for UNSPECIFIED."""
    known = enum.DESCRIPTOR.values_by_number.get(value)
    if known is None:
        return str(value)
    name = known.name.removeprefix(prefix_of(enum))
    return "" if name == "UNSPECIFIED" else name.lower().replace("_", "-")


def words(enum: ProtoEnum) -> list[str]:
    """Every value of the enum that can be asked for, as people write it."""
    return [name for name in (word(enum, value.number) for value in enum.DESCRIPTOR.values) if name]


def value_of(enum: ProtoEnum, text: str) -> Any:
    """The enum's value for a word, e.g. MACHINE_KIND_BARE_METAL for `bare-metal`."""
    return enum.Value(prefix_of(enum) + text.upper().replace("-", "_"))


def prefix_of(enum: ProtoEnum) -> str:
    """What every value's name begins with, e.g. `MACHINE_KIND_`."""
    return enum.DESCRIPTOR.values_by_number[0].name.removesuffix("UNSPECIFIED")


def pairs(texts: Iterable[str], option: str) -> Iterator[tuple[str, str]]:
    """The parts of each `key=value`; a usage error for what is not one."""
    for text in texts:
        key, sign, value = text.partition("=")
        if not sign or not key:
            raise click.BadParameter(f"{text!r} is not KEY=VALUE", param_hint=option)
        yield key, value
