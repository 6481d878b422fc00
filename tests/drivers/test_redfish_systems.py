"""Which of the systems behind a BMC is taken for the server: never another one in its place."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from uuid import UUID

import pytest

from mulligan.activities.errors import Busy, Conflict, InvalidRequest, MulliganError
from mulligan.activities.values import Identity, PowerState
from tests.drivers.bmc.machine import Machine
from tests.drivers.bmc.parts import a_mark, a_target, opened
from tests.drivers.bmc.server import LyingBmc
from tests.drivers.contract import soon

UUIDS = tuple(f"6f1f0b5e-aa01-4f6e-9c1d-1b2c3d4e5f0{number}" for number in (1, 2))


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


async def test_a_serial_number_that_all_nodes_of_a_chassis_have_leads_to_no_other_node(
    bmc: LyingBmc, tmp_path: Path
) -> None:
    """Ours is gone, and the one that is left tells the same number and another UUID: it is left alone."""
    one, two = bmc.machines
    one.uuid, two.uuid = UUIDS
    two.serial = one.serial
    known = replace(a_target(bmc, serial=one.serial), identity=Identity(one.serial, one.uuid))
    async with opened(bmc, tmp_path, known) as driver:
        assert (await driver.power(a_mark(), soon())).state is PowerState.OFF
        bmc.machines = (two,)
        with pytest.raises(MulliganError, match="no system '1'"):
            await driver.power_off(a_mark(), soon())
        two.uuid = str(
            UUID(bytes_le=UUID(one.uuid).bytes)
        )  # it has another id now, is the same, and says so in its way
        assert (await driver.power(a_mark(), soon())).state is PowerState.ON


async def test_a_made_up_serial_number_does_not_say_which_is_meant(bmc: LyingBmc, tmp_path: Path) -> None:
    """Where the URL names none of several: the refusal says why it is not enough."""
    bmc.machines[1].serial = "Default string"
    async with opened(bmc, tmp_path, a_target(bmc, "/redfish/v1", serial="Default string")) as driver:
        with pytest.raises(InvalidRequest, match="'Default string' is no serial number that tells"):
            await driver.power_off(a_mark(), soon())
    assert bmc.changes() == []


@pytest.mark.parametrize("told", ["", None, "Not Specified"])
@pytest.mark.parametrize("path", ["/redfish/v1/Systems/1", "/redfish/v1"])
async def test_a_serial_number_that_is_not_told_yet_is_waited_for(
    bmc: LyingBmc, tmp_path: Path, told: str, path: str
) -> None:
    """BMCs that restart learn it later than they answer. Nothing is done to what may be another machine."""
    async with opened(bmc, tmp_path, a_target(bmc, path, serial="SN-4711-A")) as driver:
        bmc.machine.serial = told
        with pytest.raises(Busy, match=r"system 1 .*tells no serial number now.*it had SN-4711-A") as error:
            await driver.power_on(a_mark(), soon())
        assert error.value.after_seconds > 0 and bmc.changes() == []
        bmc.machine.serial = "SN-4711-A"
        await driver.power_on(a_mark(), soon())
    assert [each.power for each in bmc.machines] == ["On", "On"]


async def test_a_server_that_moved_is_found_while_what_is_in_its_place_tells_nothing(
    bmc: LyingBmc, tmp_path: Path
) -> None:
    """Its serial number and UUID are told elsewhere, so the place is not its own any more. Without a known UUID that
    may be the chassis' number, told by its neighbour first."""
    bmc.machine.serial, bmc.machines[1].uuid = "", UUIDS[1]
    target = a_target(bmc, serial="SN-4711-B")
    async with opened(bmc, tmp_path, replace(target, identity=Identity("SN-4711-B", UUIDS[1]))) as driver:
        assert (await driver.power(a_mark(), soon())).state is PowerState.ON
    async with opened(bmc, tmp_path, target) as driver:
        with pytest.raises(Busy, match=r"system 1 .*tells no serial number now"):
            await driver.power_off(a_mark(), soon())
    assert bmc.changes() == []


async def test_a_server_that_moved_is_found_by_its_number_where_numbers_tell_systems_apart(
    bmc: LyingBmc, tmp_path: Path
) -> None:
    """No UUID is known. All that are there have other numbers, so that it is not their chassis' one."""
    bmc.machines = (*bmc.machines, Machine("3", serial="SN-4711-C", mac="52:54:00:00:00:03"))
    target = a_target(bmc, "/redfish/v1/Systems/7", serial="SN-4711-B")
    async with opened(bmc, tmp_path, target) as driver:
        assert (await driver.power(a_mark(), soon())).state is PowerState.ON
        for odd in ("SN-4711-B", "SN-4711-A", ""):
            bmc.machines[2].serial = odd
            with pytest.raises(MulliganError, match="has no system '7'"):
                await driver.power_off(a_mark(), soon())
    assert bmc.changes() == []


async def test_a_neighbour_with_the_chassis_number_is_left_alone_where_no_uuid_is_known(
    bmc: LyingBmc, tmp_path: Path
) -> None:
    """Whether the number was kept, or seen to be the neighbour's too when the server was added."""
    one, two = bmc.machines
    one.serial = two.serial
    async with opened(bmc, tmp_path) as driver:
        found = (await driver.inspect(soon())).settings
    assert "serial" not in found
    bmc.machines = (two,)
    for settings in (found, {"serial": two.serial}):
        async with opened(bmc, tmp_path, a_target(bmc, **settings)) as driver:
            with pytest.raises(MulliganError, match="no system '1'"):
                await driver.power_off(a_mark(), soon())
    assert two.power == "On" and bmc.changes() == []


async def test_a_number_that_is_not_kept_is_still_told_where_the_server_is(bmc: LyingBmc, tmp_path: Path) -> None:
    """The chassis' number: the address leads to another chassis now, or its BMC restarts."""
    known = replace(a_target(bmc), identity=Identity("SN-4711-A"))
    async with opened(bmc, tmp_path, known) as driver:
        await driver.power_on(a_mark(), soon())
        bmc.machine.serial = "SN-9999"
        with pytest.raises(Conflict, match="SN-9999, not SN-4711-A: another machine"):
            await driver.power_off(a_mark(), soon())
        bmc.machine.serial = ""
        with pytest.raises(Busy, match="tells no serial number now"):
            await driver.power_off(a_mark(), soon())
    assert bmc.machine.power == "On"


@pytest.mark.parametrize("path", ["/redfish/v1/Systems/1", "/redfish/v1"])
@pytest.mark.parametrize("told", ["00000000-0000-0000-0000-000000000000", "not known"])
async def test_a_neighbour_with_the_chassis_number_and_no_uuid_yet_is_left_alone(
    bmc: LyingBmc, tmp_path: Path, told: str, path: str
) -> None:
    """It may be ours, at another place, or not: that is waited for. Then it is told to be the other."""
    one, two = bmc.machines
    two.serial, two.uuid = one.serial, told
    known = replace(a_target(bmc, path, serial=one.serial), identity=Identity(one.serial, UUIDS[0]))
    bmc.machines = (two,)
    async with opened(bmc, tmp_path, known) as driver:
        with pytest.raises(Busy, match=f"system 2 .*tells no UUID now.*it had {UUIDS[0]}") as error:
            await driver.power_off(a_mark(), soon())
        assert error.value.after_seconds > 0
        two.uuid = UUIDS[1]
        with pytest.raises(MulliganError, match=r"no system '1'|0 systems with serial number .* and UUID"):
            await driver.power_off(a_mark(), soon())
        assert two.power == "On" and bmc.changes() == []
        two.uuid = UUIDS[0]
        await driver.power_off(a_mark(), soon())
    assert two.power == "Off"


async def test_a_server_whose_serial_number_is_another_is_left_alone(bmc: LyingBmc, tmp_path: Path) -> None:
    """At once, and for good: it is told, and it is not the one."""
    for each in ("SN-9999", "sn-4711-c"):
        async with opened(bmc, tmp_path, a_target(bmc, serial=each)) as driver:
            with pytest.raises(Conflict, match=f"SN-4711-A, not {each}: another machine"):
                await driver.power_on(a_mark(), soon())
    assert bmc.changes() == []
