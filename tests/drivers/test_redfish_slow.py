"""A Redfish BMC whose answer never comes to its end: it costs no more than the deadline, and no more than a size."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from mulligan.activities.drivers.base import Deadline
from mulligan.activities.drivers.redfish import transport
from mulligan.activities.errors import Unreachable
from mulligan.activities.values import Target
from tests.drivers.bmc.parts import a_mark, opened
from tests.drivers.bmc.server import LyingBmc
from tests.drivers.contract import soon, until

LONGEST = 400
"""So many bytes trickle at most."""


@dataclass
class Endless:
    """Begins an answer, and goes on with it until the other side hangs up."""

    begins: bytes
    then: bytes = b" "
    pause: float = 0.05
    port: int = 0
    asked: int = 0
    hung_up: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def listening(self) -> Iterator[Endless]:
        """On a free port of the loopback address, one after the other."""
        with socket.create_server(("127.0.0.1", 0)) as server:
            self.port = int(server.getsockname()[1])
            thread = threading.Thread(target=self._serve, args=(server,), daemon=True)
            thread.start()
            try:
                yield self
            finally:
                server.shutdown(socket.SHUT_RDWR)
                thread.join()

    def _serve(self, server: socket.socket) -> None:
        with suppress(OSError):
            while True:
                client, _ = server.accept()
                with client, suppress(OSError):
                    client.recv(1 << 16)
                    self.asked += 1
                    client.sendall(self.begins)
                    self._go_on(client)

    def _go_on(self, client: socket.socket) -> None:
        try:
            for _ in range(LONGEST):
                client.sendall(self.then)
                threading.Event().wait(self.pause)
        except OSError:
            self.hung_up.set()

    async def left(self) -> bool:
        """Whether the other side hung up."""
        return self.hung_up.is_set()


def a_target(bmc: Endless, scheme: str = "redfish+http") -> Target:
    """The BMC's system as a provider."""
    return Target("srv-1", "default", f"{scheme}://127.0.0.1:{bmc.port}/redfish/v1/Systems/1", {}, "rack")


@pytest.mark.parametrize(
    ("begins", "scheme"),
    [
        (b"HTTP/1.1 200 OK\r\nX-Trickle: ", "redfish+http"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n{", "redfish+http"),
        (b"HTTP/1.1 200 OK\r\n\r\n{", "redfish+http"),
        (b"\x16\x03\x03\x40\x00", "redfish"),
    ],
    ids=["headers", "body", "body-without-length", "tls"],
)
async def test_an_answer_that_trickles_in_costs_no_more_than_the_deadline(
    tmp_path: Path, begins: bytes, scheme: str
) -> None:
    """Every byte would begin a time-out anew: the connection is cut, and the BMC is asked once."""
    with Endless(begins).listening() as bmc:
        async with opened(LyingBmc(), tmp_path, a_target(bmc, scheme)) as driver:
            with pytest.raises(Unreachable, match="did not come to the end of its answer within 1 s"):
                await driver.power(a_mark(), Deadline.after(1))
        await until(bmc.left)
    assert bmc.asked == 1


async def test_an_answer_without_an_end_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However fast it comes, it ends at a size that no answer has."""
    monkeypatch.setattr(transport, "MOST_BYTES", 1 << 20)
    with Endless(b"HTTP/1.1 200 OK\r\n\r\n", b" " * (1 << 18), 0.0).listening() as bmc:
        async with opened(LyingBmc(), tmp_path, a_target(bmc)) as driver:
            with pytest.raises(Unreachable, match="it sent more than 1 MiB"):
                await driver.power(a_mark(), soon())
        await until(bmc.left)
    assert bmc.asked == 1
