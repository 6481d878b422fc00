"""Programs of the system that the agent calls."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from pathlib import Path


class Failed(Exception):
    """What was to be done cannot be done; `name` for programs, the message for people."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(message)
        self.name = name


class Complained(Failed):
    """A program ran, and ended with a status that says that it did not do what it was told."""


CHECK_SECONDS = 1.0


def run(*words: str | Path, said: str = "", seconds: float = 300.0, check: Callable[[], None] = lambda: None) -> str:
    """Run a program to which `said` is said, which must succeed; its output. Raises `Failed` with its complaint.

    `check` is called every second, and raises to have the program killed.
    """
    command = [str(word) for word in words]
    pipe = subprocess.PIPE
    try:
        program = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, errors="replace")
    except OSError as error:
        raise Failed("TOOL_FAILED", f"{command[0]}: {error}") from error
    with program:
        try:
            printed, complained = _ended(program, said, time.monotonic() + seconds, check)
        except subprocess.TimeoutExpired as error:
            raise Failed("TOOL_FAILED", f"`{' '.join(command)}` did not end within {seconds:.0f} seconds") from error
        finally:
            program.kill()
    if program.returncode != 0:
        complaint = (complained.strip() or printed.strip())[-300:]
        raise Complained("TOOL_FAILED", f"`{' '.join(command)}` ended with status {program.returncode}: {complaint}")
    return printed


def _ended(program: subprocess.Popen[str], said: str, until: float, check: Callable[[], None]) -> tuple[str, str]:
    """What it printed, and what it complained of. Raises `TimeoutExpired`, and what `check` raises."""
    rest: str | None = said
    while True:
        try:
            return program.communicate(rest, timeout=CHECK_SECONDS)
        except subprocess.TimeoutExpired:
            if time.monotonic() > until:
                raise
        rest = None  # all of it is on its way
        check()


def read(path: Path, otherwise: str = "") -> str:
    """The text of a small file of the kernel's, stripped; `otherwise` where it is not there."""
    try:
        return path.read_text(errors="replace").strip("\0 \n\t")
    except OSError:
        return otherwise
