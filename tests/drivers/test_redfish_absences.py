"""What a Redfish BMC says that it has not, and had: believed when it has said so for some minutes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from mulligan.activities.drivers import logins
from mulligan.activities.drivers.kept import Kept
from mulligan.activities.drivers.redfish import bmc as of_bmc
from mulligan.activities.drivers.redfish.absences import BELIEVED_SECONDS, FORGOTTEN_SECONDS, Absences
from mulligan.activities.drivers.registry import open_driver
from mulligan.activities.errors import Busy, NotFound, Unreachable
from mulligan.activities.values import PowerState
from tests.drivers.bmc.machine import Machine
from tests.drivers.bmc.parts import a_mark, a_target, credentials_in, opened
from tests.drivers.bmc.server import LyingBmc
from tests.drivers.contract import soon

STEP = 15.0


class Clock:
    """A time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The time by which it is judged what a BMC has not."""
    told = Clock()
    monkeypatch.setattr(of_bmc, "Absences", lambda: Absences(told))
    return told


@pytest.fixture
def bmc() -> Iterator[LyingBmc]:
    """A BMC with two machines."""
    one, two = Machine("1"), Machine("2", serial="SN-4711-B", mac="52:54:00:00:00:02")
    with LyingBmc(one, two).listening() as running:
        yield running


async def test_a_part_that_is_not_there_is_waited_for_some_minutes(bmc: LyingBmc, tmp_path: Path, clock: Clock) -> None:
    """However often the BMC says so, while it has its systems. After it was there, it is waited for anew."""
    async with opened(bmc, tmp_path) as driver:
        for _ in range(2):
            bmc.lies.lacks, began = "ComputerSystem.Reset", clock.now
            while clock.now < began + BELIEVED_SECONDS:
                with pytest.raises(Busy, match=r"HTTP 404.*answered so for 5 minutes") as error:
                    await driver.power_on(a_mark(), soon())
                assert error.value.after_seconds > 0
                clock.now += STEP
            for _ in range(2):
                with pytest.raises(NotFound, match="HTTP 404"):
                    await driver.power_on(a_mark(), soon())
            bmc.lies.lacks = ""
            await driver.power_on(a_mark(), soon())
            await driver.power_off(a_mark(), soon())


async def test_a_system_that_is_not_listed_with_the_others_is_waited_for(
    bmc: LyingBmc, tmp_path: Path, clock: Clock
) -> None:
    """A chassis that restarts lists its nodes one after the other: some minutes later it is believed."""
    one, two = bmc.machines
    for path in (one.path, "/redfish/v1"):
        async with opened(bmc, tmp_path, a_target(bmc, path, serial=one.serial)) as driver:
            bmc.machines = (two,)
            with pytest.raises(Busy, match=r"it has 2 \(serial number SN-4711-B\).*BMCs that restart"):
                await driver.power_off(a_mark(), soon())
            bmc.machines = (one, two)
            assert (await driver.power(a_mark(), soon())).state is PowerState.OFF
            bmc.machines = (two,)
            clock.now += BELIEVED_SECONDS
            with pytest.raises(NotFound, match=r"it has 2 \(serial number SN-4711-B\)"):
                await driver.power_off(a_mark(), soon())
            bmc.machines = (one, two)
    assert bmc.changes() == []


async def test_a_404_of_one_node_says_nothing_of_another(bmc: LyingBmc, tmp_path: Path, clock: Clock) -> None:
    """They share a BMC, its session, and what is asked of it."""
    kept, credentials = Kept(), credentials_in(tmp_path)
    one, two = a_target(bmc), replace(a_target(bmc, bmc.machines[1].path), name="srv-2")
    async with AsyncExitStack() as ending:
        ending.push_async_callback(kept.close)
        first, second = [
            await open_driver(each, state_dir=tmp_path, credentials=credentials, kept=kept) for each in (one, two)
        ]
        ending.push_async_callback(first.close)
        ending.push_async_callback(second.close)
        bmc.lies.lacks = "ComputerSystem.Reset"
        with pytest.raises(Busy):
            await first.power_on(a_mark(), soon())
        clock.now += BELIEVED_SECONDS
        with pytest.raises(Busy):
            await second.power_on(a_mark(), soon())
        with pytest.raises(NotFound):
            await first.power_on(a_mark(), soon())


@pytest.mark.parametrize("meanwhile", ["drops_reads", "absent_until", "refuses_logins"])
async def test_a_bmc_that_is_away_meanwhile_has_not_said_so_all_the_time(
    bmc: LyingBmc, tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch, meanwhile: str
) -> None:
    """It does not answer, has nothing at all, or lets nobody in: it is starting, and the time begins anew."""
    monkeypatch.setattr(logins, "REFUSED_SECONDS", (0.0,))
    async with opened(bmc, tmp_path) as driver:
        await driver.power(a_mark(), soon())
        bmc.lies.lacks = "ComputerSystem.Reset"
        with pytest.raises(Busy):
            await driver.power_on(a_mark(), soon())
        setattr(bmc.lies, meanwhile, float("inf"))
        if meanwhile == "refuses_logins":
            bmc.expire_sessions()
        with pytest.raises((Unreachable, Busy)):
            await driver.power_on(a_mark(), soon())
        setattr(bmc.lies, meanwhile, 0)
        clock.now += BELIEVED_SECONDS
        with pytest.raises(Busy, match="HTTP 404"):
            await driver.power_on(a_mark(), soon())


def test_what_was_missing_long_ago_tells_nothing() -> None:
    """An old 404, after which nobody asked, does not make the next one believed."""
    clock = Clock()
    absences = Absences(clock)
    assert not absences.believed("srv-1", "switching on", starting=False)
    clock.now += FORGOTTEN_SECONDS
    assert not absences.believed("srv-1", "switching on", starting=False)
    clock.now += BELIEVED_SECONDS
    assert absences.believed("srv-1", "switching on", starting=False)


def test_a_bmc_that_has_nothing_at_all_is_not_believed() -> None:
    """It is starting: the time begins when it has its systems."""
    clock = Clock()
    absences = Absences(clock)
    for _ in range(2):
        assert not absences.believed("srv-1", "switching on", starting=True)
        clock.now += BELIEVED_SECONDS
    assert absences.believed("srv-1", "switching on", starting=False)
