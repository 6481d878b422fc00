"""The libvirt driver against the real system libvirt, under pure emulation: the contract, and what is libvirt's own.

Everything lives in a pool and a network of the run's own. The pool cannot lie under `tmp_path`, which pytest closes to
other users, because QEMU runs as another user: it is a temporary folder that only lets through.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import os
import shutil
import signal
import tempfile
import uuid
import xml.etree.ElementTree as ET
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import libvirt
import pytest

from mulligan.activities.drivers.base import (
    Addresses,
    Computers,
    Console,
    Deadline,
    Disks,
    Driver,
    Power,
    Shape,
    Sightings,
)
from mulligan.activities.drivers.libvirt.bases import WHOLE, base_prefix
from mulligan.activities.drivers.libvirt.daemons import ensure_daemons
from mulligan.activities.drivers.libvirt.driver import LibvirtDriver, open_libvirt
from mulligan.activities.drivers.libvirt.marks import machine_uuid
from mulligan.activities.drivers.registry import open_driver
from mulligan.activities.errors import Busy, Conflict, HostNotReady, InvalidRequest, NotFound, Transient, Unreachable
from mulligan.activities.values import Firmware, Mark, PowerState, Resources, Target
from tests.drivers.contract import SHAPE, DriverContract, MarkFactory, boot_sector_image, silent, soon, until

RUN = uuid.uuid4().hex[:8]
NAME = f"mulligan-test-{RUN}"
SUBNET = f"10.{201 + int(RUN[:2], 16) % 40}.{int(RUN[2:4], 16)}"


@pytest.fixture(scope="module")
def connection() -> Iterator[libvirt.virConnect]:
    """A connection of the tests' own, to look and to plant things behind the driver's back."""
    ensure_daemons()
    found = libvirt.open("qemu:///system")
    yield found
    found.close()


@pytest.fixture(scope="module")
def pool(connection: libvirt.virConnect) -> Iterator[libvirt.virStoragePool]:
    """A pool of this run's own."""
    folder = Path(tempfile.mkdtemp(prefix=f"{NAME}-"))
    folder.chmod(0o711)
    made = connection.storagePoolCreateXML(
        f"<pool type='dir'><name>{NAME}</name><target><path>{folder}</path></target></pool>"
    )
    yield made
    made.destroy()
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def network(connection: libvirt.virConnect) -> Iterator[libvirt.virNetwork]:
    """An isolated network with DHCP of this run's own."""
    made = connection.networkCreateXML(
        f"<network><name>{NAME}</name><bridge name='mt{RUN}'/><ip address='{SUBNET}.1' netmask='255.255.255.0'>"
        f"<dhcp><range start='{SUBNET}.2' end='{SUBNET}.99'/><bootp file='none'/></dhcp></ip></network>"
    )
    yield made
    made.destroy()


def target(**settings: str) -> Target:
    """The system libvirt with this run's pool and network."""
    return Target(NAME, "default", "qemu:///system", {"accelerator": "tcg", "pool": NAME, "network": NAME} | settings)


@pytest.fixture(scope="module")
async def driver(pool: libvirt.virStoragePool, network: libvirt.virNetwork) -> AsyncIterator[LibvirtDriver]:
    """The driver under test, open for the whole module."""
    opened = await open_libvirt(target(), soon())
    yield opened
    await opened.close()


@pytest.fixture
async def mark(driver: LibvirtDriver) -> AsyncIterator[MarkFactory]:
    """Marks of one machine; whatever carries them is removed at the end."""
    own, used = str(uuid.uuid4()), set()

    def make(fence: int = 1, machine_id: str | None = None) -> Mark:
        used.add(machine_id or own)
        return Mark("tests", f"m-{RUN}", machine_id or own, f"run-{fence}", fence)

    yield make
    for machine_id in used:
        last = Mark("tests", "m", machine_id, "cleaner", 1_000_000)
        with contextlib.suppress(Conflict):  # what a test planted is the test's to remove
            await driver.power_off(last, soon())
            await driver.undefine(last, soon())
            await driver.remove_disks(last, soon())


class TestContract(DriverContract):
    """The suite that every driver passes."""


def test_the_driver_has_every_capability_of_a_hypervisor(driver: LibvirtDriver) -> None:
    """It satisfies each Protocol that a virtual machine needs."""
    held: Driver = driver
    assert all(isinstance(held, each) for each in (Disks, Computers, Power, Console, Addresses))


async def test_a_base_that_was_never_placed_is_not_there(driver: LibvirtDriver) -> None:
    """Nothing is taken for a base that is not one."""
    assert not await driver.has_base("sha256:" + "0" * 64, soon())


async def test_a_disk_smaller_than_its_base_is_refused(
    driver: LibvirtDriver, tmp_path: Path, mark: MarkFactory
) -> None:
    """The request is wrong, it says how much is needed, and nothing is left of the attempt."""
    image = boot_sector_image(tmp_path, "mulligan: big", 3 << 30)
    await driver.place_base(image, silent, soon())
    with pytest.raises(InvalidRequest, match="3 GiB or more"):
        await driver.create_disks(mark(), image.digest, 2, b"seed", soon())
    assert await driver.remains(mark().machine_id, soon()) == ()


async def test_disks_on_a_base_that_is_not_there_are_refused(driver: LibvirtDriver, mark: MarkFactory) -> None:
    """The error names the digest; nothing is left of the attempt."""
    with pytest.raises(NotFound, match="f" * 64):
        await driver.create_disks(mark(), "sha256:" + "f" * 64, 1, b"seed", soon())
    assert await driver.remains(mark().machine_id, soon()) == ()


async def test_holes_are_not_sent(driver: LibvirtDriver, tmp_path: Path, pool: libvirt.virStoragePool) -> None:
    """A sparse image of 2 GiB takes next to no room in the pool, and its progress ends at its size."""
    image = boot_sector_image(tmp_path, "mulligan: sparse", 2 << 30)
    seen: list[tuple[int, int]] = []
    await driver.place_base(image, lambda _doing, done, total: seen.append((done, total)), soon())
    name = next(
        each for each in pool.listVolumes() if each.startswith(base_prefix(image.digest)) and each.endswith(".raw")
    )
    _kind, capacity, allocation = pool.storageVolLookupByName(name).info()
    assert capacity == 2 << 30
    assert allocation < 1 << 20
    assert seen[-1] == (2 << 30, 2 << 30)
    assert seen == sorted(seen)


def dense_image(folder: Path) -> Any:
    """An image of 32 MiB without a hole, unlike any other."""
    image = boot_sector_image(folder, f"mulligan: {uuid.uuid4()}")
    with image.path.open("ab") as file:
        for number in range(31):
            file.write(bytes([number + 1]) * (1 << 20))
    return image


async def test_a_cancelled_upload_leaves_nothing(
    driver: LibvirtDriver, tmp_path: Path, pool: libvirt.virStoragePool
) -> None:
    """The sending stops at the next block, what was sent is removed, and the base is not there."""
    image, loop = dense_image(tmp_path), asyncio.get_running_loop()
    sending: list[asyncio.Task[None]] = []
    done_when_cancelled: list[int] = []

    def cancel(_doing: str, done: int, total: int) -> None:
        if done > total // 2 and not done_when_cancelled:
            done_when_cancelled.append(done)
            asyncio.run_coroutine_threadsafe(cancel_it(), loop).result()

    async def cancel_it() -> None:
        sending[0].cancel()
        await asyncio.sleep(0)

    sending.append(asyncio.create_task(driver.place_base(image, cancel, soon())))
    with pytest.raises(asyncio.CancelledError):
        await sending[0]
    assert 0 < done_when_cancelled[0] < 32 << 20
    assert not await driver.has_base(image.digest, soon())
    assert not [name for name in pool.listVolumes() if name.startswith(base_prefix(image.digest))]


async def test_an_upload_that_was_killed_is_never_taken_for_whole(
    driver: LibvirtDriver, tmp_path: Path, pool: libvirt.virStoragePool
) -> None:
    """What a killed process left is not a base, and the next upload gives a whole one beside it."""
    image = dense_image(tmp_path)
    torn = base_prefix(image.digest) + "deadbeef.raw"
    pool.createXML(f"<volume><name>{torn}</name><capacity>{32 << 20}</capacity></volume>")
    assert not await driver.has_base(image.digest, soon())
    await driver.place_base(image, silent, soon())
    assert await driver.has_base(image.digest, soon())
    assert torn + WHOLE not in pool.listVolumes()
    pool.storageVolLookupByName(torn).delete()


async def test_an_image_that_shrinks_while_it_is_sent_is_not_kept(
    driver: LibvirtDriver, tmp_path: Path, pool: libvirt.virStoragePool
) -> None:
    """A base that could not be sent whole is an error, and is removed."""
    image = dense_image(tmp_path)

    def cut(_doing: str, done: int, _total: int) -> None:
        with image.path.open("ab") as file:
            file.truncate(done)

    with pytest.raises(Transient):
        await driver.place_base(image, cut, soon())
    assert not [name for name in pool.listVolumes() if name.startswith(base_prefix(image.digest))]


async def test_two_uploads_at_once_give_one_usable_base(driver: LibvirtDriver, tmp_path: Path) -> None:
    """Neither disturbs the other."""
    image = dense_image(tmp_path)
    await asyncio.gather(*(driver.place_base(image, silent, soon()) for _ in range(2)))
    assert await driver.has_base(image.digest, soon())


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


async def test_the_gateway_is_the_networks_own_address(driver: LibvirtDriver) -> None:
    """Guests reach the boot server where libvirt's bridge is."""
    assert await driver.gateway(soon()) == f"{SUBNET}.1"


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


async def test_auto_gives_an_accelerator_under_which_a_guest_was_seen_to_live(
    driver: LibvirtDriver, pool: libvirt.virStoragePool
) -> None:
    """Whatever the host offers, what is registered was proved, and the trial leaves nothing."""
    auto = await open_libvirt(target(accelerator="auto"), soon())
    before = set(pool.listVolumes())
    found = await auto.inspect(Deadline.after(120))
    await auto.close()
    chosen = found.settings["accelerator"]
    assert chosen in {"kvm", "tcg"}
    assert f"accel.{chosen}" in found.capabilities
    assert "a guest spoke" in found.facts[f"accelerator.{chosen}"]
    assert "firmware.bios" in found.capabilities
    assert set(pool.listVolumes()) == before


@pytest.mark.parametrize("setting", ["pool", "network"])
async def test_a_missing_pool_or_network_says_how_to_mend_it(
    pool: libvirt.virStoragePool, network: libvirt.virNetwork, setting: str
) -> None:
    """The host is not ready, and the remedy is a command."""
    lacking = await open_libvirt(target(**{setting: "mulligan-no-such"}), soon())
    with pytest.raises(HostNotReady) as caught:
        await lacking.inspect(soon())
    await lacking.close()
    assert caught.value.remedy.startswith("virsh")


SSH_TO_HERE = """\
#!/bin/sh
# An ssh client that is already where it shall go: drops options and host, and runs the command.
while [ "${1#-}" != "$1" ]; do
    case "$1" in --) shift; break ;; -[eplo]) shift ;; esac
    shift
done
shift
exec sh -c "$*"
"""


def put_first_on_path(monkeypatch: pytest.MonkeyPatch, folder: Path, client: str) -> None:
    """Let this script be the `ssh` that libvirt finds."""
    script = folder / "ssh"
    script.write_text(client)
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


@pytest.mark.parametrize("transport", ["unix", "ssh"])
async def test_a_machine_lives_through_a_remote_transport(
    pool: libvirt.virStoragePool,
    network: libvirt.virNetwork,
    tmp_path: Path,
    mark: MarkFactory,
    monkeypatch: pytest.MonkeyPatch,
    transport: str,
) -> None:
    """Upload, seed, definition, power, console and undo go through libvirt's remote protocol alone, with keepalive."""
    put_first_on_path(monkeypatch, tmp_path, SSH_TO_HERE)
    url = "qemu+unix:///system" if transport == "unix" else "qemu+ssh://localhost/system"
    opened: Any = await open_driver(Target(NAME, "default", url, target().settings), state_dir=tmp_path)
    suite, me = DriverContract(), mark()
    await suite.made(opened, dense_image(tmp_path), me)
    await opened.power_on(me, soon())
    assert "mulligan:" in await until(lambda: suite.console_with(opened, me, "mulligan:"))
    await suite.unmade(opened, me)
    assert await opened.remains(me.machine_id, soon()) == ()
    await opened.close()
    await opened.close()


def cut_the_line(pid: str) -> None:
    """Kill the transport's process and its descendants, leaves first."""
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        cut_the_line(child)
    with contextlib.suppress(ProcessLookupError):  # a shell ends with its child
        os.kill(int(pid), signal.SIGKILL)


async def test_a_connection_that_was_lost_is_opened_again(
    pool: libvirt.virStoragePool,
    network: libvirt.virNetwork,
    tmp_path: Path,
    mark: MarkFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A cut line costs at most one call, which is transient; the next one works."""
    log = tmp_path / "pids"
    put_first_on_path(monkeypatch, tmp_path, SSH_TO_HERE.replace("exec", f"echo $$ >> {log}\nexec"))
    opened = await open_libvirt(Target(NAME, "default", "qemu+ssh://localhost/system", target().settings), soon())
    assert (await opened.power(mark(), soon())).state is PowerState.ABSENT
    cut_the_line(log.read_text().strip())
    with contextlib.suppress(Unreachable):
        await opened.power(mark(), soon())
    assert (await opened.power(mark(), soon())).state is PowerState.ABSENT
    assert len(log.read_text().split()) == 2
    await opened.close()


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


def test_running_daemons_are_left_alone(connection: libvirt.virConnect) -> None:
    """With libvirt up there is nothing to start."""
    assert ensure_daemons() == []
