"""What every driver of a BMC must do, by capability; see `contract`."""

from __future__ import annotations

from typing import Any

import pytest

from mulligan.activities.drivers.base import BootDevice
from mulligan.activities.errors import InvalidRequest, StaleFence
from mulligan.activities.values import Firmware
from tests.drivers.contract import Inspecting, MarkFactory, PowerContract, soon


class BootTargetContract(Inspecting):
    """The rules of `BootTarget`."""

    async def test_the_next_boot_is_asked_for_and_read_back(self, driver: Any, mark: MarkFactory) -> None:
        """Also when it is asked again, and for another device."""
        for device in (BootDevice.NETWORK, BootDevice.NETWORK, BootDevice.DISK):
            reading = await driver.boot_next(mark(), device, Firmware.ANY, soon())
            assert (reading.device, reading.asked, reading.agrees) == (device, device, True)
        await driver.clear_boot_override(mark(), soon())

    async def test_an_override_is_removed_for_good(self, driver: Any, mark: MarkFactory) -> None:
        """None is left, and removing none is success. A BMC that knows no "none" is left at its disk."""
        await driver.boot_next(mark(), BootDevice.NETWORK, Firmware.ANY, soon())
        for _ in range(2):
            await driver.clear_boot_override(mark(), soon())
            assert (await driver.boot_override(mark(), soon())).device in (None, BootDevice.DISK)

    async def test_an_older_fence_tells_nothing_to_boot(self, driver: Any, mark: MarkFactory) -> None:
        """What the newer claim asked for stays."""
        newer, stale = mark(fence=8), mark(fence=7)
        await driver.boot_next(newer, BootDevice.DISK, Firmware.ANY, soon())
        with pytest.raises(StaleFence):
            await driver.boot_next(stale, BootDevice.NETWORK, Firmware.ANY, soon())
        with pytest.raises(StaleFence):
            await driver.clear_boot_override(stale, soon())
        assert (await driver.boot_override(newer, soon())).device in (None, BootDevice.DISK)
        await driver.clear_boot_override(newer, soon())


class VirtualMediaContract(Inspecting):
    """The rules of `VirtualMedia`."""

    @pytest.fixture
    def media_url(self) -> str:
        """Where the BMC finds an image; the run's id and a name follow."""
        return "http://boot.test"

    async def test_media_go_in_and_out_and_leave_nothing(self, driver: Any, mark: MarkFactory, media_url: str) -> None:
        """Both may be repeated; a later run's image takes the place of an earlier one's."""
        for fence in (1, 2):
            me = mark(fence=fence)
            url = f"{media_url}/{me.run_id}/agent.iso"
            for _ in range(2):
                assert (await driver.insert_media(me, url, soon())).url == url
            assert [each.url for each in await driver.media(soon()) if each.url] == [url]
            assert len(await driver.remains(me.machine_id, soon())) == 1
        for _ in range(2):
            await driver.eject_media(mark(fence=2), soon())
        assert [each.url for each in await driver.media(soon()) if each.url] == []
        assert await driver.remains(mark().machine_id, soon()) == ()

    async def test_media_of_no_run_are_refused(self, driver: Any, mark: MarkFactory, media_url: str) -> None:
        """Such a URL may have been fetched before, for somebody else."""
        with pytest.raises(InvalidRequest):
            await driver.insert_media(mark(), f"{media_url}/agent.iso", soon())

    async def test_an_older_fence_moves_no_media(self, driver: Any, mark: MarkFactory, media_url: str) -> None:
        """Neither in nor out."""
        newer, stale = mark(fence=8), mark(fence=7)
        await driver.insert_media(newer, f"{media_url}/{newer.run_id}/agent.iso", soon())
        with pytest.raises(StaleFence):
            await driver.eject_media(stale, soon())
        with pytest.raises(StaleFence):
            await driver.insert_media(stale, f"{media_url}/{stale.run_id}/agent.iso", soon())
        assert len(await driver.remains(newer.machine_id, soon())) == 1
        await driver.eject_media(newer, soon())


class ServerContract(PowerContract, BootTargetContract):
    """What every driver of a BMC must do."""
