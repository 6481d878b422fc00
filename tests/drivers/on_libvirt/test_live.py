"""Machines without a disk on the real libvirt: a medium that really boots, and a kernel as its domain is given it."""

from __future__ import annotations

import io
import uuid
import xml.etree.ElementTree as ET
from pathlib import Path

import libvirt
import pycdlib
import pytest

from mulligan.activities.drivers.base import BaseImage, LiveSource, LiveSources, Shape
from mulligan.activities.drivers.libvirt.driver import LibvirtDriver
from mulligan.activities.drivers.libvirt.guest import boot_sector
from mulligan.activities.drivers.libvirt.marks import machine_uuid
from mulligan.activities.errors import NotFound
from mulligan.activities.threads import run_blocking
from mulligan.activities.values import Firmware, ImageFormat, Mark, PowerState, Resources
from tests.drivers.contract import MarkFactory, silent, soon, until
from tests.images.live_parts import INITRD, a_kernel, digest_of

DISKLESS = Shape(Resources(vcpu=1, memory_mib=128, disk_gib=0), Firmware.BIOS, arguments="console=ttyS0 quiet")


def a_base(folder: Path, form: ImageFormat, content: bytes) -> BaseImage:
    """As the store would give it, unlike any other."""
    content += uuid.uuid4().bytes
    path = folder / f"{uuid.uuid4().hex}.{form}"
    path.write_bytes(content)
    return BaseImage(digest_of(content), path, form, len(content))


def a_medium(line: str) -> bytes:
    """A CD from which a BIOS boots, and that says this on the serial console."""
    disc = pycdlib.PyCdlib()
    disc.new(interchange_level=3)
    loader = boot_sector(line).ljust(2048, b"\0")
    disc.add_fp(io.BytesIO(loader), len(loader), "/LOADER.;1")
    disc.add_eltorito("/LOADER.;1", "/BOOT.CAT;1", boot_load_size=4)
    written = io.BytesIO()
    disc.write_fp(written)
    disc.close()
    return written.getvalue() + bytes(150 * 2048)


async def kernel_parts(driver: LibvirtDriver, folder: Path) -> tuple[BaseImage, BaseImage, LiveSource]:
    """A kernel and an initrd in the pool."""
    kernel, initrd = a_base(folder, ImageFormat.KERNEL, a_kernel()), a_base(folder, ImageFormat.INITRD, INITRD)
    for base in (kernel, initrd):
        await driver.place_base(base, silent, soon())
    return kernel, initrd, LiveSource(ImageFormat.KERNEL, kernel.digest, initrd.digest)


def domain_of(connection: libvirt.virConnect, mark: Mark) -> ET.Element:
    """Its definition."""
    return ET.fromstring(connection.lookupByUUID(machine_uuid(mark.machine_id).bytes).XMLDesc())


async def removed(driver: LibvirtDriver, mark: Mark) -> None:
    """All of the machine taken away."""
    for verb in (driver.power_off, driver.undefine, driver.remove_disks):
        await verb(mark, soon())
    assert await driver.remains(mark.machine_id, soon()) == ()


async def test_a_machine_boots_a_medium_and_has_no_disk(
    driver: LibvirtDriver, connection: libvirt.virConnect, tmp_path: Path, mark: MarkFactory
) -> None:
    """For real; placed and defined again, it runs on; removed, nothing of it is left."""
    assert isinstance(driver, LiveSources)
    me, base = mark(), a_base(tmp_path, ImageFormat.ISO, a_medium("mulligan: live"))
    await driver.place_base(base, silent, soon())
    source = LiveSource(ImageFormat.ISO, base.digest)

    async def made() -> None:
        await driver.place_live(me, source, b"", soon())
        await driver.define(me, DISKLESS, soon())
        await driver.power_on(me, soon())

    await made()

    async def says() -> bool:
        return "mulligan: live" in (await driver.console(me, 0, soon())).text

    await until(says, 120)
    kinds = [disk.get("device") for disk in domain_of(connection, me).iterfind("devices/disk")]
    assert kinds == ["cdrom"]
    await made()
    assert (await driver.power(me, soon())).state is PowerState.ON
    assert await driver.remove_bases([base.digest], soon()) == ()
    await removed(driver, me)
    assert len(await driver.remove_bases([base.digest], soon())) == 1


async def test_a_machine_is_given_a_kernel_its_initrd_and_its_arguments(
    driver: LibvirtDriver, connection: libvirt.virConnect, tmp_path: Path, mark: MarkFactory
) -> None:
    """As files of the pool, which stay while they are needed; its seed is on a CD, as for a machine with a disk."""
    me = mark()
    kernel, initrd, source = await kernel_parts(driver, tmp_path)
    await driver.place_live(me, source, b"seed" * 512, soon())
    await driver.define(me, DISKLESS, soon())
    os = domain_of(connection, me).find("os")
    assert os is not None
    assert (os.findtext("kernel") or "").endswith(".kernel") and (os.findtext("initrd") or "").endswith(".initrd")
    assert os.findtext("cmdline") == "console=ttyS0 quiet"
    assert digest_of(await run_blocking(Path(os.findtext("kernel") or "").read_bytes)) == kernel.digest
    assert [disk.get("device") for disk in domain_of(connection, me).iterfind("devices/disk")] == ["cdrom"]
    assert await driver.remove_bases([kernel.digest, initrd.digest], soon()) == ()
    await removed(driver, me)
    assert len(await driver.remove_bases([kernel.digest, initrd.digest], soon())) == 2


async def test_a_newer_claim_takes_over(driver: LibvirtDriver, tmp_path: Path, mark: MarkFactory) -> None:
    """What an older one placed is cleaned first."""
    _, _, source = await kernel_parts(driver, tmp_path)
    await driver.place_live(mark(1), source, b"one", soon())
    await driver.place_live(mark(2), source, b"two", soon())
    left = " ".join(await driver.remains(mark(2).machine_id, soon()))
    assert "fence-2" in left and "fence-1" not in left
    await removed(driver, mark(2))


@pytest.mark.parametrize("missing", ["kernel", "initrd"])
async def test_what_was_not_placed_cannot_be_booted(
    driver: LibvirtDriver, tmp_path: Path, mark: MarkFactory, missing: str
) -> None:
    """It is said which digest; nothing is left of the machine."""
    kernel, initrd, _ = await kernel_parts(driver, tmp_path)
    nowhere = "sha256:" + "e" * 64
    digests = {"kernel": kernel.digest, "initrd": initrd.digest} | {missing: nowhere}
    source = LiveSource(ImageFormat.KERNEL, digests["kernel"], digests["initrd"])
    with pytest.raises(NotFound, match="place the image first"):
        await driver.place_live(mark(), source, b"seed", soon())
    assert await driver.remains(mark().machine_id, soon()) == ()
