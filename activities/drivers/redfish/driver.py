"""The Redfish driver: the Protocols of `drivers.base`, each call one visit to the BMC's lane."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

import sushy
from sushy.resources.manager.virtual_media import VirtualMedia
from sushy.resources.system.system import System

from mulligan.activities.drivers.base import (
    BootDevice,
    BootReading,
    Deadline,
    MediaReading,
    PowerReading,
    ProgressReading,
)
from mulligan.activities.drivers.fences import Fences
from mulligan.activities.drivers.redfish import absences, boot, media, power
from mulligan.activities.drivers.redfish.address import Address
from mulligan.activities.drivers.redfish.bmc import Bmc
from mulligan.activities.drivers.redfish.inspection import inspect_system
from mulligan.activities.drivers.redfish.shown import shown
from mulligan.activities.drivers.redfish.systems import find_system, serial_of
from mulligan.activities.errors import NotFound
from mulligan.activities.values import Firmware, Inspection, Mark, PowerState

T = TypeVar("T")


class RedfishDriver:
    """One server: Driver, Power, BootTarget, LastingBoot, BootProgress, VirtualMedia; its disks are the agent's."""

    moves_bytes = True

    def __init__(self, name: str, address: Address, bmc: Bmc, fences: Fences, *, shared: bool) -> None:
        self._name = name
        self._address = address
        self._bmc = bmc
        self._fences = fences
        self._shared = shared
        self._open = True
        bmc.lane.join()

    @property
    def _system(self) -> str:
        """The system's name among all: what the fences are kept by."""
        return self._named(self._address.serial)

    def _named(self, serial: str) -> str:
        """The same, were this its serial number; without one it is the only system of its BMC."""
        return f"{self._address.host.name}{self._address.path or f'?serial={serial}'}"

    async def inspect(self, deadline: Deadline) -> Inspection:
        """Read what the BMC says of the server, which a claim may hold: its fence stays, and is told."""

        def look(system: System) -> Inspection:
            found = inspect_system(system, self._address)
            names = {self._named(serial) for serial in (self._address.serial, serial_of(system), "")}
            saw = self._fences.saw_drives if "boot.virtual-media" in found.capabilities else self._fences.saw_none
            for name in names:  # claims are made with what is found now
                saw(name)
            return replace(found, fence=max(map(self._fences.newest, names)))

        return await self._look("looking at the server", deadline, look, registered=False)

    async def remains(self, machine_id: str, deadline: Deadline) -> tuple[str, ...]:
        """The virtual drives that hold an image of the machine's last run."""

        def look(system: System) -> tuple[str, ...]:
            holder = self._fences.holder(self._system)
            if holder is None or holder.machine_id != machine_id:
                return ()
            drives = [media.read_drive(drive) for drive in self._drives(system)]
            return tuple(f"media in {drive.slot}: {shown(drive.url)}" for drive in drives if holder.run_id in drive.url)

        return await self._look(f"listing what remains of machine {machine_id}", deadline, look)

    async def power(self, mark: Mark, deadline: Deadline) -> PowerReading:
        """The server's power."""
        return await self._look("reading the power", deadline, lambda system: power.read_power(self._bmc, system))

    async def power_on(self, mark: Mark, deadline: Deadline) -> None:
        """Switch on, and see it."""
        await self._switch("switching on", mark, PowerState.ON, deadline)

    async def power_off(self, mark: Mark, deadline: Deadline) -> None:
        """Cut the power, and see it."""
        await self._switch("switching off", mark, PowerState.OFF, deadline)

    async def boot_progress(self, mark: Mark, deadline: Deadline) -> ProgressReading | None:
        """The server's boot progress."""
        return await self._look("reading the boot progress", deadline, power.read_progress)

    async def boot_next(self, mark: Mark, device: BootDevice, firmware: Firmware, deadline: Deadline) -> BootReading:
        """Set the override by one PATCH, with the ETag that the BMC gave."""
        asking = f"asking for one boot from {device}"
        return await self._change(asking, mark, deadline, lambda system: boot.boot_next(system, device, firmware))

    async def boot_always(self, mark: Mark, device: BootDevice, firmware: Firmware, deadline: Deadline) -> BootReading:
        """Set the override that stays, likewise."""
        asking = f"asking for every boot from {device}"
        return await self._change(asking, mark, deadline, lambda system: boot.boot_always(system, device, firmware))

    async def boot_override(self, mark: Mark, deadline: Deadline) -> BootReading:
        """Read the override."""
        return await self._look("reading the boot override", deadline, boot.read_boot)

    async def clear_boot_override(self, mark: Mark, deadline: Deadline) -> None:
        """Disable the override."""
        await self._change("removing the boot override", mark, deadline, boot.clear_boot)

    async def media(self, deadline: Deadline) -> tuple[MediaReading, ...]:
        """Read the drives that take a URL, under the system or under its manager."""

        def look(system: System) -> tuple[MediaReading, ...]:
            return tuple(media.read_drive(drive) for drive in media.takers(self._drives(system)))

        return await self._look("reading the virtual drives", deadline, look)

    async def eject_media(self, mark: Mark, deadline: Deadline) -> None:
        """Empty every drive."""

        def eject(system: System) -> None:
            media.eject_all(self._drives(system), self._bmc.orders, deadline)

        await self._change("ejecting virtual media", mark, deadline, eject)

    async def insert_media(self, mark: Mark, url: str, deadline: Deadline) -> MediaReading:
        """Put the URL into the first drive that takes it."""

        def insert(system: System) -> MediaReading:
            return media.insert(self._drives(system), self._bmc.orders, mark, url, deadline)

        return await self._change("inserting virtual media", mark, deadline, insert)

    async def close(self) -> None:
        """Leave the BMC's session; the last one to leave ends it."""
        if self._open:
            self._open = False
            if self._shared:
                await self._bmc.lane.leave(now=False)
            else:
                await self._bmc.close()

    async def _switch(self, doing: str, mark: Mark, wanted: PowerState, deadline: Deadline) -> None:
        await self._change(doing, mark, deadline, lambda system: power.switch(self._bmc, system, wanted, deadline))

    async def _look(self, doing: str, deadline: Deadline, work: Callable[[System], T], *, registered: bool = True) -> T:
        """Run `work` on the system, read afresh. A server that is registered was seen then; any other may have been
        seen by this BMC's session."""
        known = registered or self._system in self._bmc.seen

        def visit(root: sushy.Sushy) -> T:
            return work(self._find(root, known=known))

        return await self._bmc.call(self._name, doing, deadline, visit, known=known)

    async def _change(self, doing: str, mark: Mark, deadline: Deadline, work: Callable[[System], T]) -> T:
        """Run `work` on the system, read afresh, unless a newer claim holds it."""

        def visit(root: sushy.Sushy) -> T:
            system = self._find(root, known=True)
            self._fences.take(self._system, mark)
            return work(system)

        return await self._bmc.call(self._name, doing, deadline, visit, known=True)

    def _find(self, root: sushy.Sushy, *, known: bool) -> System:
        system = find_system(root, self._address, known=known)
        self._bmc.seen.add(self._system)
        return system

    def _drives(self, system: System) -> list[VirtualMedia]:
        """Its virtual drives. Raises `NotFound` where some took URLs and none does now, which is believed late."""
        drives = media.drives_of(system)
        if media.takers(drives):
            self._fences.saw_drives(self._system)
        elif self._fences.had_drives(self._system, absences.BELIEVED_SECONDS) and not any(
            media.read_drive(each).url for each in drives
        ):
            raise NotFound(
                f"{self._name}: the BMC at {self._address.host.url} tells of no virtual drive of the server, which had "
                "some; if it is to have none any more, add the provider again: that is believed some minutes later",
                provider=self._name,
            )
        return drives
