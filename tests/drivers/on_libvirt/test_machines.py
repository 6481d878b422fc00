"""Machines on the real libvirt: the contract of every driver, and what is libvirt's own."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import uuid
import xml.etree.ElementTree as ET
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import libvirt
import pytest

from mulligan.activities.drivers.base import Addresses, Computers, Console, Disks, Driver, Power, Shape, Sightings
from mulligan.activities.drivers.libvirt.driver import LibvirtDriver
from mulligan.activities.drivers.libvirt.marks import machine_uuid
from mulligan.activities.errors import Busy, Conflict
from mulligan.activities.values import Firmware, Mark, PowerState, Resources
from tests.drivers.contract import SHAPE, DriverContract, MarkFactory, boot_sector_image, silent, soon, until
from tests.drivers.on_libvirt.host import NAME, SUBNET


class TestContract(DriverContract):
    """The suite that every driver passes."""


def test_the_driver_has_every_capability_of_a_hypervisor(driver: LibvirtDriver) -> None:
    """It satisfies each Protocol that a virtual machine needs."""
    held: Driver = driver
    assert all(isinstance(held, each) for each in (Disks, Computers, Power, Console, Addresses))


@pytest.mark.parametrize("same", ["uuid", "name"])
async def test_a_foreign_domain_is_never_touched(
    driver: LibvirtDriver, connection: libvirt.virConnect, tmp_path: Path, mark: MarkFactory, same: str
) -> None:
    """What has our UUID or name but not our mark is a conflict, and stays as it was."""
    me, image = mark(), boot_sector_image(tmp_path)
    await driver.place_base(image, silent, soon())
    await driver.create_disks(me, image.digest, 1, b"seed", soon())
    await driver.define(me, SHAPE, soon())
    name = connection.lookupByUUID(machine_uuid(me.machine_id).bytes).name()
    await driver.undefine(me, soon())
    planted = connection.defineXML(
        f"<domain type='qemu'><name>{name if same == 'name' else NAME + '-foreign'}</name>"
        f"<uuid>{machine_uuid(me.machine_id) if same == 'uuid' else uuid.uuid4()}</uuid>"
        "<memory unit='MiB'>64</memory><os><type arch='x86_64'>hvm</type></os></domain>"
    )
    before = planted.XMLDesc()
    try:
        with pytest.raises(Conflict):
            await driver.define(me, SHAPE, soon())
        if same == "uuid":
            for verb in (driver.power_on, driver.power_off, driver.undefine, driver.remove_disks):
                with pytest.raises(Conflict):
                    await verb(me, soon())
        assert planted.XMLDesc() == before
    finally:
        planted.undefine()


async def test_a_foreign_volume_is_never_touched(
    driver: LibvirtDriver, pool: libvirt.virStoragePool, tmp_path: Path, mark: MarkFactory
) -> None:
    """A disk of our name without our fence beside it is a conflict."""
    image, name = boot_sector_image(tmp_path), f"mulligan-{mark().machine_id}-disk.qcow2"
    await driver.place_base(image, silent, soon())
    planted = pool.createXML(f"<volume><name>{name}</name><capacity>512</capacity></volume>")
    try:
        with pytest.raises(Conflict):
            await driver.create_disks(mark(), image.digest, 1, b"seed", soon())
        with pytest.raises(Conflict):
            await driver.remove_disks(mark(), soon())
        assert planted.info()[1] == 512
    finally:
        planted.delete()


async def test_a_uefi_machine_starts_and_leaves_no_nvram(
    driver: LibvirtDriver, tmp_path: Path, mark: MarkFactory
) -> None:
    """UEFI without Secure Boot starts; its NVRAM lies in the pool, is listed, and goes with the definition."""
    me, image = mark(), boot_sector_image(tmp_path)
    await driver.place_base(image, silent, soon())
    await driver.create_disks(me, image.digest, 1, b"seed", soon())
    await driver.define(me, Shape(Resources(1, 256, 1), Firmware.UEFI), soon())
    await driver.power_on(me, soon())
    assert (await driver.power(me, soon())).state is PowerState.ON
    assert any("nvram" in each for each in await driver.remains(me.machine_id, soon()))
    await driver.power_off(me, soon())
    await driver.undefine(me, soon())
    assert not any("nvram" in each for each in await driver.remains(me.machine_id, soon()))


async def test_addresses_come_from_leases_and_arp_of_this_boot(
    driver: LibvirtDriver, connection: libvirt.virConnect, tmp_path: Path, mark: MarkFactory
) -> None:
    """A guest that asks by DHCP (here its network card's boot ROM) is seen by two sources; the agent says why not."""
    me, image = mark(), boot_sector_image(tmp_path)
    await driver.place_base(image, silent, soon())
    await driver.create_disks(me, image.digest, 1, b"seed", soon())
    await driver.define(me, SHAPE, soon())
    defined = connection.lookupByUUID(machine_uuid(me.machine_id).bytes)
    root = ET.fromstring(defined.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE))
    card, system = root.find("devices/interface"), root.find("os")
    assert card is not None and system is not None
    system[:] = [each for each in system if each.tag != "boot"]
    card[:] = [each for each in card if each.tag != "rom"]
    ET.SubElement(card, "boot", order="1")
    connection.defineXML(ET.tostring(root, "unicode"))
    begun = datetime.now(UTC).replace(microsecond=0)
    await driver.power_on(me, soon())

    async def leased() -> Sightings | None:
        found = await driver.addresses(me, soon())
        return found if any(each.source == "dhcp-lease" for each in found.found) else None

    seen = await until(leased, 40)
    lease = next(each for each in seen.found if each.source == "dhcp-lease")
    assert ipaddress.ip_address(lease.address) in ipaddress.ip_network(f"{SUBNET}.0/24")
    assert begun <= lease.at <= datetime.now(UTC)
    assert "agent" in seen.silent["guest-agent"]
    await until(lambda: arp_of(driver, me), 20)
    await driver.power_off(me, soon())
    off = await driver.addresses(me, soon())
    assert off.found == ()
    assert set(off.silent) == {"dhcp-lease", "arp", "guest-agent"}


async def arp_of(driver: LibvirtDriver, mark: Mark) -> bool:
    """Whether the neighbour table shows the machine."""
    return any(each.source == "arp" for each in (await driver.addresses(mark, soon())).found)


async def test_the_console_begins_anew_at_every_power_on(
    driver: LibvirtDriver, connection: libvirt.virConnect, tmp_path: Path, mark: MarkFactory
) -> None:
    """An offset of the last boot gives the new boot from its beginning, and says so."""
    me, image = mark(), boot_sector_image(tmp_path)
    await driver.place_base(image, silent, soon())
    await driver.create_disks(me, image.digest, 1, b"seed", soon())
    await driver.define(me, SHAPE, soon())
    await driver.power_on(me, soon())

    async def spoken() -> str:
        chunk = await driver.console(me, 10_000, soon())
        return chunk.text if "alive" in chunk.text and chunk.offset == 0 else ""

    assert await until(spoken)
    await driver.power_off(me, soon())
    await driver.power_on(me, soon())
    assert (await until(spoken)).count("alive") == 1


async def test_many_machines_at_once_do_not_disturb_each_other(
    driver: LibvirtDriver, tmp_path: Path, mark: MarkFactory
) -> None:
    """Six whole lives in one pool at once; patience that libvirt asks for is `Busy`, and trying again works."""
    image, suite = boot_sector_image(tmp_path), DriverContract()
    await driver.place_base(image, silent, soon())

    async def patiently(work: Callable[[], Awaitable[Any]]) -> Any:
        async with asyncio.timeout(200):
            while True:
                with contextlib.suppress(Busy):
                    return await work()

    async def live(me: Mark) -> tuple[str, ...]:
        await patiently(lambda: suite.made(driver, image, me))
        await patiently(lambda: suite.unmade(driver, me))
        left: tuple[str, ...] = await patiently(lambda: driver.remains(me.machine_id, soon()))
        return left

    marks = [mark(machine_id=str(uuid.uuid4())) for _ in range(6)]
    assert await asyncio.gather(*(live(each) for each in marks)) == [()] * 6
