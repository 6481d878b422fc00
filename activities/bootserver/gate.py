"""Who may keep a connection to the boot server: guests that nobody knows share a process with the jobs and the BMCs.

Each connection takes a descriptor of the partition's worker, and so do job files and BMCs' sockets. So a peer, and all
peers together, have so many connections and no more, and a request that does not become whole is not waited for. An
answer may take hours, as long as the peer takes some of it now and then. Nobody has to have a token for any of this.
"""

from __future__ import annotations

import asyncio
import resource
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

TELL_SECONDS = 60.0
"""Between two lines of the log about connections that were refused."""
_SHARE = 4
"""The part of the descriptors that connections may take: with the file that each may be sent, half of all."""

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Limits:
    """What a peer may cost."""

    connections: int = 1024
    """At once, in all: a hundred deployments and two hundred live machines, with a BMC's three connections each. Fewer
    where a quarter of the descriptors are fewer."""
    per_peer: int = 128
    """At once, from one address: a rack of 40 servers behind one, with three connections each."""
    request_seconds: float = 30.0
    """Until the head of a request must be whole, from the connection's beginning or from the answer before; and until
    its body must be, from then on. Common web servers wait between 5 and 75."""
    stalled_seconds: float = 600.0
    """How long a peer may take nothing of what is sent: a BMC reads a medium when its server does."""


class Gate:
    """Lets connections in, for all boot servers of a process: they share its descriptors."""

    def __init__(self, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self._open: list[tuple[socket.socket, str]] = []
        self._refused, self._told = 0, -TELL_SECONDS

    def before(self, make: Callable[[], asyncio.Protocol]) -> Callable[[], asyncio.Protocol]:
        """What makes the protocol of each new connection: the gate, and for whom it lets in what `make` makes."""
        return lambda: _Entrance(self, make)

    def lets_in(self, transport: asyncio.Transport) -> bool:
        """Whether the peer may have another connection; one that is let in counts for as long as its socket is open."""
        sock, peer = transport.get_extra_info("socket"), str(transport.get_extra_info("peername")[0])
        self._open = [each for each in self._open if each[0].fileno() >= 0]
        of_peer = sum(other == peer for _, other in self._open)
        if len(self._open) >= self._most() or of_peer >= self.limits.per_peer:
            self._tell(peer, of_peer)
            return False
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(self.limits.stalled_seconds * 1000))
        self._open.append((sock, peer))
        return True

    def middleware(self) -> Middleware:
        """Drops who does not send the body of a request in time; what is answered meanwhile is answered."""

        @web.middleware
        async def whole_in_time(request: web.Request, handler: Handler) -> web.StreamResponse:
            if request.content.is_eof():
                return await handler(request)
            late = asyncio.get_running_loop().call_later(self.limits.request_seconds, _drop, request)
            try:
                return await handler(request)
            except ConnectionError:
                return web.Response(status=408)  # to nobody: the peer is gone, and it is no error of ours
            finally:
                late.cancel()

        return whole_in_time

    def _most(self) -> int:
        descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        unlimited = descriptors == resource.RLIM_INFINITY
        return self.limits.connections if unlimited else min(self.limits.connections, descriptors // _SHARE)

    def _tell(self, peer: str, of_peer: int) -> None:
        self._refused += 1
        if time.monotonic() - self._told >= TELL_SECONDS:
            counts = {"refused": self._refused, "open_from_it": of_peer, "open": len(self._open)}
            log.warning("a connection was refused, there are too many", peer=peer, **counts)
            self._refused, self._told = 0, time.monotonic()


class _Entrance(asyncio.Protocol):
    """What each new connection meets first."""

    def __init__(self, gate: Gate, make: Callable[[], asyncio.Protocol]) -> None:
        self._gate, self._make = gate, make

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Hand the connection on, or end it at once."""
        line = cast(asyncio.Transport, transport)
        if not self._gate.lets_in(line):
            line.abort()
            return
        behind = self._make()
        line.set_protocol(behind)
        behind.connection_made(line)


def _drop(request: web.Request) -> None:
    if not request.content.is_eof() and request.transport is not None:
        request.transport.abort()
