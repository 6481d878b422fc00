"""`mulligan top`: the command. What draws is imported when there is a terminal to draw on."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator

import click

from mulligan.api.cli.client import Session, api_command
from mulligan.api.cli.errors import usage
from mulligan.api.cli.exit_codes import ExitCode


@click.command()
@api_command
def top(session: Session) -> ExitCode:
    """Watch and steer runs in flight, and see the providers, on a full screen. `?` shows the keys, `q` leaves.

    Ctrl-C leaves too. Leaving never changes a run.
    """
    if session.as_json:
        raise usage("a full screen has no JSON", "mulligan run list --outcome open --output json")
    if not _has_terminal():
        raise usage(
            "a full screen needs a terminal, and this is none (standard input, output and error must all be one)",
            "mulligan run list --outcome open",
            "mulligan provider list",
        )
    from mulligan.api.cli.top.app import TopApp  # noqa: PLC0415 - brings the drawing, which other commands do not need

    app = TopApp(session)
    with _alone_on_the_terminal():
        left = app.run(mouse=False)  # so that the terminal's own selection of text works
    return ExitCode.UNEXPECTED if left is None else left


def _has_terminal() -> bool:
    streams = (sys.stdin, sys.stdout, sys.stderr)
    return all(each is not None and each.isatty() for each in streams) and os.environ.get("TERM", "") not in (
        "",
        "dumb",
    )


@contextlib.contextmanager
def _alone_on_the_terminal() -> Iterator[None]:
    """Let nothing but the screen write to the terminal: gRPC logs to standard error, which is where the screen is.

    The screen gets a copy of standard error, under the name by which it looks for it; what libraries write to the
    process's own standard error is dropped meanwhile.
    """
    sys.stderr.flush()
    kept, before = os.dup(2), (sys.stderr, sys.__stderr__)
    with open(os.dup(2), "w", encoding="utf-8") as screen, open(os.devnull, "w", encoding="utf-8") as nowhere:  # noqa: PTH123
        sys.stderr = sys.__stderr__ = screen  # type: ignore[misc]
        os.dup2(nowhere.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            sys.stderr, sys.__stderr__ = before  # type: ignore[misc]
