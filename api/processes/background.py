"""The embedded stack in the background: start it and wait until it is healthy, find it, stop it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time

from mulligan.activities.errors import Conflict, HostNotReady
from mulligan.api.config import Settings
from mulligan.api.processes.stack import PROGRAM
from mulligan.api.processes.stack_file import StackFile, StackState, make_state_dir

_POLL_SECONDS = 0.05
_START_SECONDS = 180.0
_STOP_SECONDS = 90.0
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
        remedy=f"less {log_path}",
    )


def stop_stack(settings: Settings) -> int | None:
    """Stop the stack of the state directory and wait for its end; its pid, or None when none ran."""
    file = StackFile(settings.state_dir)
    pid = file.holder()
    if pid is None:
        return None
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
        time.sleep(_POLL_SECONDS)
    return pid


def running_stack(settings: Settings) -> StackState | None:
    """What the running stack says of itself; None when none runs."""
    return StackFile(settings.state_dir).read()
