"""One connection to one libvirt, and the threads in which its blocking calls run."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import libvirt

from mulligan.activities.drivers.base import Deadline
from mulligan.activities.drivers.libvirt.faults import quiet, speaking
from mulligan.activities.errors import Unreachable
from mulligan.activities.threads import run_in

T = TypeVar("T")

THREADS = 6
OPEN_SECONDS = 30.0
KEEPALIVE_SECONDS = 5
KEEPALIVE_MISSES = 3

_event_loop_lock = threading.Lock()
_event_loop_runs = threading.Event()


def is_remote(url: str) -> bool:
    """Whether the URL names another host."""
    return bool(urlsplit(url).hostname)


def unattended(url: str) -> str:
    """The URL with which no transport ever asks a person for anything."""
    parts = urlsplit(url)
    if not parts.scheme.endswith("+ssh"):
        return url
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    query.setdefault("no_tty", "1")
    return urlunsplit(parts._replace(query=urlencode(query)))


def _turn_event_loop() -> None:
    while True:
        with contextlib.suppress(libvirt.libvirtError):  # a broken connection's callback must not end the others'
            libvirt.virEventRunDefaultImpl()


def _keep_alive(connection: libvirt.virConnect) -> None:
    """Notice a host that vanished: a call in flight fails after the missed answers instead of waiting for ever."""
    with contextlib.suppress(libvirt.libvirtError):  # an old server without keepalive is served without
        connection.setKeepAlive(KEEPALIVE_SECONDS, KEEPALIVE_MISSES)


def _open(url: str) -> libvirt.virConnect:
    quiet()
    if is_remote(url):
        with _event_loop_lock:
            if not _event_loop_runs.is_set():
                libvirt.virEventRegisterDefaultImpl()
                threading.Thread(target=_turn_event_loop, name="libvirt-events", daemon=True).start()
                _event_loop_runs.set()
    connection = libvirt.open(unattended(url))
    if is_remote(url):
        _keep_alive(connection)
    return connection


def _is_alive(connection: libvirt.virConnect) -> bool:
    try:
        return bool(connection.isAlive())
    except libvirt.libvirtError:
        return False


class Link:
    """Calls libvirt in threads of its own; opens again when the connection was lost."""

    def __init__(self, url: str, provider: str) -> None:
        self.url = url
        self.provider = provider
        self._connection: libvirt.virConnect | None = None
        self._opening = asyncio.Lock()
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix=f"libvirt-{provider}")

    async def call(self, doing: str, deadline: Deadline, function: Callable[[libvirt.virConnect], T]) -> T:
        """Run `function` with the connection in a thread; libvirt's errors come out as the domain's."""
        deadline.check(f"{self.provider}: {doing}")
        connection = await self.opened(deadline)
        with speaking(doing, self.provider):
            return await run_in(self._threads, functools.partial(function, connection))

    async def opened(self, deadline: Deadline) -> libvirt.virConnect:
        """The live connection, opened now if there is none."""
        async with self._opening:
            lost = self._connection
            if lost is not None and _is_alive(lost):
                return lost
            self._connection = None
            self._connection = await self._open_within(min(OPEN_SECONDS, deadline.remaining))
            return self._connection

    async def _open_within(self, seconds: float) -> libvirt.virConnect:
        """Open in a thread that may be left behind: a connect has no time-out of its own, and nothing to undo."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[libvirt.virConnect] = loop.create_future()

        def deliver(connection: libvirt.virConnect | None, error: BaseException | None) -> None:
            if answer.done():
                if connection is not None:
                    connection.close()
            elif connection is not None:
                answer.set_result(connection)
            elif error is not None:
                answer.set_exception(error)

        def work() -> None:
            try:
                found: tuple[libvirt.virConnect | None, BaseException | None] = (_open(self.url), None)
            except Exception as error:  # noqa: BLE001 - a thread's boundary: it is raised by who waits
                found = (None, error)
            with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile: nobody waits
                loop.call_soon_threadsafe(deliver, *found)

        threading.Thread(target=work, name=f"libvirt-open-{self.provider}", daemon=True).start()
        with speaking(f"connecting to {self.url}", self.provider):
            try:
                return await asyncio.wait_for(answer, seconds)
            except TimeoutError:
                raise Unreachable(
                    f"{self.provider}: {self.url} did not answer within {seconds:.0f} s; it will be tried again. "
                    f"Try `virsh -c {self.url} version` from this host",
                    provider=self.provider,
                    url=self.url,
                ) from None

    async def close(self) -> None:
        """Close the connection and end the threads; safe to call twice."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(libvirt.libvirtError):  # it may be lost already, which is what is wanted
                await run_in(None, connection.close)
        self._threads.shutdown(wait=False)
