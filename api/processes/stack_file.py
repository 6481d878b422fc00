"""Who runs the embedded stack of a state directory: a lock that one process holds, and what it says of itself."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shlex
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

from mulligan.activities.errors import Conflict, HostNotReady


@dataclass(frozen=True, slots=True)
class StackState:
    """What the process that holds the lock says of itself. `children` are process ids by name."""

    pid: int
    healthy: bool
    api: str
    ui: str
    boot: str
    children: dict[str, int]


class StackFile:
    """`up.lock` and `up.json` of one state directory."""

    def __init__(self, state_dir: Path) -> None:
        self.state_dir = state_dir
        self._lock = state_dir / "up.lock"
        self._json = state_dir / "up.json"

    def holder(self) -> int | None:
        """The process that runs the stack, or None when none does."""
        try:
            with self._lock.open("r") as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
                except BlockingIOError:
                    return int(file.read().strip() or 0)
        except FileNotFoundError:
            pass
        return None

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Hold the lock; raises `Conflict`, naming the other process, when somebody holds it."""
        make_state_dir(self.state_dir)
        with self._lock.open("a+") as file:
            if not _locked(file):
                file.seek(0)
                pid = file.read().strip()
                raise Conflict(
                    f"the stack of {self.state_dir} runs already, as process {pid}. Use it, stop it with "
                    "`mulligan down`, or set MULLIGAN_STATE_DIR to another directory",
                    pid=pid,
                    state_dir=self.state_dir,
                )
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
            try:
                yield
            finally:
                self._json.unlink(missing_ok=True)

    def write(self, state: StackState) -> None:
        """Say how the stack is; readers see the old or the new words, never half."""
        partial = self._json.with_suffix(".partial")
        partial.write_text(json.dumps(asdict(state)))
        partial.replace(self._json)

    def read(self) -> StackState | None:
        """What the running stack says of itself; None when none runs, or it has said nothing yet."""
        pid = self.holder()
        try:
            state = StackState(**json.loads(self._json.read_text()))
        except (FileNotFoundError, ValueError, TypeError):
            return None
        return state if state.pid == pid else None


def _locked(file: IO[str], patience: float = 0.5) -> bool:
    """Try to lock for so many seconds: somebody who only looks (see `holder`) has the lock for an instant."""
    end = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > end:
                return False
            time.sleep(0.02)
        else:
            return True


def make_state_dir(state_dir: Path) -> None:
    """Make the directory, readable by its owner only; raises `HostNotReady` when that is refused."""
    try:
        state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        (state_dir / "logs").mkdir(exist_ok=True)
    except OSError as error:
        raise HostNotReady(
            f"the state directory {state_dir} cannot be made: {error.strerror}. Set MULLIGAN_STATE_DIR to a "
            "directory that you may write to",
            remedy=f"mkdir -p {shlex.quote(str(state_dir))}",
        ) from error
    if not os.access(state_dir, os.W_OK | os.X_OK):
        raise HostNotReady(
            f"the state directory {state_dir} is not writable for this user. Set MULLIGAN_STATE_DIR to one that is",
            remedy=f"chown {os.getuid()} {shlex.quote(str(state_dir))}",
        )
