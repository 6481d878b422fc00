"""The lane of a BMC: one thing at a time is asked of it, by everything on this host that speaks with BMCs.

Within a worker the lane is a lock, kept in the order of asking. Between the workers of one host it is a lock on a file
in the drivers' directory, which the system gives back when a worker dies. Workers on different hosts do not wait for
each other; there, a server is given to one claim at a time, so that only looking at it can fall together with a run.

Who uses a BMC shares one session. It outlives its last user by some seconds, so that the steps of a run share it too.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

from mulligan.activities.drivers.base import Deadline
from mulligan.activities.errors import Busy, Unreachable

WAIT_SECONDS = 45.0
"""The longest wait for a turn, however late the deadline: who waits takes up a place that others could use."""
AGAIN_SECONDS = 2.0
"""When who did not get a turn should ask again."""
END_SECONDS = 10.0
"""How long the end of a session waits for other workers' turns; then it comes in between, being one short word."""
_LOOK_SECONDS = (0.02, 0.25)
"""The shortest and the longest pause between two looks at another worker's lock."""


def bmc_name(host: str, port: int | None, usual: int) -> str:
    """What a lane is kept by: the host, and the port unless it is the usual one of its protocol.

    So a BMC that is spoken to by two protocols has one lane.
    """
    return host.lower() if port in (None, usual) else f"{host.lower()}:{port}"


class Lane:
    """One BMC's lane, for one event loop. `end` gives back the session; it must take a second call well."""

    def __init__(self, bmc: str, directory: Path, end: Callable[[], Awaitable[None]], linger_seconds: float) -> None:
        self.bmc = bmc
        self._path = directory / "lanes" / f"{hashlib.sha256(bmc.encode()).hexdigest()[:32]}.lock"
        self._end = end
        self._linger = linger_seconds
        self._lock = asyncio.Lock()
        self._silent_at = 0.0
        """When the BMC was last found not to answer, on the monotonic clock."""
        self._users = 0
        self._ending: asyncio.Task[None] | None = None

    @property
    def taken(self) -> bool:
        """Whether somebody in this worker has a turn."""
        return self._lock.locked()

    def join(self) -> None:
        """One more user."""
        self._users += 1
        if self._ending is not None:
            self._ending.cancel()
            self._ending = None

    async def leave(self, *, now: bool) -> None:
        """One user less; the last one's leaving ends the session, at once or a little later."""
        self._users -= 1
        if self._users == 0 and now:
            await self.close()
        elif self._users == 0:
            self._ending = asyncio.create_task(self._end_later())

    async def close(self) -> None:
        """End the session, after what is under way; safe to call twice."""
        if self._ending is not None:
            self._ending.cancel()
            self._ending = None
        await self._end_alone()

    @contextlib.asynccontextmanager
    async def turn(self, doing: str, deadline: Deadline) -> AsyncIterator[None]:
        """Within the block nobody else on this host asks anything of the BMC.

        Raises `Busy` when it does not come to that in time, and `Unreachable` when the BMC was found to be silent
        meanwhile: then all who wait are told so, and do not ask it one after the other.
        """
        began = time.monotonic()
        try:
            async with asyncio.timeout(min(WAIT_SECONDS, deadline.remaining)):
                await self._lock.acquire()
                lock = await self._lock_file()
        except TimeoutError:
            raise self._busy(doing) from None
        try:
            if self._silent_at >= began:
                raise self._silent(doing)
            with self._listening():
                yield
        finally:
            os.close(lock)
            self._lock.release()

    @contextlib.contextmanager
    def _listening(self) -> Iterator[None]:
        try:
            yield
        except Unreachable:
            self._silent_at = time.monotonic()
            raise

    def _silent(self, doing: str) -> Unreachable:
        said = f"{doing}: the BMC at {self.bmc} did not answer what was asked of it before this; it will be tried again"
        return Unreachable(said, bmc=self.bmc)

    def _busy(self, doing: str) -> Busy:
        return Busy(
            f"{doing}: something else is asked of the BMC at {self.bmc} and has not ended; one thing at a time is "
            "asked of it, and this will be tried again",
            after_seconds=AGAIN_SECONDS,
            bmc=self.bmc,
        )

    async def _lock_file(self) -> int:
        """The host's lock, as a file descriptor that gives it back when closed. Gives back the worker's on failure."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            lock = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                await _locked(lock)
            except BaseException:  # a cancel or the end of patience: the file is closed, and it is passed on
                os.close(lock)
                raise
        except BaseException:  # the same
            self._lock.release()
            raise
        return lock

    async def _end_later(self) -> None:
        await asyncio.sleep(self._linger)
        await self._end_alone()

    async def _end_alone(self) -> None:
        """End the session in a turn of its own, or without one when other workers take too long."""
        try:
            async with self.turn("ending the session", Deadline.after(END_SECONDS)):
                await self._end()
        except (Busy, Unreachable):
            async with self._lock:
                await self._end()


async def _locked(lock: int) -> None:
    """Wait until the lock is ours."""
    pause, longest = _LOOK_SECONDS
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            await asyncio.sleep(pause)
            pause = min(pause * 2, longest)
        else:
            return
