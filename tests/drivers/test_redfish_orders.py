"""Orders for power over Redfish whose answers say nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from mulligan.activities.drivers import orders
from mulligan.activities.drivers.redfish import power
from mulligan.activities.errors import Busy
from tests.drivers.bmc.machine import Machine
from tests.drivers.bmc.parts import a_mark, opened
from tests.drivers.bmc.server import LyingBmc
from tests.drivers.contract import soon


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
