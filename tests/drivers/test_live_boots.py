"""What servers' drivers say of live images: which they can boot, and that every boot from now on is from there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mulligan.activities.drivers.base import CAPABILITIES, BootDevice, LastingBoot
from mulligan.activities.drivers.booting import BootFrom, agent_capabilities
from mulligan.activities.values import Firmware
from tests.drivers.bmc.machine import Machine
from tests.drivers.bmc.parts import a_mark, opened
from tests.drivers.bmc.server import LyingBmc
from tests.drivers.contract import soon

MACS = ("52:54:00:00:00:01",)
LIVE, ISO = "boot.live", "boot.live-iso"
MEDIA, NETWORK = BootFrom.VIRTUAL_MEDIA, BootFrom.NETWORK


@pytest.mark.parametrize(
    ("boots", "boot_from", "firmware", "live"),
    [
        (("boot.virtual-media",), BootFrom.AUTO, ("firmware.uefi",), {LIVE, ISO}),
        (("boot.network",), BootFrom.AUTO, ("firmware.bios",), {LIVE, ISO}),
        (("boot.network",), BootFrom.AUTO, ("firmware.uefi",), {LIVE}),
        (("boot.network", "boot.virtual-media"), NETWORK, ("firmware.uefi",), {LIVE}),
        (("boot.network",), MEDIA, ("firmware.bios",), set()),
        ((), BootFrom.AUTO, ("firmware.bios",), set()),
    ],
    ids=["media", "network-bios", "network-uefi", "told-network-uefi", "no-media", "nothing"],
)
def test_an_iso_is_booted_from_media_or_by_bios(
    boots: tuple[str, ...], boot_from: BootFrom, firmware: tuple[str, ...], live: set[str]
) -> None:
    """A kernel wherever the deploy agent is."""
    found = agent_capabilities(boots, boot_from, MACS, firmware)
    assert found & {LIVE, ISO} == live
    assert ("deploy.agent" in found) == bool(live)
    assert found <= set(CAPABILITIES)


@dataclass
class OnceOnly(Machine):
    """A server whose BMC says that it overrides one boot and no more."""

    def system(self) -> dict[str, Any]:
        found = super().system()
        found["Boot"]["BootSourceOverrideEnabled@Redfish.AllowableValues"] = ["Disabled", "Once"]
        return found


@pytest.fixture(params=[Machine, OnceOnly], ids=["continuous", "once"])
def bmc(request: pytest.FixtureRequest) -> Iterator[LyingBmc]:
    """A BMC of either sort."""
    with LyingBmc(request.param("1")).listening() as running:
        yield running


async def test_every_boot_is_asked_for_where_that_is_offered(bmc: LyingBmc, tmp_path: Path) -> None:
    """Sent once; asked again, it is there already; cleared, there is none."""
    machine, offered = bmc.machine, not isinstance(bmc.machine, OnceOnly)
    async with opened(bmc, tmp_path) as driver:
        assert isinstance(driver, LastingBoot)
        for _ in range(2):
            reading = await driver.boot_always(a_mark(), BootDevice.VIRTUAL_MEDIA, Firmware.UEFI, soon())
            assert (reading.agrees, reading.once) == (True, not offered)
        assert machine.enabled == ("Continuous" if offered else "Once")
        assert len(bmc.changes()) == 1
        await driver.clear_boot_override(a_mark(), soon())
    assert machine.enabled == "Disabled"


async def test_one_boot_is_asked_for_where_every_boot_is_refused(tmp_path: Path) -> None:
    """A BMC that does not say what it offers answers 400: it is asked for one boot, and the reading says so. Asked
    again, one boot is there already."""
    with LyingBmc(Machine("1")).listening() as bmc:
        bmc.lies.refuses_continuous = True
        async with opened(bmc, tmp_path) as driver:
            for _ in range(2):
                reading = await driver.boot_always(a_mark(), BootDevice.VIRTUAL_MEDIA, Firmware.UEFI, soon())
                assert (reading.agrees, reading.once) == (True, True)
            sent = [(each.body["Boot"]["BootSourceOverrideEnabled"], each.answer) for each in bmc.changes()]
            assert sent == [("Continuous", 400), ("Once", 204), ("Continuous", 400)]
            await driver.clear_boot_override(a_mark(), soon())
        assert (bmc.machine.enabled, len(bmc.acts())) == ("Disabled", 2)


async def test_one_boot_after_every_boot_is_asked_for(bmc: LyingBmc, tmp_path: Path) -> None:
    """What stays is not taken for what is wanted once, and the other way round."""
    async with opened(bmc, tmp_path) as driver:
        await driver.boot_always(a_mark(), BootDevice.NETWORK, Firmware.ANY, soon())
        await driver.boot_next(a_mark(), BootDevice.NETWORK, Firmware.ANY, soon())
        assert bmc.machine.enabled == "Once"


async def test_an_answer_that_was_lost_is_not_asked_for_again(bmc: LyingBmc, tmp_path: Path) -> None:
    """The BMC acted, and is looked at."""
    bmc.lies.drops_changes = 1
    async with opened(bmc, tmp_path) as driver:
        reading = await driver.boot_always(a_mark(), BootDevice.VIRTUAL_MEDIA, Firmware.ANY, soon())
    assert reading.agrees
    assert len(bmc.changes()) == 1
