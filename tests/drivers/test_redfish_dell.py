"""Dell's iDRACs, which take "Cd" for the physical drive: a virtual CD is booted by the attributes of their manager.

The BMC here plays what is told of them in public; no real one was asked.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from mulligan.activities.drivers.base import BootDevice
from mulligan.activities.errors import Busy, Leftover, Unreachable, Unsupported
from mulligan.activities.values import Firmware
from tests.drivers.bmc.machine import FIRST, ONCE, Machine
from tests.drivers.bmc.once import sent_twice
from tests.drivers.bmc.parts import a_mark, opened
from tests.drivers.bmc.server import LyingBmc
from tests.drivers.contract import soon

NORMAL = {FIRST: "Normal", ONCE: "Enabled"}
MEDIA = BootDevice.VIRTUAL_MEDIA


@pytest.fixture(params=[True, False], ids=["linked", "below"])
def bmc(request: pytest.FixtureRequest) -> Iterator[LyingBmc]:
    """A Dell, which links its attributes, or has them below its manager as older firmware does."""
    machine = Machine("1", attributes=dict(NORMAL), links_attributes=request.param)
    with LyingBmc(machine).listening() as running:
        yield running
        assert sent_twice(running.log, 60.0) == []


async def test_the_virtual_cd_is_what_boots(bmc: LyingBmc, tmp_path: Path) -> None:
    """Once: the same again sends nothing, and after its start the server follows its own order."""
    async with opened(bmc, tmp_path) as driver:
        for _ in range(2):
            said = await driver.boot_next(a_mark(), MEDIA, Firmware.UEFI, soon())
            assert (said.agrees, said.once, said.detail) == (True, True, "VCD-DVD, Once, UEFI")
        assert (await driver.boot_override(a_mark(), soon())).device is MEDIA
        assert bmc.machine.boots == "Cd"
        bmc.machine.has_booted()
        assert (await driver.boot_override(a_mark(), soon())).device is None
    assert [(each.path, each.body) for each in bmc.changes()] == [
        (bmc.machine.attributes_path, {"Attributes": {FIRST: "VCD-DVD", ONCE: "Enabled"}})
    ]


async def test_its_own_cd_is_not_taken_for_the_virtual_one(bmc: LyingBmc, tmp_path: Path) -> None:
    """Somebody's override by "Cd" is none of ours, and is removed before: it may have the last word."""
    bmc.machine.target, bmc.machine.enabled = "Cd", "Once"
    async with opened(bmc, tmp_path) as driver:
        said = await driver.boot_override(a_mark(), soon())
        assert (said.device, said.detail) == (None, "Cd, Once, UEFI (none of ours)")
        assert (await driver.boot_next(a_mark(), MEDIA, Firmware.UEFI, soon())).agrees
    assert (bmc.machine.boots, bmc.machine.enabled, len(bmc.changes())) == ("Cd", "Disabled", 2)


async def test_every_boot_is_from_the_virtual_cd_until_it_is_taken_back(bmc: LyingBmc, tmp_path: Path) -> None:
    """One boot is another wish than every boot; what is taken back leaves what Dell delivers."""
    async with opened(bmc, tmp_path) as driver:
        for _ in range(2):
            said = await driver.boot_always(a_mark(), MEDIA, Firmware.UEFI, soon())
            assert (said.agrees, said.once) == (True, False)
        bmc.machine.has_booted()
        assert bmc.machine.boots == "Cd"
        assert (await driver.boot_next(a_mark(), MEDIA, Firmware.UEFI, soon())).once
        await driver.boot_always(a_mark(), MEDIA, Firmware.UEFI, soon())
        for _ in range(2):
            await driver.clear_boot_override(a_mark(), soon())
        assert (await driver.boot_override(a_mark(), soon())).device is None
    assert (bmc.machine.attributes, len(bmc.changes())) == (NORMAL, 4)


@pytest.mark.parametrize("device", [BootDevice.DISK, BootDevice.NETWORK])
async def test_another_device_takes_the_virtual_cds_place(bmc: LyingBmc, tmp_path: Path, device: BootDevice) -> None:
    """By Redfish's own override, as on other servers."""
    async with opened(bmc, tmp_path) as driver:
        await driver.boot_always(a_mark(), MEDIA, Firmware.UEFI, soon())
        said = await driver.boot_next(a_mark(), device, Firmware.UEFI, soon())
        assert (said.agrees, said.once) == (True, True)
        assert bmc.machine.boots == {BootDevice.DISK: "Hdd", BootDevice.NETWORK: "Pxe"}[device]
        assert bmc.machine.attributes == NORMAL
        await driver.boot_next(a_mark(), MEDIA, Firmware.UEFI, soon())
        assert (bmc.machine.boots, bmc.machine.enabled) == ("Cd", "Disabled")


async def test_another_mode_is_asked_for_first(bmc: LyingBmc, tmp_path: Path) -> None:
    """It is not among the attributes."""
    async with opened(bmc, tmp_path) as driver:
        said = await driver.boot_next(a_mark(), MEDIA, Firmware.BIOS, soon())
        assert (said.agrees, said.firmware) == (True, Firmware.BIOS)
    assert (bmc.machine.boots, bmc.machine.mode) == ("Cd", "Legacy")


async def test_what_a_dell_forgets_is_seen(bmc: LyingBmc, tmp_path: Path) -> None:
    """Both that it was told, and that it was told to forget it."""
    async with opened(bmc, tmp_path) as driver:
        bmc.lies.forgets_override = 1
        assert not (await driver.boot_next(a_mark(), MEDIA, Firmware.UEFI, soon())).agrees
        await driver.boot_next(a_mark(), MEDIA, Firmware.UEFI, soon())
        bmc.lies.forgets_override = 1
        with pytest.raises(Leftover, match="still says VCD-DVD, Once"):
            await driver.clear_boot_override(a_mark(), soon())
        await driver.clear_boot_override(a_mark(), soon())
    assert bmc.machine.attributes == NORMAL


async def test_an_answer_that_is_lost_is_looked_for(bmc: LyingBmc, tmp_path: Path) -> None:
    """What was done is not asked for again, and what was not done is none."""
    async with opened(bmc, tmp_path) as driver:
        bmc.lies.drops_changes = 1
        assert (await driver.boot_next(a_mark(), MEDIA, Firmware.UEFI, soon())).agrees
        bmc.lies.drops_changes, bmc.lies.forgets_override = 1, 1
        with pytest.raises(Unreachable):
            await driver.boot_always(a_mark(), MEDIA, Firmware.UEFI, soon())
        assert not (await driver.boot_always(a_mark(), MEDIA, Firmware.UEFI, soon())).once
    assert len(bmc.changes()) == 3


async def test_a_dell_that_is_busy_or_refuses_is_not_told_cd_instead(bmc: LyingBmc, tmp_path: Path) -> None:
    """It would boot its old disk. The refusal is said in its own words."""
    async with opened(bmc, tmp_path) as driver:
        bmc.lies.busy, bmc.lies.busy_status, bmc.lies.busy_text = 1, 400, "SYS518: not ready"
        with pytest.raises(Busy):
            await driver.boot_next(a_mark(), MEDIA, Firmware.UEFI, soon())
        bmc.lies.busy, bmc.lies.busy_text = 1, "the value VCD-DVD is not in the list"
        with pytest.raises(Unsupported, match="VCD-DVD is not in the list"):
            await driver.boot_next(a_mark(), MEDIA, Firmware.UEFI, soon())
    assert (bmc.machine.target, bmc.acts()) == ("None", [])


async def test_attributes_that_a_dell_links_and_has_not_are_waited_for(tmp_path: Path) -> None:
    """It restarts; "Cd" would boot the old disk."""
    with LyingBmc(Machine("1", attributes=dict(NORMAL))).listening() as bmc:
        async with opened(bmc, tmp_path) as driver:
            await driver.boot_override(a_mark(), soon())
            for lacks in ("/iDRAC.Embedded.1", "/Managers/1"):
                bmc.lies.lacks = lacks
                with pytest.raises(Busy):
                    await driver.boot_next(a_mark(), MEDIA, Firmware.UEFI, soon())
            bmc.lies.lacks = ""
            assert (await driver.boot_next(a_mark(), MEDIA, Firmware.UEFI, soon())).agrees


async def test_a_dell_without_the_attribute_is_told_by_redfish(tmp_path: Path) -> None:
    """As any other server."""
    for machine in (Machine("1", attributes={}), Machine("1", attributes={}, links_attributes=False)):
        with LyingBmc(machine).listening() as bmc:
            bmc.lies.lacks = "/Managers/1/Attributes"
            async with opened(bmc, tmp_path) as driver:
                assert (await driver.boot_next(a_mark(), MEDIA, Firmware.UEFI, soon())).detail == "Cd, Once, UEFI"
                await driver.clear_boot_override(a_mark(), soon())
            assert (machine.enabled, len(bmc.changes())) == ("Disabled", 2)
