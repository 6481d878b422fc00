"""A pseudo-terminal with `mulligan` in it: what it draws can be awaited, and keys can be pressed."""

from __future__ import annotations

import os
import selectors
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from tests.cli.conftest import BINARY

CTRL_C = b"\x03"
INSIDE = """
import os, pty, signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell's background jobs inherit that Ctrl-C is ignored
sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))
"""


class Terminal:
    """Use it as a context; leaving it ends what still runs in it."""

    def __init__(self, arguments: tuple[str, ...], environment: Mapping[str, str], cwd: Path) -> None:
        self.shown = ""
        self._process = subprocess.Popen(
            [sys.executable, "-c", INSIDE, str(BINARY), *arguments],
            env={**environment, "COLUMNS": "100", "LINES": "40"},
            cwd=cwd,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
        )

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *error: object) -> None:
        self._process.kill()
        self._process.communicate()

    def press(self, key: bytes) -> None:
        """Press a key."""
        assert self._process.stdin is not None
        self._process.stdin.write(key)

    def wait_for(self, text: str, seconds: float = 30) -> None:
        """Read until the text was drawn."""
        self._read(seconds, until=text)
        assert text in self.shown, self.shown

    def finish(self, seconds: float = 30) -> int:
        """Read to the end; returns the exit code."""
        self._read(seconds)
        return self._process.wait(seconds)

    def _read(self, seconds: float, until: str | None = None) -> None:
        assert self._process.stdout is not None
        ends = time.monotonic() + seconds
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            while (until is None or until not in self.shown) and time.monotonic() < ends:
                if not selector.select(ends - time.monotonic()):
                    break
                data = os.read(self._process.stdout.fileno(), 65536)
                if not data:
                    break
                self.shown += data.decode(errors="replace")
