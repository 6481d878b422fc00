"""`mulligan top` on a pseudo-terminal: what it draws can be awaited, keys pressed, and what it leaves looked at."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import termios
import time
from collections.abc import Mapping
from pathlib import Path

from tests.cli.conftest import BINARY

SCREEN_OFF, CURSOR_ON = "\x1b[?1049l", "\x1b[?25h"


class Screen:
    """`mulligan top` on a terminal of its own. Use it as a context; leaving it ends what still runs."""

    def __init__(self, environment: Mapping[str, str], cwd: Path, *arguments: str) -> None:
        self._ours, self._its = pty.openpty()
        self.before = termios.tcgetattr(self._its)
        self.shown = ""
        self.process = subprocess.Popen(
            [BINARY, "top", *arguments],
            env={**environment, "COLUMNS": "100", "LINES": "30"},
            cwd=cwd,
            stdin=self._its,
            stdout=self._its,
            stderr=self._its,
            start_new_session=True,
        )

    def __enter__(self) -> Screen:
        return self

    def __exit__(self, *error: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._ours)
        os.close(self._its)

    def press(self, keys: bytes) -> None:
        """Press keys."""
        os.write(self._ours, keys)

    def wait_for(self, text: str, seconds: float = 60) -> None:
        """Read until the text was drawn."""
        ends = time.monotonic() + seconds
        while text not in self.shown and time.monotonic() < ends and self.process.poll() is None:
            self._read(0.1)
        assert text in self.shown, self.shown

    def finish(self, seconds: float = 60) -> int:
        """Read until it ended; returns the exit code."""
        ends = time.monotonic() + seconds
        while self.process.poll() is None and time.monotonic() < ends:
            self._read(0.1)
        self._read(0)
        assert self.process.poll() is not None, self.shown
        return self.process.returncode

    def assert_given_back(self) -> None:
        """The terminal behaves as before, shows what it showed before, and has its cursor."""
        assert termios.tcgetattr(self._its) == self.before
        assert SCREEN_OFF in self.shown
        assert CURSOR_ON in self.shown
        assert "Traceback" not in self.shown

    def _read(self, seconds: float) -> None:
        while select.select([self._ours], [], [], seconds)[0]:
            self.shown += os.read(self._ours, 65536).decode(errors="replace")
            seconds = 0
