"""The lane of a BMC: one thing at a time is asked of it, by all workers that share a drivers' directory.

Within a worker the lane is a lock, kept in the order of asking. Between workers it is a lock on a file in the drivers'
directory, which the system gives back when a worker dies (a file server within its lease, when a whole host does). That
all workers of a partition share the directory is seen to before a BMC is spoken to (`activities/neighbours.py`).

A BMC that was silent when it was last asked is asked by one at a time; nobody waits behind that one. Such BMCs together
take up only so many of a worker's places, so that those that answer are served however many are dead.

Who uses a BMC shares one session. It outlives its last user by some seconds, so that the steps of a run share it too.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import ipaddress
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

from mulligan.activities.drivers.base import Deadline
from mulligan.activities.drivers.directory import lane_file
from mulligan.activities.drivers.lane_health import ANSWERS, HealthFile
from mulligan.activities.errors import Busy, Unreachable

WAIT_SECONDS = 45.0
"""The longest wait for a turn, however late the deadline: who waits takes up a place that others could use."""
AGAIN_SECONDS = 2.0
"""When who did not get a turn should ask again."""
END_SECONDS = 10.0
"""How long the end of a session waits for other workers' turns; then it comes in between, being one short word."""
MOST_SILENT = 20
"""How many BMCs that were silent when they were last asked are asked by one worker at the same time."""
_LOOK_SECONDS = (0.02, 0.25)
"""The shortest and the longest pause between two looks at another worker's lock."""

_silent: set[Lane] = set()
"""Those that are being asked although they were silent."""


def bmc_name(host: str, port: int | None, usual: int) -> str:
    """What a lane is kept by: the host, and the port unless it is the usual one of its protocol.

    So a BMC that is spoken to by two protocols has one lane.
    """
    host = plain_host(host)
    if port in (None, usual):
        return host
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def plain_host(host: str) -> str:
    """A host in one spelling: in lower case, without a dot at its end, an IPv6 address at its shortest. Its name is not
    looked up: who knows a BMC by two names has two of it."""
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        return host.lower().removesuffix(".")


class Lane:
    """One BMC's lane, for one event loop. `end` gives back the session; it must take a second call well."""

    def __init__(self, bmc: str, directory: Path, end: Callable[[], Awaitable[None]], linger_seconds: float) -> None:
        self.bmc = bmc
        self._path = lane_file(directory, bmc)
        self._health = HealthFile(directory, bmc)
        self._end = end
        self._linger = linger_seconds
        self._lock = asyncio.Lock()
        self._silent_at = 0.0
        """When the BMC was last found not to answer, on the monotonic clock; 0 when it answered since."""
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
    async def turn(
        self, doing: str, deadline: Deadline, may_ask: Callable[[], None] = lambda: None
    ) -> AsyncIterator[None]:
        """Within the block nobody else who shares the directory asks anything of the BMC.

        What `may_ask` raises is raised before it: nothing was sent then, which tells nothing of how the BMC answers.

        Raises `Busy` when it does not come to that in time, and `Unreachable` when the BMC was found to be silent
        meanwhile: then all who wait are told so, and do not ask it one after the other. That one goes at once for a BMC
        known to be silent that is being asked already, or when too many such are.
        """
        doubted = bool(self._silent_at)
        if doubted and (self.taken or len(_silent) >= MOST_SILENT):
            raise self._said_nothing(doing)
        if doubted:
            _silent.add(self)
        try:
            async with self._alone(doing, deadline):
                may_ask()
                with self._listening():
                    yield
        finally:
            if doubted:
                _silent.discard(self)

    @contextlib.asynccontextmanager
    async def _alone(self, doing: str, deadline: Deadline) -> AsyncIterator[None]:
        began = time.monotonic()
        try:
            async with asyncio.timeout(min(WAIT_SECONDS, deadline.remaining)):
                await self._lock.acquire()
                lock = await self._lock_file()
        except TimeoutError:
            raise self._busy(doing) from None
        try:
            if self._silent_at >= began:
                raise self._said_nothing(doing)
            yield
        finally:
            os.close(lock)
            self._lock.release()

    @contextlib.contextmanager
    def _listening(self) -> Iterator[None]:
        """What becomes of a turn says how the BMC answers."""
        try:
            yield
        except BaseException as error:  # also a cancel, which says nothing of the BMC; passed on
            self._heard(error)
            raise
        self._heard(None)

    def _heard(self, error: BaseException | None) -> None:
        if isinstance(error, Unreachable):
            self._silent_at = time.monotonic()
        elif error is None or isinstance(error, ANSWERS):
            self._silent_at = 0.0
        self._health.note(error)

    def _said_nothing(self, doing: str) -> Unreachable:
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
        """The lock that workers share, as a file descriptor that gives it back when closed. On failure the worker's own
        is given back."""
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
            async with self._alone("ending the session", Deadline.after(END_SECONDS)):
                self._health.write()
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
