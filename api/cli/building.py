"""The live progress of something that is built on this host."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

TELL_SECONDS = 5.0

Report = Callable[[str, float], None]
"""Called with what is being done, and how much of the whole is done, from 0 to 1."""


@contextlib.contextmanager
def reporting(title: str) -> Iterator[Report]:
    """A function that shows progress on standard error: a bar on a terminal, else a line for each new thing."""
    console = Console(stderr=True, markup=False, highlight=False)
    if not console.is_terminal:
        yield _plain_report(title)
        return
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(title, total=1.0)
        yield lambda what, part: progress.update(task, description=what, completed=part)


def _plain_report(title: str) -> Report:
    last = ("", 0.0)

    def report(what: str, part: float) -> None:
        nonlocal last
        now = time.monotonic()
        if what != last[0] or now - last[1] >= TELL_SECONDS:
            last = (what, now)
            click.echo(f"{title}: {100 * part:3.0f} %  {what}", err=True)

    return report
