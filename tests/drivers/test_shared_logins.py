"""One BMC and one credential, by several drivers or with several settings: it is one account that could be locked."""

from __future__ import annotations

import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mulligan.activities.drivers import logins
from mulligan.activities.drivers.kept import Kept
from mulligan.activities.drivers.registry import open_driver
from mulligan.activities.errors import AccessDenied, Busy
from mulligan.activities.values import Target
from tests.drivers.bmc.machine import Machine
from tests.drivers.bmc.parts import a_mark, a_target, credentials_in
from tests.drivers.bmc.server import LyingBmc
from tests.drivers.contract import soon

PINNED = "a" * 64


@pytest.fixture
def bmc() -> Iterator[LyingBmc]:
    """A BMC with one machine."""
    with LyingBmc(Machine("1")).listening() as running:
        yield running


class Worker:
    """What opens drivers, and closes them all at the end; the password is right unless another is given."""

    def __init__(self, folder: Path, ending: AsyncExitStack) -> None:
        self._folder, self._ending, self._kept = folder, ending, Kept()
        ending.push_async_callback(self._kept.close)

    async def opened(self, target: Target, **password: str) -> Any:
        """A driver, that shares what those of one worker share."""
        credentials = credentials_in(self._folder, **password)
        driver = await open_driver(target, state_dir=self._folder, credentials=credentials, kept=self._kept)
        self._ending.push_async_callback(driver.close)
        return driver


@pytest.fixture
async def worker(tmp_path: Path) -> AsyncIterator[Worker]:
    """A worker that has just begun."""
    async with AsyncExitStack() as ending:
        yield Worker(tmp_path, ending)


async def test_a_setting_does_not_send_a_bad_password_again(bmc: LyingBmc, worker: Worker) -> None:
    """`provider set`, or two providers of one chassis that differ in how its certificate is checked."""
    for settings in ({}, {"verify": "off"}, {"ca": "/no/such/file"}, {"fingerprint": PINNED}):
        driver = await worker.opened(a_target(bmc, **settings), password="wrong")
        with pytest.raises(Busy, match="HTTP 401"):
            await driver.power(a_mark(), soon())
        with pytest.raises(AccessDenied, match="not asked for"):
            await driver.inspect(soon())
    assert bmc.refused_logins == 1
    corrected = await worker.opened(a_target(bmc, verify="off"))
    await corrected.power(a_mark(), soon())


async def test_a_password_that_redfish_refused_is_not_sent_over_ipmi(bmc: LyingBmc, worker: Worker) -> None:
    """The host is the same, as in the BMC's lane; here the port too, which is not the usual one of either."""
    redfish = await worker.opened(a_target(bmc), password="wrong")
    with pytest.raises(Busy):
        await redfish.power(a_mark(), soon())
    host, _, port = bmc.url.rpartition("//")[2].partition(":")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listening:
        listening.bind((host, int(port)))
        listening.setblocking(False)
        ipmi = await worker.opened(replace(a_target(bmc), url=f"ipmi://{host}:{port}"), password="wrong")
        with pytest.raises(Busy, match=r"the next log-in is in .*HTTP 401"):
            await ipmi.power(a_mark(), soon())
        with pytest.raises(BlockingIOError):
            listening.recv(1)


async def test_a_session_that_lives_goes_on_and_proves_no_password(
    bmc: LyingBmc, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was begun before the BMC refused another one. When it ends, it asks for no other before it is time."""
    lives = await worker.opened(a_target(bmc))
    await lives.power(a_mark(), soon())
    bmc.lies.refuses_logins = 10**6
    refused = await worker.opened(a_target(bmc, verify="off"))
    for _ in range(2):
        with pytest.raises(Busy, match="HTTP 401"):
            await refused.power(a_mark(), soon())
        await lives.power(a_mark(), soon())
    bmc.expire_sessions()
    for _ in range(2):
        with pytest.raises(Busy, match="the next log-in is in"):
            await lives.power(a_mark(), soon())
    assert bmc.refused_logins == 1
    bmc.lies.refuses_logins, later = 0, time.monotonic() + logins.REFUSED_SECONDS[0]
    monkeypatch.setattr(logins, "time", SimpleNamespace(monotonic=lambda: later))
    await lives.power(a_mark(), soon())
    await refused.power(a_mark(), soon())
    assert bmc.opened == 3


async def test_a_session_that_ends_makes_a_wrong_password_wait_no_longer(
    bmc: LyingBmc, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is told what another was refused, which is no refusal of its own: nothing was sent."""
    monkeypatch.setattr(logins, "REFUSED_SECONDS", (0.0,))
    lives = await worker.opened(a_target(bmc))
    refused = await worker.opened(a_target(bmc, verify="off"))
    await lives.power(a_mark(), soon())
    bmc.lies.refuses_logins = 10**6
    for kind in (Busy, AccessDenied):
        with pytest.raises(kind):
            await refused.power(a_mark(), soon())
    await lives.power(a_mark(), soon())
    bmc.expire_sessions()
    for _ in range(2):
        with pytest.raises(AccessDenied, match="not asked for"):
            await lives.power(a_mark(), soon())
    assert bmc.refused_logins == 2
    bmc.lies.refuses_logins, later = 0, time.monotonic() + logins.WRONG_SECONDS
    monkeypatch.setattr(logins, "time", SimpleNamespace(monotonic=lambda: later))
    await lives.power(a_mark(), soon())


async def test_a_password_that_goes_with_each_question_is_taken_with_its_answer(bmc: LyingBmc, worker: Worker) -> None:
    """By a BMC without sessions."""
    bmc.lies.no_sessions = True
    driver = await worker.opened(a_target(bmc))
    await driver.power(a_mark(), soon())
    bmc.lies.refuses_session = 1
    with pytest.raises(Busy, match="it took this password before"):
        await driver.power(a_mark(), soon())
