"""Building the deploy agent's image from Debian's packages: complete and in place of the one before, or not at all."""

from __future__ import annotations

import hashlib
import shutil
import sys
import tempfile
from pathlib import Path

from mulligan.activities.agent import card_firmware, initramfs, medium
from mulligan.activities.agent.cpio import newc
from mulligan.activities.agent.image import INITRD, ISO, KERNEL, AgentImage
from mulligan.activities.agent.place import MIB, SCRATCH, forget_scratch, put_in_place
from mulligan.activities.errors import Unreachable
from mulligan.activities.images.build.host import exclusive, require
from mulligan.activities.images.build.output import Progress, digest
from mulligan.activities.images.build.packages import Archive, unpack

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

RELEASE = "bookworm"
WITHOUT_FIRMWARE = "mulligan agent build --no-firmware"
ZSTD_LEVEL = 9
"""Higher levels take many times as long for a few percent, and unpack no sooner."""


def build_agent(directory: Path, *, workdir: Path, progress: Progress, firmware: bool = True) -> AgentImage:
    """Build the agent into `directory`, with downloads cached in `workdir`; returns what is there now.

    Without `firmware` nothing is in it that has no source; then many servers' network cards do not work.

    The build before this one stays for those who still serve it, older ones go. Raises HostNotReady for what the host
    lacks, Unreachable for what cannot be fetched, Conflict where another build uses the work directory, Unsupported
    when the result is larger than may be served. Blocks. Nothing is left behind but the cache, whether it fails or is
    interrupted.
    """
    workdir = workdir.resolve()
    directory.mkdir(parents=True, exist_ok=True)
    with exclusive(workdir):
        require((*medium.PROGRAMS, "apt-get", "dpkg-deb"), free_bytes=1536 * MIB, at=directory)
        forget_scratch(directory)
        with tempfile.TemporaryDirectory(dir=directory, prefix=SCRATCH) as scratch:
            components = ("main", card_firmware.COMPONENT) if firmware else ("main",)
            archive = Archive(workdir / "apt", RELEASE, components)
            image = _build(Path(scratch), archive, directory, progress, firmware=firmware)
    progress("deploy agent built", 1.0)
    return image


def _build(scratch: Path, archive: Archive, directory: Path, progress: Progress, *, firmware: bool) -> AgentImage:
    progress("fetching Debian's package lists", 0.0)
    if firmware:
        _refresh_with_firmware(archive)
    else:
        archive.refresh()
    kernel = archive.dependency("linux-image-amd64")
    wanted = (kernel, *medium.PACKAGES, *initramfs.PACKAGES, *(card_firmware.PACKAGES if firmware else ()))
    fetched = archive.fetch(wanted, lambda part: progress("fetching packages", 0.2 + 0.3 * part))
    progress("unpacking packages", 0.5)
    packages, new, linux = scratch / "packages", scratch / "new", kernel.removeprefix("linux-image-")
    unpack(fetched, packages)
    progress("making the root file system", 0.65)
    loaded = initramfs.make_tree(packages, scratch / "tree", linux=linux, firmware=firmware)
    progress("compressing it", 0.8)
    new.mkdir()
    shutil.copy(packages / f"boot/vmlinuz-{linux}", new / KERNEL)
    _compress(scratch / "tree", new / INITRD)
    progress("writing the ISO", 0.9)
    hole = _write_iso(scratch / "boot", new, packages)
    progress("putting it in place", 0.95)
    return put_in_place(new, directory, hole_offset=hole, linux=linux, firmware=loaded)


def _refresh_with_firmware(archive: Archive) -> None:
    """Raises Unreachable where there is none, with how to do without."""
    without = (
        f"{card_firmware.COMPONENT} has what many network cards and controllers do not work without: have a mirror "
        f"with it among the host's apt sources, or do without it: `{WITHOUT_FIRMWARE}`"
    )
    try:
        archive.refresh()
    except Unreachable as error:
        raise Unreachable(f"{error.message}. Debian's component {without}") from error
    if missing := archive.missing(*card_firmware.PACKAGES):
        raise Unreachable(f"the mirrors of this host do not have {', '.join(missing)}. Debian's component {without}")


def _compress(tree: Path, initrd: Path) -> None:
    with zstd.open(initrd, "wb", level=ZSTD_LEVEL) as file:
        for piece in newc(tree):
            file.write(piece)


def _write_iso(boot: Path, new: Path, packages: Path) -> int:
    """Write the ISO of the kernel and the initrd; returns where its hole begins, in bytes."""
    boot.mkdir()
    for name in (KERNEL, INITRD):
        shutil.copy(new / name, boot / name)
    name = hashlib.sha256((digest(new / KERNEL) + digest(new / INITRD)).encode()).hexdigest()[:16]
    return medium.write_iso(new / ISO, boot, packages, name=name)
