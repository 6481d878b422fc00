"""Single flight: one process at a time prepares an image; the others wait, see its progress, share its verdict.

The lock is `flock` on a file that exists only while somebody works. It is held by the open file, so it works within one
process as across processes, and the kernel drops it when the holder dies. The holder writes its progress, and at last
its verdict, into the locked file; whoever waited has the same file open and reads it there.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from mulligan.activities import errors
from mulligan.activities.drivers.base import Deadline, Progress

POLL_SECONDS = 0.1
REPORT_SECONDS = 0.2
SHARED = (errors.ImageRejected, errors.NotFound, errors.AccessDenied)
"""Verdicts about the image, which are as true for whoever waited for the same image."""


class Flight:
    """The right to prepare one image. `asked` identifies what is prepared: only who asked the same shares a verdict."""

    def __init__(self, fd: int, asked: str, progress: Progress) -> None:
        self._fd = fd
        self._asked = asked
        self._progress = progress
        self._reported = 0.0

    def report(self, doing: str, done: int, total: int) -> None:
        """Tell the caller, and (a few times a second) those who wait."""
        self._progress(doing, done, total)
        now = time.monotonic()
        if now - self._reported >= REPORT_SECONDS:
            self._reported = now
            self._write({"doing": doing, "done": done, "total": total})

    def reject(self, error: errors.MulliganError) -> None:
        """Leave the verdict for those who wait."""
        self._write({"error": type(error).__name__, "message": error.message, "asked": self._asked})

    def _write(self, state: dict[str, object]) -> None:
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, json.dumps(state).encode(), 0)


@asynccontextmanager
async def single_flight(path: Path, asked: str, progress: Progress, deadline: Deadline) -> AsyncIterator[Flight]:
    """Hold the lock file `path`.

    While another holds it, `progress` is called with the holder's progress. Raises the holder's verdict when it was
    about the same `asked`, and `Unreachable` when the deadline passes in waiting.
    """
    fd = await _acquire(path, asked, progress, deadline)
    flight = Flight(fd, asked, progress)
    try:
        yield flight
    except SHARED as error:
        flight.reject(error)
        raise
    finally:
        path.unlink(missing_ok=True)  # noqa: ASYNC240 - one system call, and an await here could be cancelled
        os.close(fd)


async def _acquire(path: Path, asked: str, progress: Progress, deadline: Deadline) -> int:
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            await _lock(fd, progress, deadline)
            if os.fstat(fd).st_nlink:  # still the current lock file, so nobody else can hold it
                os.ftruncate(fd, 0)
                return fd
            state = _read(fd)
        except BaseException:  # whatever it was, a cancel too: nothing half made, and passed on
            os.close(fd)
            raise
        os.close(fd)
        if state.get("asked") == asked:
            verdict = {error.__name__: error for error in SHARED}[str(state["error"])]
            raise verdict(str(state["message"]))


async def _lock(fd: int, progress: Progress, deadline: Deadline) -> None:
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            state = _read(fd)
            if isinstance(done := state.get("done"), int) and isinstance(total := state.get("total"), int):
                progress(str(state.get("doing")), done, total)
            deadline.check("wait for the image that another run is preparing")
            await asyncio.sleep(min(POLL_SECONDS, deadline.remaining))
        else:
            return


def _read(fd: int) -> dict[str, object]:
    try:
        state = json.loads(os.pread(fd, 65536, 0))
    except ValueError:  # nothing written yet, or read in the middle of a write
        return {}
    return state if isinstance(state, dict) else {}
