"""The libvirt driver: the Protocols of `drivers.base`, each call one visit to a thread that speaks with libvirt."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Collection, Mapping
from types import MappingProxyType
from typing import TypeVar

import libvirt

from mulligan.activities.drivers.base import (
    BaseImage,
    ConsoleChunk,
    Deadline,
    LiveSource,
    PowerReading,
    Progress,
    Shape,
    Sighting,
    Sightings,
)
from mulligan.activities.drivers.libvirt import accelerator as accelerators
from mulligan.activities.drivers.libvirt import bases, computers, disks, networks
from mulligan.activities.drivers.libvirt.addresses import SOURCE_SECONDS, SOURCES
from mulligan.activities.drivers.libvirt.console import read_console
from mulligan.activities.drivers.libvirt.inspection import inspection_of
from mulligan.activities.drivers.libvirt.link import Link
from mulligan.activities.drivers.libvirt.pools import DEFAULT as DEFAULT_POOL
from mulligan.activities.drivers.libvirt.pools import Pool, open_pool
from mulligan.activities.drivers.libvirt.transfer import Stopped
from mulligan.activities.errors import InvalidRequest, MulliganError
from mulligan.activities.values import Inspection, Mark, Target

T = TypeVar("T")

DEFAULTS: Mapping[str, str] = MappingProxyType(
    {"accelerator": accelerators.AUTO, "pool": DEFAULT_POOL, "network": networks.DEFAULT}
)
"""Every setting of the driver, with its default."""


def settings_of(target: Target) -> dict[str, str]:
    """The provider's settings over the defaults. Raises `InvalidRequest` for one that the driver does not know."""
    unknown = sorted(set(target.settings) - set(DEFAULTS))
    if unknown:
        known = ", ".join(DEFAULTS)
        raise InvalidRequest(
            f"{target.name}: the libvirt driver has no setting {unknown[0]!r}; it has {known}",
            violations=[(f"settings.{name}", f"unknown; use one of {known}") for name in unknown],
        )
    return dict(DEFAULTS) | dict(target.settings)


class LibvirtDriver:
    """One hypervisor. Satisfies Driver, Disks, LiveSources, Computers, Power, Console and Addresses."""

    moves_bytes = True

    def __init__(self, target: Target) -> None:
        self._settings = settings_of(target)
        self._name = target.name
        self._link = Link(target.url, target.name)
        self._accelerator = self._settings["accelerator"]
        self._proving = asyncio.Lock()
        self._slow: set[asyncio.Task[tuple[Sighting, ...]]] = set()

    async def open(self, deadline: Deadline) -> None:
        """Connect now, so that a wrong URL is known at once."""
        await self._link.opened(deadline)

    async def close(self) -> None:
        """Wait for address sources that were slow, then close the connection."""
        if self._slow:
            await asyncio.wait(self._slow, timeout=SOURCE_SECONDS)
        await self._link.close()

    async def _in_pool(self, doing: str, deadline: Deadline, work: Callable[[libvirt.virConnect, Pool], T]) -> T:
        """Run `work` in a thread, with the connection and the provider's pool."""
        name = self._settings["pool"]
        return await self._link.call(doing, deadline, lambda conn: work(conn, open_pool(conn, name, self._name)))

    async def inspect(self, deadline: Deadline) -> Inspection:
        """Read the hypervisor, and prove its accelerator with a boot of a moment."""
        network, wanted = self._settings["network"], self._settings["accelerator"]

        def look(connection: libvirt.virConnect, pool: Pool) -> Inspection:
            networks.open_network(connection, network, self._name)
            pool.refresh(must=False)
            chosen, trials = accelerators.prove(connection, pool, wanted, deadline)
            return inspection_of(connection, pool, network, chosen, trials)

        found = await self._in_pool("inspecting the hypervisor", deadline, look)
        self._accelerator = found.settings["accelerator"]
        return found

    async def _proved(self, deadline: Deadline) -> str:
        """The accelerator: as registered, or proved now where the provider still says `auto`."""
        async with self._proving:
            if self._accelerator == accelerators.AUTO:
                self._accelerator, _trials = await self._in_pool(
                    "proving the accelerator",
                    deadline,
                    lambda conn, pool: accelerators.prove(conn, pool, accelerators.AUTO, deadline),
                )
            return self._accelerator

    async def remains(self, machine_id: str, deadline: Deadline) -> tuple[str, ...]:
        """Domains by their metadata, volumes (disk, seed, console log, NVRAM) by their name, afresh."""
        return await self._in_pool(
            f"listing what remains of machine {machine_id}",
            deadline,
            lambda conn, pool: (
                *computers.remaining_domains(conn, machine_id),
                *disks.remaining_volumes(pool, machine_id),
            ),
        )

    async def has_base(self, digest: str, deadline: Deadline) -> bool:
        """Whether a whole base of the digest is in the pool."""
        return await self._in_pool(
            f"looking for base {digest}", deadline, lambda _conn, pool: bases.find_base(pool, digest) is not None
        )

    async def place_base(self, image: BaseImage, progress: Progress, deadline: Deadline) -> None:
        """Send the image; a cancel stops the sending at the next block and removes what was sent."""
        stop = threading.Event()
        sending = asyncio.ensure_future(
            self._in_pool(
                f"placing base {image.digest}",
                deadline,
                lambda conn, pool: bases.place_base(conn, pool, image, progress=progress, deadline=deadline, stop=stop),
            )
        )
        try:
            await asyncio.shield(sending)
        except asyncio.CancelledError:
            stop.set()
            await asyncio.wait({sending})
            if (
                not sending.cancelled()
                and (error := sending.exception()) is not None
                and not isinstance(error, Stopped)
            ):
                raise asyncio.CancelledError(str(error)) from error
            raise

    async def remove_bases(self, only: Collection[str] | None, deadline: Deadline) -> tuple[str, ...]:
        """Delete the bases' volumes that no disk is built on."""
        return await self._in_pool("removing bases", deadline, lambda _conn, pool: bases.remove_bases(pool, only))

    async def create_disks(self, mark: Mark, digest: str, disk_gib: int, seed: bytes, deadline: Deadline) -> None:
        """Make the copy-on-write disk and the seed."""
        await self._in_pool(
            f"creating the disks of machine {mark.machine_id}",
            deadline,
            lambda conn, pool: disks.create_disks(conn, pool, mark, digest=digest, disk_gib=disk_gib, seed=seed),
        )

    async def place_live(self, mark: Mark, source: LiveSource, seed: bytes, deadline: Deadline) -> None:
        """Make what the domain boots in the place of a disk, built on the bases."""
        await self._in_pool(
            f"placing what machine {mark.machine_id} boots",
            deadline,
            lambda conn, pool: disks.place_live(conn, pool, mark, source=source, seed=seed),
        )

    async def remove_disks(self, mark: Mark, deadline: Deadline) -> None:
        """Remove every volume of the machine."""
        await self._in_pool(
            f"removing the disks of machine {mark.machine_id}",
            deadline,
            lambda conn, pool: disks.remove_disks(conn, pool, mark),
        )

    async def define(self, mark: Mark, shape: Shape, deadline: Deadline) -> None:
        """Define the domain; firmware ANY is BIOS, which boots faster."""
        accelerator, network = await self._proved(deadline), self._settings["network"]

        def work(connection: libvirt.virConnect, pool: Pool) -> None:
            networks.open_network(connection, network, self._name)
            computers.define(connection, pool, mark, shape, accelerator=accelerator, network=network)

        await self._in_pool(f"defining machine {mark.machine_id}", deadline, work)

    async def undefine(self, mark: Mark, deadline: Deadline) -> None:
        """Remove the definition, NVRAM and console log."""
        await self._in_pool(
            f"undefining machine {mark.machine_id}",
            deadline,
            lambda conn, pool: computers.undefine(conn, pool, mark),
        )

    async def power(self, mark: Mark, deadline: Deadline) -> PowerReading:
        """The domain's state."""
        return await self._link.call(
            f"reading the power of machine {mark.machine_id}",
            deadline,
            lambda conn: computers.read_power(conn, mark),
        )

    async def power_on(self, mark: Mark, deadline: Deadline) -> None:
        """Start the domain."""
        await self._link.call(
            f"powering on machine {mark.machine_id}", deadline, lambda conn: computers.power_on(conn, mark)
        )

    async def power_off(self, mark: Mark, deadline: Deadline) -> None:
        """Destroy the running domain; its definition stays."""
        await self._in_pool(
            f"powering off machine {mark.machine_id}",
            deadline,
            lambda conn, pool: computers.power_off(conn, pool, mark),
        )

    async def console(self, mark: Mark, offset: int, deadline: Deadline) -> ConsoleChunk:
        """Read QEMU's log of the serial port."""
        return await self._in_pool(
            f"reading the console of machine {mark.machine_id}",
            deadline,
            lambda conn, pool: read_console(conn, pool, mark, offset),
        )

    async def gateway(self, deadline: Deadline) -> str:
        """The hypervisor's address on the machines' network."""
        name = self._settings["network"]
        return await self._link.call(
            f"reading network {name}",
            deadline,
            lambda conn: networks.gateway_of(networks.open_network(conn, name, self._name)),
        )

    async def addresses(self, mark: Mark, deadline: Deadline) -> Sightings:
        """Ask all sources at once; what a slow one says after its time is not waited for."""
        tasks = {name: asyncio.create_task(self._ask(name, mark, deadline)) for name in SOURCES}
        done, late = await asyncio.wait(tasks.values(), timeout=min(SOURCE_SECONDS, deadline.remaining))
        for task in late:
            self._slow.add(task)
            task.add_done_callback(self._forget)
        found: list[Sighting] = []
        silent: dict[str, str] = {}
        for name, task in tasks.items():
            error = task.exception() if task in done else None
            if task not in done:
                silent[name] = f"no answer within {SOURCE_SECONDS:.0f} s"
            elif isinstance(error, MulliganError):
                silent[name] = error.message
            elif error is not None:
                raise error
            elif not (seen := task.result()):
                silent[name] = "has not seen the machine yet"
            else:
                found.extend(seen)
        return Sightings(tuple(found), silent)

    async def _ask(self, name: str, mark: Mark, deadline: Deadline) -> tuple[Sighting, ...]:
        network = self._settings["network"]
        return await self._link.call(
            f"asking {name} for addresses", deadline, lambda conn: SOURCES[name](conn, mark, network, self._name)
        )

    def _forget(self, task: asyncio.Task[tuple[Sighting, ...]]) -> None:
        self._slow.discard(task)
        if not task.cancelled():
            task.exception()  # looked at, so that it is not reported as never retrieved


async def open_libvirt(target: Target, deadline: Deadline) -> LibvirtDriver:
    """A connected driver."""
    driver = LibvirtDriver(target)
    try:
        await driver.open(deadline)
    except BaseException:  # whatever it was, a cancel too: nothing half made, and passed on
        await driver.close()
        raise
    return driver
