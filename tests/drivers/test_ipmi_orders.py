"""Orders for power over IPMI that show late, or are lost, and a BMC that says "off" of a machine that runs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mulligan.activities.drivers import orders
from mulligan.activities.drivers.ipmi import conversation
from mulligan.activities.drivers.ipmi import driver as drivers
from mulligan.activities.drivers.ipmi.driver import CHASSIS
from mulligan.activities.drivers.lane import bmc_name
from mulligan.activities.drivers.orders import Orders
from mulligan.activities.errors import AccessDenied, Busy, Unreachable
from mulligan.activities.values import PowerState
from tests.drivers.ipmi_parts import a_mark, nothing_left, opened, served, soon


@pytest.fixture(autouse=True)
async def nothing_is_left() -> AsyncIterator[None]:
    """Every test ends without a process, a thread or a pipe of the driver."""
    async with nothing_left():
        yield


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Every change that the BMC made."""
    path = tmp_path / "changes"
    path.touch()
    return path


def made(log: Path) -> str:
    """What the BMC did, a line for each change."""
    return log.read_text()


def left_on(folder: Path, port: int) -> None:
    """A worker left the machine on, some time ago."""
    Orders(folder / "ipmi", bmc_name("127.0.0.1", port, 623)).end(CHASSIS, "earlier")


async def test_an_off_while_another_worker_s_order_may_yet_show_is_not_believed(
    tmp_path: Path, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The undo waits for it, and switches the machine off."""
    monkeypatch.setattr(drivers, "SETTLE_SECONDS", 0.0)
    with served(lies=["shows-when-told"], log=str(log)) as port:
        async with opened(port, tmp_path) as one, opened(port, tmp_path) as other:  # each with its own conversation
            await one.power(a_mark(), soon())
            await other.power(a_mark(), soon())
            with pytest.raises(Busy, match="still says off"):
                await one.power_on(a_mark(), soon())
            with pytest.raises(Busy, match="still says off"):
                await other.power_off(a_mark(), soon())
            log.with_suffix(".shows").touch()
            monkeypatch.setattr(drivers, "SETTLE_SECONDS", 5.0)
            await other.power_off(a_mark(), soon())
    assert made(log) == "power on\npower off\n"


async def test_the_off_of_a_bmc_that_may_have_restarted_is_not_believed(tmp_path: Path, log: Path) -> None:
    """By another worker, which has no session in which the machine was on: it is switched off once."""
    with served(lies=[], log=str(log)) as port:
        async with opened(port, tmp_path) as driver:
            await driver.power_on(a_mark(), soon())
            log.with_suffix(".off").touch()
            assert not (await driver.power(a_mark(), soon())).doubtful
        async with opened(port, tmp_path) as driver:
            reading = await driver.power(a_mark(), soon())
            assert (reading.state, reading.doubtful) == (PowerState.OFF, True)
            for _ in range(2):
                await driver.power_off(a_mark(), soon())
            assert not (await driver.power(a_mark(), soon())).doubtful
    assert made(log) == "power on\npower off\n"


async def test_the_off_of_a_bmc_that_was_there_all_the_time_is_believed(tmp_path: Path, log: Path) -> None:
    """Also by a worker that saw the machine on in its own session."""
    with served(lies=[], log=str(log)) as port:
        async with opened(port, tmp_path) as one, opened(port, tmp_path) as other:
            await one.power_on(a_mark(), soon())
            await other.power(a_mark(), soon())
            log.with_suffix(".off").touch()
            await other.power_off(a_mark(), soon())
    assert made(log) == "power on\n"


async def test_a_bmc_that_was_silent_for_another_worker_may_have_restarted(
    tmp_path: Path, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker whose session goes on does not believe its "off" either."""
    monkeypatch.setattr(conversation, "OTHER_SECONDS", 1.5)
    with served(lies=[], log=str(log)) as port:
        async with opened(port, tmp_path) as one, opened(port, tmp_path) as other:
            await other.power(a_mark(), soon())
            await one.power_on(a_mark(), soon())
            log.with_suffix(".mute").touch()
            with pytest.raises(Unreachable):
                await other.power(a_mark(), soon())
            log.with_suffix(".mute").unlink()
            log.with_suffix(".off").touch()
            await one.power_off(a_mark(), soon())
    assert made(log) == "power on\npower off\n"


async def test_an_off_that_is_doubted_does_not_prove_an_order_that_was_lost(
    tmp_path: Path, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is given again once it can no more be expected to show."""
    with served(lies=["loses"], log=str(log)) as port:
        left_on(tmp_path, port)
        async with opened(port, tmp_path) as driver:
            with pytest.raises(Unreachable, match="to the order to switch off"):
                await driver.power_off(a_mark(), soon())
            with pytest.raises(Busy, match="the answer to the order was lost"):
                await driver.power_off(a_mark(), soon())
            assert made(log) == ""
            monkeypatch.setattr(orders, "PATIENCE_SECONDS", 0.0)
            for _ in range(2):
                await driver.power_off(a_mark(), soon())
    assert made(log) == "power off\n"


async def test_a_refusal_to_switch_off_what_is_off_is_believed_the_second_time(
    tmp_path: Path, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The state forbids it (0xD5); what is busy in between, or does not let the user, says nothing of the power."""
    lies = ["code-d5", "code-c0", "code-d4", "code-d5", "code-d5"]
    with served(lies=lies, log=str(log)) as port:
        left_on(tmp_path, port)
        async with opened(port, tmp_path) as driver:
            for said in (r"does not take the order \(code 0xd5\)", "did not take the order"):
                with pytest.raises(Busy, match=f"may have restarted since it was on; it {said}"):
                    await driver.power_off(a_mark(), soon())
            monkeypatch.setattr(drivers, "APART_SECONDS", 0.0)
            for kind, said in ((Busy, "0xc0"), (AccessDenied, "0xd4"), (Busy, "0xd5")):
                with pytest.raises(kind, match=said):
                    await driver.power_off(a_mark(), soon())
            for _ in range(2):
                await driver.power_off(a_mark(), soon())
    assert made(log) == ""


async def test_a_refusal_that_lasts_is_believed_whatever_its_reason(
    tmp_path: Path, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A guest that powered itself off could never be released otherwise."""
    with served(lies=["code-ff"] * 9, log=str(log)) as port:
        left_on(tmp_path, port)
        async with opened(port, tmp_path) as driver:
            for _ in range(2):
                with pytest.raises(Busy, match="0xff"):
                    await driver.power_off(a_mark(), soon())
            monkeypatch.setattr(orders, "BALKED_SECONDS", 0.0)
            await driver.power_off(a_mark(), soon())
    assert made(log) == ""
