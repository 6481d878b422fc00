"""Orders for power over Redfish whose answers say nothing, and a BMC that says "off" of a machine that runs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from mulligan.activities.drivers import orders
from mulligan.activities.drivers.redfish import power
from mulligan.activities.errors import AccessDenied, Busy, Unreachable
from tests.drivers.bmc.machine import Machine
from tests.drivers.bmc.parts import a_mark, opened
from tests.drivers.bmc.server import LyingBmc
from tests.drivers.contract import soon

LONG = float("inf")


@pytest.fixture
def bmc(monkeypatch: pytest.MonkeyPatch) -> Iterator[LyingBmc]:
    """A BMC; what the driver waits for, it waits for a moment only."""
    monkeypatch.setattr(power, "SETTLE_SECONDS", 0.1)
    monkeypatch.setattr(power, "_LOOK_SECONDS", 0.02)
    with LyingBmc(Machine("1")).listening() as running:
        yield running


def orders_of(bmc: LyingBmc) -> list[str]:
    """What was ordered of the power, oldest first."""
    return [each.body["ResetType"] for each in bmc.changes()]


def restart(bmc: LyingBmc) -> None:
    """The BMC forgets its sessions, and has not looked at its machine yet."""
    bmc.machine.shown_power, bmc.machine.told_at = "Off", LONG
    bmc.expire_sessions()


async def test_an_order_that_the_gateway_gave_up_is_not_given_again(bmc: LyingBmc, tmp_path: Path) -> None:
    """The BMC behind it acted, and tells of it late."""
    bmc.lies.fails_acting, bmc.lies.late_power = 1, 10**6
    async with opened(bmc, tmp_path) as driver:
        for said in ("HTTP 504", "still says Off"):
            with pytest.raises(Busy, match=said):
                await driver.power_on(a_mark(), soon())
        bmc.lies.late_power = 0
        await driver.power_on(a_mark(), soon())
    assert orders_of(bmc) == ["On"]


async def test_an_order_that_a_server_failed_at_is_given_again_in_the_end(
    bmc: LyingBmc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When it can no more be expected to show."""
    bmc.lies.busy, bmc.lies.busy_status = 1, 500
    async with opened(bmc, tmp_path) as driver:
        for said in ("HTTP 500", "still says Off"):
            with pytest.raises(Busy, match=said):
                await driver.power_on(a_mark(), soon())
        monkeypatch.setattr(orders, "PATIENCE_SECONDS", 0.0)
        await driver.power_on(a_mark(), soon())
    assert orders_of(bmc) == ["On", "On"]
    assert bmc.machine.power == "On"


async def test_the_off_of_a_bmc_that_restarted_is_not_believed(bmc: LyingBmc, tmp_path: Path) -> None:
    """The machine was left on: it is switched off all the same, once."""
    async with opened(bmc, tmp_path) as driver:
        await driver.power_on(a_mark(), soon())
        restart(bmc)
        for _ in range(2):
            await driver.power_off(a_mark(), soon())
    assert orders_of(bmc) == ["On", "ForceOff"]
    assert bmc.machine.power == "Off"


async def test_the_off_of_a_bmc_that_was_silent_is_not_believed(bmc: LyingBmc, tmp_path: Path) -> None:
    """Some keep their sessions when they restart."""
    async with opened(bmc, tmp_path) as driver:
        await driver.power_on(a_mark(), soon())
        bmc.lies.drops_reads = 10**6
        with pytest.raises(Unreachable):
            await driver.power(a_mark(), soon())
        bmc.lies.drops_reads = 0
        bmc.machine.shown_power, bmc.machine.told_at = "Off", LONG
        await driver.power_off(a_mark(), soon())
    assert orders_of(bmc) == ["On", "ForceOff"]


async def test_the_off_of_a_bmc_that_never_showed_the_order_on_is_not_believed(
    bmc: LyingBmc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not either when it can no more be expected to show. What was refused was never on."""
    bmc.lies.late_power = 10**6
    async with opened(bmc, tmp_path) as driver:
        with pytest.raises(Busy, match="still says Off"):
            await driver.power_on(a_mark(), soon())
        monkeypatch.setattr(orders, "PATIENCE_SECONDS", 0.0)
        await driver.power_off(a_mark(), soon())
        assert bmc.machine.power == "Off"
        bmc.lies.busy = 1
        with pytest.raises(Busy, match="HTTP 503"):
            await driver.power_on(a_mark(), soon())
        await driver.power_off(a_mark(), soon())
    assert orders_of(bmc) == ["On", "ForceOff", "On"]


async def test_the_off_of_a_bmc_that_was_there_all_the_time_is_believed(bmc: LyingBmc, tmp_path: Path) -> None:
    """A machine may switch itself off. So is that of one that nobody here switched on."""
    async with opened(bmc, tmp_path) as driver:
        await driver.power_off(a_mark(), soon())
        await driver.power_on(a_mark(), soon())
        bmc.machine.power = bmc.machine.shown_power = "Off"
        await driver.power_off(a_mark(), soon())
    assert orders_of(bmc) == ["On"]


@pytest.mark.parametrize("status", [400, 409])
async def test_a_refusal_to_switch_off_what_is_off_ends_at_the_second_look(
    bmc: LyingBmc, tmp_path: Path, status: int
) -> None:
    """Some refuse it. The next attempt, some seconds later, reads once more and sends nothing."""
    async with opened(bmc, tmp_path) as driver:
        await driver.power_on(a_mark(), soon())
        bmc.machine.power = "Off"
        restart(bmc)
        bmc.lies.busy, bmc.lies.busy_status, bmc.lies.busy_text = 1, status, "it is off"
        with pytest.raises(Busy, match="may have restarted since it was on") as error:
            await driver.power_off(a_mark(), soon())
        assert error.value.after_seconds > 0
        await driver.power_off(a_mark(), soon())
    assert orders_of(bmc) == ["On", "ForceOff"]


async def test_a_bmc_that_asks_for_patience_is_ordered_off_again(bmc: LyingBmc, tmp_path: Path) -> None:
    """It did not say that the machine is off, nor does one that does not let the user do it."""
    async with opened(bmc, tmp_path) as driver:
        await driver.power_on(a_mark(), soon())
        restart(bmc)
        bmc.lies.busy = 1
        with pytest.raises(Busy, match="HTTP 503"):
            await driver.power_off(a_mark(), soon())
        bmc.lies.forbids = True
        with pytest.raises(AccessDenied):
            await driver.power_off(a_mark(), soon())
        bmc.lies.forbids = False
        await driver.power_off(a_mark(), soon())
    assert orders_of(bmc) == ["On", "ForceOff", "ForceOff", "ForceOff"]
    assert bmc.machine.power == "Off"
