"""What every driver must do: one suite per capability, run over each driver that has it.

A driver's test module makes a class that inherits the suites of what its driver can do (`DriverContract` for
hypervisors and `ServerContract` of `server_contract` for BMCs are the usual sets), and gives two fixtures:

- `driver`: an open driver (it may be shared by the tests; each test uses a machine id of its own);
- `mark`: a factory, `mark(fence=1, machine_id=None) -> Mark`; without a machine id, the same fresh one throughout
  a test. Its teardown removes what the test left.

Two attributes may be overridden: `up_within` (seconds from power on to the console line) and `banner` (what the console
shows when the guest of `boot_sector_image` lives).
"""

from __future__ import annotations

import asyncio
import hashlib
import ipaddress
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Protocol

import pytest

from mulligan.activities.drivers.base import BaseImage, Deadline, PowerReading, Shape
from mulligan.activities.drivers.libvirt.guest import boot_sector
from mulligan.activities.errors import StaleFence
from mulligan.activities.values import Firmware, ImageFormat, Mark, PowerState, Resources

Prepare = Callable[[Mark], Awaitable[None]]
"""Does what must be done before a machine can be switched on."""

SHAPE = Shape(Resources(vcpu=1, memory_mib=128, disk_gib=1), Firmware.BIOS)


class MarkFactory(Protocol):
    """Makes the marks of one test."""

    def __call__(self, fence: int = 1, machine_id: str | None = None) -> Mark: ...


def soon() -> Deadline:
    """Enough time for any single call."""
    return Deadline.after(60)


def silent(_doing: str, _done: int, _total: int) -> None:
    """Progress that nobody looks at."""


def boot_sector_image(folder: Path, line: str = "mulligan: alive", size: int = 1 << 20) -> BaseImage:
    """A sparse raw disk whose boot sector says `line` on the serial console; it boots in under a second.

    Its digest is of what makes it up (boot sector and size), which spares reading gigabytes of holes.
    """
    path = folder / f"boot-{line.replace(' ', '-').replace(':', '')}.raw"
    with path.open("wb") as file:
        file.write(boot_sector(line))
        file.truncate(size)
    digest = hashlib.sha256(boot_sector(line) + str(size).encode()).hexdigest()
    return BaseImage(f"sha256:{digest}", path, ImageFormat.RAW, size)


async def until(condition: Callable[[], Any], seconds: float = 30) -> Any:
    """Wait until the awaited condition gives something true, and return that."""
    async with asyncio.timeout(seconds):
        while not (result := await condition()):  # noqa: ASYNC110 - the outside world has no event to wait for
            await asyncio.sleep(0.05)
    return result


class Inspecting:
    """What holds for every driver."""

    @pytest.fixture
    def ready(self) -> Prepare:
        """A server is there already: nothing is to be done."""

        async def nothing(_mark: Mark) -> None:
            """It is there."""

        return nothing

    async def test_inspection_says_what_can_be_claimed(self, driver: Any) -> None:
        """Every resource has a capacity above zero, and the capabilities name architecture and driver."""
        found = await driver.inspect(Deadline.after(120))
        assert {row.resource for row in found.inventory} == {"vcpu", "memory_mib", "disk_gib"}
        assert all(row.total > 0 and row.capacity > 0 for row in found.inventory)
        assert any(each.startswith("arch.") for each in found.capabilities)
        assert any(each.startswith("driver.") for each in found.capabilities)

    async def power(self, driver: Any, mark: Mark) -> PowerReading:
        """One reading of the power."""
        reading = await driver.power(mark, soon())
        assert isinstance(reading, PowerReading)
        return reading


class PowerContract(Inspecting):
    """The rules of `Power`."""

    async def test_power_goes_on_and_off_and_may_be_repeated(
        self, driver: Any, mark: MarkFactory, ready: Prepare
    ) -> None:
        """The state already there is success, and is what is read."""
        await ready(mark())
        for verb, state in ((driver.power_on, PowerState.ON), (driver.power_off, PowerState.OFF)):
            for _ in range(2):
                await verb(mark(), soon())
                assert (await self.power(driver, mark())).state is state

    async def test_an_older_fence_switches_nothing(self, driver: Any, mark: MarkFactory, ready: Prepare) -> None:
        """Whoever lost the claim changes nothing."""
        newer, stale = mark(fence=8), mark(fence=7)
        await ready(newer)
        await driver.power_on(newer, soon())
        with pytest.raises(StaleFence):
            await driver.power_off(stale, soon())
        assert (await self.power(driver, newer)).state is PowerState.ON
        await driver.power_off(newer, soon())
        with pytest.raises(StaleFence):
            await driver.power_on(stale, soon())
        assert (await self.power(driver, newer)).state is PowerState.OFF


class Making(Inspecting):
    """What suites of machines that are made share."""

    banner = "mulligan: alive"
    up_within = 30.0

    @pytest.fixture
    def image(self, tmp_path: Path) -> BaseImage:
        """The base image of the test."""
        return boot_sector_image(tmp_path)

    @pytest.fixture
    def ready(self, driver: Any, image: BaseImage) -> Prepare:
        """A machine is made before it is switched on."""
        return lambda mark: self.made(driver, image, mark)

    async def made(self, driver: Any, image: BaseImage, mark: Mark) -> None:
        """Base, disks and definition: a machine ready to be powered on."""
        await driver.place_base(image, silent, soon())
        await driver.create_disks(mark, image.digest, 1, b"seed" * 512, soon())
        await driver.define(mark, SHAPE, soon())

    async def unmade(self, driver: Any, mark: Mark) -> None:
        """The whole undo, in reverse."""
        await driver.power_off(mark, soon())
        await driver.undefine(mark, soon())
        await driver.remove_disks(mark, soon())

    async def console_with(self, driver: Any, mark: Mark, text: str) -> str:
        """All of the console so far when it holds `text`, else empty."""
        chunk = await driver.console(mark, 0, soon())
        return chunk.text if text in chunk.text else ""


class DisksContract(Making):
    """The rules of `Disks`."""

    async def test_a_base_is_there_once_it_is_placed(self, driver: Any, image: BaseImage) -> None:
        """Placing a base makes it findable by its digest; placing it again moves nothing and is success."""
        await driver.place_base(image, silent, soon())
        assert await driver.has_base(image.digest, soon())
        await driver.place_base(image, silent, soon())
        assert await driver.has_base(image.digest, soon())

    async def test_a_base_that_nothing_is_built_on_is_removed(
        self, driver: Any, image: BaseImage, mark: MarkFactory, tmp_path: Path
    ) -> None:
        """Only those that are asked for; one under a disk stays until the disk is gone, and can then be placed anew."""
        other = boot_sector_image(tmp_path, "mulligan: another")
        both = (image.digest, other.digest)
        for each in (image, other):
            await driver.place_base(each, silent, soon())
        await driver.create_disks(mark(), image.digest, 1, b"seed" * 512, soon())
        assert len(await driver.remove_bases(both, soon())) == 1
        assert [await driver.has_base(digest, soon()) for digest in both] == [True, False]
        await driver.remove_disks(mark(), soon())
        await driver.place_base(other, silent, soon())
        assert len(await driver.remove_bases([image.digest], soon())) == 1
        assert [await driver.has_base(digest, soon()) for digest in both] == [False, True]
        assert await driver.remove_bases([image.digest], soon()) == ()
        await driver.place_base(image, silent, soon())
        assert await driver.has_base(image.digest, soon())
        assert len(await driver.remove_bases(both, soon())) == 2


class ComputersContract(Making):
    """The rules of `Computers`, and of `Disks` and `Power` together with it."""

    async def test_a_machine_lives_and_leaves_nothing(self, driver: Any, image: BaseImage, mark: MarkFactory) -> None:
        """From nothing to a console line and back to nothing, with the power read at each turn."""
        me, begun = mark(), await self.power(driver, mark())
        assert begun.state is PowerState.ABSENT
        await self.made(driver, image, me)
        assert (await self.power(driver, me)).state is PowerState.OFF
        await driver.power_on(me, soon())
        assert (await self.power(driver, me)).state is PowerState.ON
        text = await until(lambda: self.console_with(driver, me, self.banner), self.up_within)
        assert self.banner in text
        assert await driver.remains(me.machine_id, soon())
        await self.unmade(driver, me)
        assert (await self.power(driver, me)).state is PowerState.ABSENT
        assert await driver.remains(me.machine_id, soon()) == ()

    async def test_every_verb_may_be_repeated(self, driver: Any, image: BaseImage, mark: MarkFactory) -> None:
        """The desired state already there is success, for each verb and for the whole undo."""
        me = mark()
        for _ in range(2):
            await driver.place_base(image, silent, soon())
        for _ in range(2):
            await driver.create_disks(me, image.digest, 1, b"seed" * 512, soon())
        for _ in range(2):
            await driver.define(me, SHAPE, soon())
        made = await driver.remains(me.machine_id, soon())
        for _ in range(2):
            await driver.power_on(me, soon())
        assert set(made) <= set(await driver.remains(me.machine_id, soon()))
        for verb in (driver.power_off, driver.undefine, driver.remove_disks):
            await verb(me, soon())
            await verb(me, soon())
        assert await driver.remains(me.machine_id, soon()) == ()

    async def test_an_undo_of_nothing_is_success(self, driver: Any, mark: MarkFactory) -> None:
        """A timed-out action may have happened or not: its undo works either way."""
        await self.unmade(driver, mark())
        assert await driver.remains(mark().machine_id, soon()) == ()

    @pytest.mark.parametrize("steps", [1, 2, 3])
    async def test_an_undo_after_any_step_leaves_nothing(
        self, driver: Any, image: BaseImage, mark: MarkFactory, steps: int
    ) -> None:
        """Stop after disks, after the definition, or after power on: the undo cleans what there is."""
        me = mark()
        await driver.place_base(image, silent, soon())
        actions = (
            lambda: driver.create_disks(me, image.digest, 1, b"seed", soon()),
            lambda: driver.define(me, SHAPE, soon()),
            lambda: driver.power_on(me, soon()),
        )
        for action in actions[:steps]:
            await action()
        await self.unmade(driver, me)
        assert await driver.remains(me.machine_id, soon()) == ()

    async def test_a_newer_fence_adopts_what_an_older_one_made(
        self, driver: Any, image: BaseImage, mark: MarkFactory
    ) -> None:
        """A later try of the same machine takes over, boots, and can clean everything."""
        await self.made(driver, image, mark(fence=1))
        await driver.power_on(mark(fence=1), soon())
        newer = mark(fence=2)
        await driver.power_off(newer, soon())
        await self.made(driver, image, newer)
        await driver.power_on(newer, soon())
        assert (await self.power(driver, newer)).state is PowerState.ON
        await self.unmade(driver, newer)
        assert await driver.remains(newer.machine_id, soon()) == ()

    async def test_an_older_fence_must_stop(self, driver: Any, image: BaseImage, mark: MarkFactory) -> None:
        """Whoever lost the claim can neither change nor destroy what the newer claim made."""
        newer, stale = mark(fence=5), mark(fence=4)
        await self.made(driver, image, newer)
        await driver.power_on(newer, soon())
        before = await driver.remains(newer.machine_id, soon())
        attempts = (
            lambda: driver.create_disks(stale, image.digest, 1, b"seed", soon()),
            lambda: driver.define(stale, SHAPE, soon()),
            lambda: driver.power_on(stale, soon()),
            lambda: driver.power_off(stale, soon()),
            lambda: driver.undefine(stale, soon()),
            lambda: driver.remove_disks(stale, soon()),
        )
        for attempt in attempts:
            with pytest.raises(StaleFence):
                await attempt()
        assert await driver.remains(newer.machine_id, soon()) == before
        assert (await self.power(driver, newer)).state is PowerState.ON

    async def test_two_machines_do_not_touch_each_other(self, driver: Any, image: BaseImage, mark: MarkFactory) -> None:
        """Undoing one machine leaves the other whole and running."""
        one, other = mark(), mark(machine_id="6f0c3c1e-0000-4000-8000-" + mark().machine_id[-12:])
        for each in (one, other):
            await self.made(driver, image, each)
        await driver.power_on(other, soon())
        kept = await driver.remains(other.machine_id, soon())
        await self.unmade(driver, one)
        assert await driver.remains(one.machine_id, soon()) == ()
        assert await driver.remains(other.machine_id, soon()) == kept
        assert (await self.power(driver, other)).state is PowerState.ON


class ConsoleContract(Making):
    """The rules of `Console`."""

    async def test_the_console_is_read_on_from_an_offset(
        self, driver: Any, image: BaseImage, mark: MarkFactory
    ) -> None:
        """Reading from `next_offset` repeats nothing, and reading from 0 again gives the same beginning."""
        me = mark()
        await self.made(driver, image, me)
        await driver.power_on(me, soon())
        await until(lambda: self.console_with(driver, me, self.banner), self.up_within)
        first = await driver.console(me, 0, soon())
        assert first.offset == 0
        assert first.next_offset > 0
        rest = await driver.console(me, first.next_offset, soon())
        assert rest.offset == first.next_offset
        again = await driver.console(me, 0, soon())
        assert again.text.startswith(first.text)


class AddressesContract(Making):
    """The rules of `Addresses`."""

    async def test_a_source_of_addresses_saw_one_or_says_why_not(
        self, driver: Any, image: BaseImage, mark: MarkFactory
    ) -> None:
        """Of a machine that was just switched on; what was seen are addresses, and it has a way to the boot server."""
        await self.made(driver, image, mark())
        await driver.power_on(mark(), soon())
        seen = await driver.addresses(mark(), soon())
        assert all(ipaddress.ip_address(each.address) and each.source for each in seen.found)
        assert all(seen.silent.values())
        assert not set(seen.silent) & {each.source for each in seen.found}
        gateway = await driver.gateway(soon())
        assert not gateway or ipaddress.ip_address(gateway)


class DriverContract(DisksContract, ComputersContract, ConsoleContract, AddressesContract, PowerContract):
    """What every driver that makes virtual machines must do."""
