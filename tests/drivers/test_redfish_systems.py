"""Which of the systems behind a BMC is taken for the server: never another one in its place."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from mulligan.activities.errors import InvalidRequest, MulliganError
from mulligan.activities.values import PowerState
from tests.drivers.bmc.machine import Machine
from tests.drivers.bmc.parts import a_mark, a_target, opened
from tests.drivers.bmc.server import LyingBmc
from tests.drivers.contract import soon


@pytest.fixture
def bmc() -> Iterator[LyingBmc]:
    """A chassis with two nodes, of which the second one runs."""
    one, two = Machine("1"), Machine("2", serial="SN-4711-B", mac="52:54:00:00:00:02", power="On", shown_power="On")
    with LyingBmc(one, two).listening() as running:
        yield running


@pytest.mark.parametrize(
    "made_up",
    ["123456789", "Not Available", "To be filled by OEM", "Not Applicable", "INVALID", "System Serial Number"],
)
async def test_a_made_up_serial_number_leads_to_no_other_node(bmc: LyingBmc, tmp_path: Path, made_up: str) -> None:
    """It is not kept when the server is added, and counts for nothing where it was kept before."""
    one, two = bmc.machines
    one.serial = two.serial = made_up
    async with opened(bmc, tmp_path) as driver:
        assert "serial" not in (await driver.inspect(soon())).settings
    recorded = a_target(bmc, serial=made_up)
    async with opened(bmc, tmp_path, recorded) as driver:
        assert (await driver.power(a_mark(), soon())).state is PowerState.OFF
        bmc.machines = (two,)
        with pytest.raises(MulliganError, match="no system '1'"):
            await driver.power_off(a_mark(), soon())
    assert two.power == "On"


async def test_a_made_up_serial_number_does_not_say_which_is_meant(bmc: LyingBmc, tmp_path: Path) -> None:
    """Where the URL names none of several: the refusal says why it is not enough."""
    bmc.machines[1].serial = "Default string"
    async with opened(bmc, tmp_path, a_target(bmc, "/redfish/v1", serial="Default string")) as driver:
        with pytest.raises(InvalidRequest, match="'Default string' is no serial number that tells"):
            await driver.power_off(a_mark(), soon())
    assert bmc.changes() == []
