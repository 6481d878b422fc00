"""The embedded stack in the background: start it and wait until it is healthy, find it, stop it."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import time
from collections.abc import Callable

from mulligan.activities.errors import Conflict, HostNotReady
from mulligan.activities.pids import alive
from mulligan.api.config import Settings
from mulligan.api.processes.stack import PROGRAM, specs
from mulligan.api.processes.stack_file import StackFile, StackState, make_state_dir

_POLL_SECONDS = 0.05
_START_SECONDS = 180.0
_STOP_SECONDS = 90.0
_REMIND_SECONDS = 5.0
_TAIL_LINES = 20


def start_stack(settings: Settings) -> StackState:
    """Start the stack of the state directory in the background, and return when it is healthy.

    Raises `Conflict` when it runs already, `HostNotReady` with the end of its log when it cannot be started.
    """
    file = StackFile(settings.state_dir)
    if (pid := file.holder()) is not None:
        raise Conflict(f"the stack of {settings.state_dir} runs already, as process {pid}", pid=pid)
    make_state_dir(settings.state_dir)
    log_path = settings.state_dir / "logs" / "up.log"
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            [*PROGRAM, "up"], stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
    end = time.monotonic() + _START_SECONDS
    while True:
        state = file.read()
        if state is not None and state.pid == process.pid and state.healthy:
            return state
        if process.poll() is not None or time.monotonic() > end:
            break
        time.sleep(_POLL_SECONDS)
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        process.wait(_STOP_SECONDS)
    said = "\n  ".join(log_path.read_text(errors="replace").splitlines()[-_TAIL_LINES:])
    raise HostNotReady(
        f"the stack did not come up; it says:\n  {said}\nMend what it names, then start again",
        remedy=f"less {shlex.quote(str(log_path))}",
    )


def stop_stack(settings: Settings, say: Callable[[str], None] = lambda _: None) -> int | None:
    """Stop the stack of the state directory and wait for its end; its pid, or None when none ran. `say` gets what is
    being stopped and what it waits for, while it does."""
    file = StackFile(settings.state_dir)
    pid, state = file.holder(), file.read()
    if pid is None:
        return None
    last = _LastWord(settings, state, say)
    say(f"stopping the stack of {settings.state_dir} (process {pid})")
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
    end = time.monotonic() + _STOP_SECONDS
    while file.holder() == pid:
        if time.monotonic() > end:
            raise HostNotReady(
                f"the stack of {settings.state_dir} (process {pid}) was asked to stop and still runs after "
                f"{_STOP_SECONDS:g} s. Its children end with it when it is killed",
                remedy=f"kill -9 {pid}",
            )
        last.look()
        time.sleep(_POLL_SECONDS)
    return pid


class _LastWord:
    """Says which process of a stack that stops is waited for: when it is another one, and every few seconds."""

    def __init__(self, settings: Settings, state: StackState | None, say: Callable[[str], None]) -> None:
        pids = state.children if state is not None else {}
        self._left = [(spec, pids[spec.name]) for spec in reversed(specs(settings)) if spec.name in pids]
        self._say, self._said_at, self._began = say, 0.0, 0.0

    def look(self) -> None:
        """See who is left, and say so if it is time."""
        now = time.monotonic()
        while self._left and not alive(self._left[0][1]):
            self._say(f"  {self._left.pop(0)[0].name} has stopped")
            self._said_at = self._began = 0.0
        if not self._left or now - self._said_at < _REMIND_SECONDS:
            return
        spec = self._left[0][0]
        self._said_at, self._began = now, self._began or now
        waited = (
            f"{now - self._began:.0f} of at most {spec.stop_seconds:.0f} s"
            if now > self._began
            else (f"at most {spec.stop_seconds:.0f} s, for what it is doing to end")
        )
        self._say(f"  waiting for {spec.name}: {waited}")


def running_stack(settings: Settings) -> StackState | None:
    """What the running stack says of itself; None when none runs."""
    return StackFile(settings.state_dir).read()
