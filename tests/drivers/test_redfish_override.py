"""Boot overrides as makers have them over Redfish: in a settings resource, with a fixed mode, refused in POST."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from mulligan.activities.drivers.base import BootDevice
from mulligan.activities.errors import Busy, Unreachable, Unsupported
from mulligan.activities.values import Firmware
from tests.drivers.bmc.machine import Machine
from tests.drivers.bmc.parts import a_mark, opened
from tests.drivers.bmc.server import LyingBmc
from tests.drivers.contract import soon

NONE = {
    "BootSourceOverrideTarget": "None",
    "BootSourceOverrideEnabled": "Disabled",
    "BootSourceOverrideMode": "UEFI",
}
NETWORK = {**NONE, "BootSourceOverrideTarget": "Pxe", "BootSourceOverrideEnabled": "Once"}


@pytest.fixture
def bmc() -> Iterator[LyingBmc]:
    """A BMC with one machine."""
    with LyingBmc(Machine("1")).listening() as running:
        yield running


async def test_an_override_in_the_settings_resource_is_read_back_there(bmc: LyingBmc, tmp_path: Path) -> None:
    """The system itself says so only once it starts. The same again sends nothing."""
    bmc.machine.pending = dict(NONE)
    async with opened(bmc, tmp_path) as driver:
        for _ in range(2):
            said = await driver.boot_next(a_mark(), BootDevice.NETWORK, Firmware.UEFI, soon())
            assert (said.agrees, said.once, said.detail) == (True, True, "Pxe, Once, UEFI")
        assert (await driver.boot_override(a_mark(), soon())).device is BootDevice.NETWORK
    assert bmc.machine.pending == NETWORK
    assert [each.path for each in bmc.changes()] == [f"{bmc.machine.path}/SD"]
    assert bmc.machine.enabled == "Disabled"


@pytest.mark.parametrize(("maker", "word"), [("Supermicro", "UsbCd"), ("Contoso", "Cd")])
async def test_a_system_that_does_not_say_what_it_boots_from_is_asked_all_the_same(
    bmc: LyingBmc, tmp_path: Path, maker: str, word: str
) -> None:
    """For a CD in its maker's word, also again."""
    boot = {**NONE}
    bmc.machine.more = {"Manufacturer": maker, "Boot": boot}
    bmc.plot = lambda _method, _path, body: boot.update(body.get("Boot", {}))
    async with opened(bmc, tmp_path) as driver:
        for _ in range(2):
            said = await driver.boot_next(a_mark(), BootDevice.VIRTUAL_MEDIA, Firmware.UEFI, soon())
            assert (said.agrees, said.detail) == (True, f"{word}, Once, UEFI")
        await driver.clear_boot_override(a_mark(), soon())
    assert [each.body["Boot"].get("BootSourceOverrideTarget") for each in bmc.changes()] == [word, None]


async def test_an_override_that_the_firmware_took_is_asked_for_again(bmc: LyingBmc, tmp_path: Path) -> None:
    """After its start system and settings say the same, whether it is still to come or not."""
    bmc.machine.pending = dict(NONE)
    async with opened(bmc, tmp_path) as driver:
        await driver.boot_next(a_mark(), BootDevice.NETWORK, Firmware.UEFI, soon())
        await driver.power_on(a_mark(), soon())
        await driver.power_off(a_mark(), soon())
        assert (bmc.machine.target, bmc.machine.enabled) == ("Pxe", "Once")
        assert (await driver.boot_next(a_mark(), BootDevice.NETWORK, Firmware.UEFI, soon())).agrees
    assert [each.path.endswith("/SD") for each in bmc.changes()] == [True, False, False, True]


async def test_an_override_in_the_settings_resource_is_removed(bmc: LyingBmc, tmp_path: Path) -> None:
    """Although the system says that there is none."""
    bmc.machine.pending = dict(NETWORK)
    async with opened(bmc, tmp_path) as driver:
        for _ in range(2):
            await driver.clear_boot_override(a_mark(), soon())
        assert (await driver.boot_override(a_mark(), soon())).device is None
    assert bmc.machine.pending["BootSourceOverrideEnabled"] == "Disabled"
    assert len(bmc.changes()) == 1


@pytest.mark.parametrize("pending", [{}, {"BootSourceOverrideTarget": None}], ids=["none", "nothing"])
async def test_settings_that_say_nothing_of_the_override_leave_it_to_the_system(
    bmc: LyingBmc, tmp_path: Path, pending: dict[str, str]
) -> None:
    """Many have such a resource for other things."""
    bmc.machine.pending = pending
    bmc.machine.target, bmc.machine.enabled = "Pxe", "Once"
    async with opened(bmc, tmp_path) as driver:
        assert (await driver.boot_override(a_mark(), soon())).detail == "Pxe, Once, UEFI"
        assert (await driver.boot_next(a_mark(), BootDevice.NETWORK, Firmware.UEFI, soon())).agrees
        assert bmc.changes() == []


async def test_a_mode_that_cannot_be_written_and_is_so_already_is_left_out(bmc: LyingBmc, tmp_path: Path) -> None:
    """After it was refused: without it others fall back to another mode. A mode that is not so is not to be had."""
    bmc.machine.fixed_mode = True
    async with opened(bmc, tmp_path) as driver:
        assert (await driver.boot_next(a_mark(), BootDevice.NETWORK, Firmware.UEFI, soon())).agrees
        assert [each.body["Boot"].get("BootSourceOverrideMode") for each in bmc.changes()] == ["UEFI", None]
        with pytest.raises(Unsupported, match="read only"):
            await driver.boot_next(a_mark(), BootDevice.DISK, Firmware.BIOS, soon())
    assert len(bmc.acts()) == 1


async def test_clearing_is_not_turned_into_another_override_by_a_busy_bmc(bmc: LyingBmc, tmp_path: Path) -> None:
    """Its 400 does not mean that it knows no "none"; one that means that is told to boot from disk."""
    bmc.machine.target, bmc.machine.enabled = "Pxe", "Once"
    bmc.lies.busy, bmc.lies.busy_status, bmc.lies.busy_text = 1, 400, "the system is in POST"
    async with opened(bmc, tmp_path) as driver:
        with pytest.raises(Busy):
            await driver.clear_boot_override(a_mark(), soon())
        assert (len(bmc.changes()), bmc.machine.target) == (1, "Pxe")
        bmc.lies.busy, bmc.lies.busy_text = 1, "PropertyValueNotInList"
        await driver.clear_boot_override(a_mark(), soon())
    assert (len(bmc.changes()), bmc.machine.target) == (3, "Hdd")


async def test_every_boot_is_not_turned_into_one_by_a_busy_bmc(bmc: LyingBmc, tmp_path: Path) -> None:
    """It is asked again, and then takes what stays."""
    bmc.lies.busy, bmc.lies.busy_status, bmc.lies.busy_text = 1, 400, "the system is in POST"
    async with opened(bmc, tmp_path) as driver:
        with pytest.raises(Busy):
            await driver.boot_always(a_mark(), BootDevice.NETWORK, Firmware.UEFI, soon())
        assert not (await driver.boot_always(a_mark(), BootDevice.NETWORK, Firmware.UEFI, soon())).once
    assert [each.body["Boot"]["BootSourceOverrideEnabled"] for each in bmc.changes()] == ["Continuous"] * 2


STANDS = [
    ("Pxe", "Continuous", "UEFI", "once"),
    ("Pxe", "Once", "UEFI", "always"),
    ("Pxe", "Once", "Legacy", "once"),
    ("Hdd", "Once", "UEFI", "once"),
    ("Utilities", "Once", "UEFI", "clear"),
]


@pytest.mark.parametrize(("target", "enabled", "mode", "asked"), STANDS)
async def test_what_stood_before_is_no_proof_of_what_was_asked(
    bmc: LyingBmc, tmp_path: Path, target: str, enabled: str, mode: str, asked: str
) -> None:
    """When the answer is lost, and nothing was done: the device alone is not enough. The next attempt has it."""
    bmc.machine.target, bmc.machine.enabled, bmc.machine.mode = target, enabled, mode
    async with opened(bmc, tmp_path) as driver:

        async def ask() -> None:
            if asked == "clear":
                await driver.clear_boot_override(a_mark(), soon())
            else:
                boot = driver.boot_next if asked == "once" else driver.boot_always
                assert (await boot(a_mark(), BootDevice.NETWORK, Firmware.UEFI, soon())).agrees

        bmc.lies.drops_changes = bmc.lies.forgets_override = 1
        with pytest.raises(Unreachable):
            await ask()
        await ask()
    wanted = {"once": "Once", "always": "Continuous", "clear": "Disabled"}[asked]
    assert (bmc.machine.enabled, bmc.machine.mode, len(bmc.changes())) == (
        wanted,
        mode if asked == "clear" else "UEFI",
        2,
    )


async def test_a_lost_answer_to_what_was_done_is_enough(bmc: LyingBmc, tmp_path: Path) -> None:
    """Nothing is sent twice."""
    bmc.machine.target, bmc.machine.enabled, bmc.machine.mode = "Pxe", "Continuous", "Legacy"
    bmc.lies.drops_changes = 1
    async with opened(bmc, tmp_path) as driver:
        said = await driver.boot_next(a_mark(), BootDevice.NETWORK, Firmware.UEFI, soon())
        assert (said.agrees, said.once) == (True, True)
    assert len(bmc.changes()) == 1
