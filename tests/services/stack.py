"""A whole `mulligan up` for tests: on free ports, with its state in a directory of the test."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

from tests.services.temporal import free_port

MULLIGAN = (sys.executable, "-P", "-m", "mulligan.api.cli")
START_SECONDS = 60.0
STOP_SECONDS = 60.0


def until(condition: Callable[[], object], seconds: float = 30.0, what: str = "the condition") -> None:
    """Wait until the condition holds; fails the test after so many seconds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"{what} did not come to hold within {seconds:g} s"
        time.sleep(0.05)


def alive(pid: int) -> bool:
    """Whether the process runs: neither gone nor a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


class Stack:
    """One state directory with its ports. Use it as a context: whatever runs in it is stopped at the end."""

    def __init__(self, directory: Path) -> None:
        self.state_dir = directory / "state"
        self.api = f"127.0.0.1:{free_port()}"
        self.temporal = f"127.0.0.1:{free_port()}"
        self.ui = f"127.0.0.1:{free_port()}"
        self.boot = f"127.0.0.1:{free_port()}"
        self.process: subprocess.Popen[bytes] | None = None
        self._out = directory / "up.out"
        directory.mkdir(parents=True, exist_ok=True)

    @property
    def environment(self) -> Mapping[str, str]:
        """The settings, as a process gets them."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("MULLIGAN_")}
        return {
            **kept,
            "MULLIGAN_STATE_DIR": str(self.state_dir),
            "MULLIGAN_API": self.api,
            "MULLIGAN_TEMPORAL": self.temporal,
            "MULLIGAN_TEMPORAL_UI": self.ui,
            "MULLIGAN_BOOT_LISTEN": self.boot,
        }

    @property
    def state(self) -> dict[str, Any]:
        """What the stack says of itself; empty when it says nothing."""
        try:
            found: dict[str, Any] = json.loads((self.state_dir / "up.json").read_text())
        except FileNotFoundError:
            return {}
        return found

    @property
    def said(self) -> str:
        """All that `mulligan up` has said."""
        return self._out.read_text() if self._out.exists() else ""

    def run(self, *words: str, seconds: float = 60.0, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a command of `mulligan` to its end, in the stack's environment and these variables."""
        told = {**self.environment, **environment}
        return subprocess.run(
            [*MULLIGAN, *words], env=told, capture_output=True, text=True, timeout=seconds, check=False
        )

    def json(self, *words: str) -> dict[str, Any]:
        """The JSON object that a command gives."""
        done = self.run(*words, "--output", "json")
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def up(self, *words: str) -> None:
        """Start it in the foreground of a process of its own, and wait until all of it is healthy."""
        with self._out.open("ab") as out:
            self.process = subprocess.Popen([*MULLIGAN, "up", *words], env=self.environment, stdout=out, stderr=out)
        pid = self.process.pid
        ended = self.process.poll
        until(lambda: ended() is not None or self._is_healthy(pid), START_SECONDS, "a healthy stack")
        assert ended() is None, self.said

    @property
    def process_id(self) -> int:
        """The process of the supervisor that `up` started."""
        assert self.process is not None
        return self.process.pid

    def kill(self) -> None:
        """`kill -9` the supervisor."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """Ask it to end, as Ctrl-C would, and wait; gives the exit code."""
        assert self.process is not None
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(STOP_SECONDS)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.kill()
        self.run("down")

    def _is_healthy(self, pid: int) -> bool:
        state = self.state
        return state.get("pid") == pid and bool(state["healthy"])
