"""Orders for power over Redfish whose answers say nothing, and a BMC that says "off" of a machine that runs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mulligan.activities.drivers import orders
from mulligan.activities.drivers.redfish import bmc as redfish_bmc
from mulligan.activities.drivers.redfish import power
from mulligan.activities.errors import AccessDenied, Busy, Unreachable
from mulligan.activities.values import PowerState
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


ILO = {"code": "iLO.0.10.ExtendedInfo", "message": "See @Message.ExtendedInfo for more information.",
       "@Message.ExtendedInfo": [{"MessageId": "iLO.2.14.InvalidOperationForSystemState"}]}  # fmt: skip


STANDBY = {"code": "Base.1.8.ResourceInStandby", "message": "The request could not be performed."}


@pytest.mark.parametrize(
    ("status", "text", "error"),
    [(400, "no", {}), (409, "Server is already powered OFF.", {}), (400, "", ILO), (409, "", STANDBY)],
    ids=["plain", "in-words", "ilo", "standby"],
)
async def test_a_refusal_to_switch_off_what_is_off_is_believed_the_second_time(
    bmc: LyingBmc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int, text: str, error: dict[str, Any]
) -> None:
    """Some refuse it. The two are some seconds apart; nothing is sent in between."""
    async with opened(bmc, tmp_path) as driver:
        await driver.power_on(a_mark(), soon())
        bmc.machine.power = "Off"
        restart(bmc)
        bmc.lies.busy, bmc.lies.busy_status, bmc.lies.busy_text, bmc.lies.error = 10**6, status, text, error
        for said in (f"it does not take the order .HTTP {status}.", "it did not take the order"):
            with pytest.raises(Busy, match=f"may have restarted since it was on; {said}") as caught:
                await driver.power_off(a_mark(), soon())
            assert caught.value.after_seconds > 0
        assert orders_of(bmc) == ["On", "ForceOff"]
        monkeypatch.setattr(power, "APART_SECONDS", 0.0)
        for _ in range(2):
            await driver.power_off(a_mark(), soon())
    assert orders_of(bmc) == ["On", "ForceOff", "ForceOff"]


@pytest.mark.parametrize("status", [409, 412, 423])
async def test_a_refusal_that_lasts_is_believed_whatever_its_reason(
    bmc: LyingBmc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    """A guest that powered itself off could never be released otherwise; that the machine starts is no such reason."""
    async with opened(bmc, tmp_path) as driver:
        await driver.power_on(a_mark(), soon())
        bmc.machine.power = "Off"
        restart(bmc)
        bmc.lies.busy, bmc.lies.busy_status, bmc.lies.busy_text = 10**6, status, "conflict"
        for _ in range(2):
            with pytest.raises(Busy):
                await driver.power_off(a_mark(), soon())
        monkeypatch.setattr(orders, "BALKED_SECONDS", 0.0)
        bmc.lies.busy_text = "the system is in POST"
        with pytest.raises(Busy):
            await driver.power_off(a_mark(), soon())
        bmc.lies.busy_text = "conflict"
        with pytest.raises(Busy):
            await driver.power_off(a_mark(), soon())
        await driver.power_off(a_mark(), soon())


async def test_a_refusal_between_two_others_begins_them_anew(
    bmc: LyingBmc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says that the machine runs its own test."""
    monkeypatch.setattr(power, "APART_SECONDS", 0.0)
    async with opened(bmc, tmp_path) as driver:
        await driver.power_on(a_mark(), soon())
        restart(bmc)
        bmc.lies.busy, bmc.lies.busy_status = 3, 400
        for text in ("no", "the system is in POST", "no"):
            bmc.lies.busy_text = text
            with pytest.raises(Busy):
                await driver.power_off(a_mark(), soon())
        await driver.power_off(a_mark(), soon())
    assert bmc.machine.power == "Off"


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (400, "the system is in POST"),
        (400, "iLO.2.30.ResourceNotReadyRetry: try again"),
        (400, "it cannot be powered off now: in use"),
        (409, "resource in use"),
        (423, "locked"),
        (429, "too many requests"),
    ],
)
async def test_a_bmc_that_is_busy_does_not_say_that_the_machine_is_off(
    bmc: LyingBmc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int, text: str
) -> None:
    """However often: it is ordered off until the BMC takes it."""
    monkeypatch.setattr(power, "APART_SECONDS", 0.0)
    async with opened(bmc, tmp_path) as driver:
        await driver.power_on(a_mark(), soon())
        restart(bmc)
        bmc.lies.busy, bmc.lies.busy_status, bmc.lies.busy_text = 2, status, text
        for _ in range(2):
            with pytest.raises(Busy, match=f"HTTP {status}"):
                await driver.power_off(a_mark(), soon())
        await driver.power_off(a_mark(), soon())
    assert bmc.machine.power == "Off"


@pytest.mark.parametrize("how", ["connection dropped", "HTTP 500", "HTTP 502", "HTTP 504"])
async def test_an_off_that_is_doubted_does_not_prove_an_order_that_was_lost(
    bmc: LyingBmc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """It is given again once it can no more be expected to show, until it is answered."""
    async with opened(bmc, tmp_path) as driver:
        await driver.power_on(a_mark(), soon())
        restart(bmc)
        if how == "connection dropped":
            bmc.lies.loses_changes = 1
        else:
            bmc.lies.busy, bmc.lies.busy_status = 1, int(how[-3:])
        with pytest.raises((Busy, Unreachable)):
            await driver.power_off(a_mark(), soon())
        with pytest.raises(Busy, match="the answer to the order was lost"):
            await driver.power_off(a_mark(), soon())
        assert orders_of(bmc) == ["On", "ForceOff"]
        monkeypatch.setattr(orders, "PATIENCE_SECONDS", 0.0)
        for _ in range(2):
            await driver.power_off(a_mark(), soon())
    assert orders_of(bmc) == ["On", "ForceOff", "ForceOff"]
    assert bmc.machine.power == "Off"


async def test_an_order_that_was_lost_as_the_bmc_went_silent_is_not_proved_by_off(
    bmc: LyingBmc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Although it called the machine on when that was ordered off, and nobody here had switched it on."""
    bmc.machine.power = bmc.machine.shown_power = "On"
    async with opened(bmc, tmp_path) as driver:
        await driver.power(a_mark(), soon())
        bmc.lies.loses_changes = 1
        bmc.plot = lambda method, *_: setattr(bmc.lies, "drops_reads", 10**6) if method == "POST" else None
        with pytest.raises(Unreachable):
            await driver.power_off(a_mark(), soon())
        bmc.lies.drops_reads, bmc.plot = 0, lambda *_: None
        restart(bmc)
        with pytest.raises(Busy, match="the answer to the order was lost"):
            await driver.power_off(a_mark(), soon())
        monkeypatch.setattr(orders, "PATIENCE_SECONDS", 0.0)
        await driver.power_off(a_mark(), soon())
    assert bmc.machine.power == "Off"


async def test_an_order_to_switch_off_that_was_on_is_given_once(bmc: LyingBmc, tmp_path: Path) -> None:
    """Its answer is lost, and the BMC, which was there all the time, shows it."""
    async with opened(bmc, tmp_path) as driver:
        await driver.power_on(a_mark(), soon())
        bmc.lies.drops_changes = 1
        for _ in range(2):
            await driver.power_off(a_mark(), soon())
    assert orders_of(bmc) == ["On", "ForceOff"]


async def test_the_off_of_a_bmc_without_sessions_is_believed_where_it_was_asked_all_the_time(
    bmc: LyingBmc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing else would tell that it restarted. After a pause, or its silence, it is doubted, and made sure once."""
    bmc.lies.no_sessions = True
    async with opened(bmc, tmp_path) as driver:
        await driver.power_on(a_mark(), soon())
        bmc.machine.shown_power, bmc.machine.told_at = "Off", LONG
        assert not (await driver.power(a_mark(), soon())).doubtful
        monkeypatch.setattr(redfish_bmc, "UNBROKEN_SECONDS", 0.0)
        assert (await driver.power(a_mark(), soon())).doubtful
        for _ in range(2):
            await driver.power_off(a_mark(), soon())
        await driver.power_on(a_mark(), soon())
        bmc.machine.told_at, bmc.lies.drops_changes = 0.0, 1
        await driver.power_off(a_mark(), soon())
    assert orders_of(bmc) == ["On", "ForceOff", "On", "ForceOff"]


async def test_a_reading_says_whether_it_is_doubtful(bmc: LyingBmc, tmp_path: Path) -> None:
    """Until the machine is seen on again."""
    async with opened(bmc, tmp_path) as driver:
        assert not (await driver.power(a_mark(), soon())).doubtful
        await driver.power_on(a_mark(), soon())
        restart(bmc)
        assert (await driver.power(a_mark(), soon())).doubtful
        bmc.machine.told_at = 0.0
        assert not (await driver.power(a_mark(), soon())).doubtful
        bmc.machine.power = "Off"
        reading = await driver.power(a_mark(), soon())
        assert (reading.state, reading.doubtful) == (PowerState.OFF, False)


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
