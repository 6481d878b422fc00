"""One request's connection: cut when its time is over, whatever still trickles in, and read up to a size.

The time-outs of requests begin anew with every byte that arrives, so that a BMC which sends one now and then would hold
its lane for ever. A timer shuts the connection down instead, also while TLS or the headers are not finished.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from requests.exceptions import ReadTimeout, RequestException
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection

MOST_BYTES = 16 << 20
"""Of an answer's body. The largest that are asked for have some thousand."""
_PIECE_BYTES = 1 << 16


class TooLong(RequestException):
    """An answer that is larger than any that makes sense."""


class Transport(HTTPAdapter):
    """For all requests to one BMC, each with a connection of its own; `seconds` says how long the next one may take."""

    def __init__(self, seconds: Callable[[], float], fingerprint: str = "") -> None:
        self._seconds = seconds
        self._pinned = {"assert_fingerprint": fingerprint} if fingerprint else {}
        """One certificate that is accepted, whoever signed it."""
        super().__init__()

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """As requests does, with connections that can be cut."""
        kwargs |= self._pinned
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {"http": _PlainPool, "https": _SecurePool}

    def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> requests.Response:
        """The whole answer. Raises `ReadTimeout` when it is not there in time, and `TooLong`."""
        try:
            with _cut_after(self._seconds()):
                answer = super().send(request, *args, **kwargs)
                answer._content = _body(answer)  # as `Response.content` would, without a bound
                return answer
        finally:
            self.poolmanager.clear()  # some BMCs keep connections open although they are asked not to


class _Cut:
    """One request's connection, as the timer sees it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._over = False
        self._socket: socket.socket | None = None

    @property
    def done(self) -> bool:
        """Whether a connection was cut."""
        return self._over and self._socket is not None

    def watch(self, connected: socket.socket) -> None:
        """This is the connection. TLS goes on with its file in an object of its own, hence the duplicate."""
        with self._lock:
            self._socket = connected.dup()
        if self._over:
            self.now()

    def now(self) -> None:
        """The time is over: who waits for the connection finds it at its end."""
        with self._lock, contextlib.suppress(OSError):  # it was at its end already
            self._over = True
            if self._socket is not None:
                self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Nobody waits any more."""
        with self._lock:
            if self._socket is not None:
                self._socket.close()


_cut: ContextVar[_Cut] = ContextVar("cut")


@contextlib.contextmanager
def _cut_after(seconds: float) -> Iterator[None]:
    """Every connection that is made in the block is cut when so many seconds are over."""
    cut = _Cut()
    timer = threading.Timer(seconds, cut.now)
    timer.daemon = True
    timer.start()
    token = _cut.set(cut)
    try:
        yield
    except RequestException:
        if not cut.done:
            raise
    finally:
        _cut.reset(token)
        timer.cancel()
        cut.close()
    if cut.done:
        raise ReadTimeout(f"it did not come to the end of its answer within {seconds:.0f} s")


class _Plain(HTTPConnection):
    def _new_conn(self) -> socket.socket:
        made = super()._new_conn()
        _cut.get().watch(made)
        return made


class _Secure(HTTPSConnection):
    def _new_conn(self) -> socket.socket:
        made = super()._new_conn()
        _cut.get().watch(made)
        return made


class _PlainPool(HTTPConnectionPool):
    ConnectionCls = _Plain


class _SecurePool(HTTPSConnectionPool):
    ConnectionCls = _Secure


def _body(answer: requests.Response) -> bytes:
    pieces, size = [], 0
    for piece in answer.iter_content(_PIECE_BYTES):
        pieces.append(piece)
        size += len(piece)
        if size > MOST_BYTES:
            answer.close()
            raise TooLong(f"it sent more than {MOST_BYTES >> 20} MiB")
    return b"".join(pieces)
