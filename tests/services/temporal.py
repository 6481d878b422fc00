"""A real Temporal server for tests: the embedded one's own command line, on a free port, with a database file."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from mulligan.api.processes.temporal_dev import EmbeddedTemporal, keep_closed_runs, wait_for_namespace

_LANE = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
_PORTS = range(12_000 + _LANE * 4_000, 12_000 + (_LANE + 1) * 4_000)
_turn = itertools.count(os.getpid())


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens on now, and that nobody else is given.

    They lie below the ports that the kernel gives to whoever connects, and each lane of the suite has a range of its
    own: a server may take long to start, and starts again on the same port after it was killed.
    """
    while True:
        port = _PORTS[next(_turn) % len(_PORTS)]
        with socket.socket() as sock, contextlib.suppress(OSError):
            sock.bind(("127.0.0.1", port))
            return port


class TemporalServer:
    """A Temporal development server that a test may kill and start again with its state kept."""

    def __init__(self, directory: Path, **limits: int) -> None:
        """`limits` are those of its history service, e.g. `maxTotalUpdates`, where a test is to reach them."""
        directory.mkdir(parents=True, exist_ok=True)
        self._log = directory / "temporal.log"
        self._embedded = EmbeddedTemporal(f"127.0.0.1:{free_port()}", directory / "temporal.db")
        self._limits = [f"--dynamic-config-value=history.{name}={value}" for name, value in limits.items()]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        """host:port of the frontend."""
        return self._embedded.address

    def start(self) -> None:
        """Start it and wait until it serves the namespace."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [*self._embedded.command(), *self._limits], stdout=log, stderr=log, process_group=0
            )
        try:
            wait_for_namespace(self.address)
        except BaseException:
            self.kill()
            print(self._log.read_text())
            raise
        keep_closed_runs(self.address)

    def kill(self) -> None:
        """`kill -9`, as a crash would."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """End it in peace."""
        self._end(signal.SIGTERM)

    def _end(self, sign: signal.Signals) -> None:
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._process.pid, sign)
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


@contextlib.contextmanager
def running_temporal(directory: Path) -> Iterator[str]:
    """Run a Temporal server with its state in `directory`; gives its address, host:port."""
    with TemporalServer(directory) as server:
        yield server.address
