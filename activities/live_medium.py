"""A medium around a live kernel: an ISO that boots it by BIOS and by UEFI, with the loaders of the deploy agent's own.

Shim and GRUB are those that Debian signed, so that with Secure Boot only a kernel boots that they accept. As in the
agent's ISO, a run's kernel arguments are written into a hole while it is served; the file is the same for all runs, is
kept beside the kernel in the image store, and goes with it.
"""

from __future__ import annotations

import hashlib
import io
import mmap
import os
from dataclasses import dataclass
from pathlib import Path

import pycdlib
from pycdlib.pycdlibexception import PyCdlibException

from mulligan.activities.agent.image import HOLE_BYTES, AgentImage, empty_hole
from mulligan.activities.drivers.base import BaseImage, Deadline, Progress
from mulligan.activities.errors import HostNotReady
from mulligan.activities.images.bootable import boot_entries
from mulligan.activities.images.flight import single_flight
from mulligan.activities.images.partial import require_space, sync_directory
from mulligan.activities.images.store import MEDIUM
from mulligan.activities.threads import run_blocking
from mulligan.activities.values import Firmware

ARGUMENTS_BYTES = HOLE_BYTES - 64
PADDING_BYTES = 150 * 2048
"""After the last file: a BIOS reads many sectors at once, and gives none of them where the medium ends in between."""
LABEL = "MULLIGAN_LIVE"
_GRUB, _MARK, _ELTORITO = "/boot/grub", "mulligan-", "/boot/grub/eltorito.img"
_CONFIG = """\
# The kernel arguments of a run are written over the lines that follow.
{hole}if [ "$grub_platform" = pc ]; then
  linux16 /boot/vmlinuz $mulligan
  {initrd16}
else
  linux /boot/vmlinuz $mulligan
  {initrd}
fi
boot
echo "mulligan: the live image could not be started from this medium; trying again in ten seconds"
sleep 10
reboot
"""


@dataclass(frozen=True, slots=True)
class LiveMedium:
    """The ISO, and where in it a run's kernel arguments are written, in bytes."""

    path: Path
    hole_offset: int

    @staticmethod
    def hole(arguments: str) -> str:
        """What is served in the hole's place. The arguments hold no quote, as was checked when they were registered."""
        return f"set mulligan='{arguments}'\n".ljust(HOLE_BYTES, "\n")


async def live_medium(
    agent: AgentImage, kernel: BaseImage, initrd: BaseImage | None, progress: Progress, deadline: Deadline
) -> LiveMedium:
    """Have the medium of a verified kernel and its initrd. Whole or not at all.

    Raises `HostNotReady` when the agent's image, whose loaders it takes, is damaged, or when there is no room.
    """
    key = hashlib.sha256(f"{agent.version} {kernel.digest} {initrd.digest if initrd else ''} {_CONFIG}".encode())
    stem = f"{kernel.digest.replace(':', '-')}.{MEDIUM}{key.hexdigest()[:16]}"
    path, lock = kernel.path.with_name(f"{stem}.iso"), kernel.path.with_name(f"{stem}.lock")
    if not await run_blocking(path.exists):
        async with single_flight(lock, "live medium", progress, deadline) as flight:
            if not await run_blocking(path.exists):
                flight.report("making a medium", 0, kernel.virtual_size_bytes)
                await run_blocking(_write, agent, kernel.path, initrd.path if initrd else None, path)
    return LiveMedium(path, await run_blocking(_hole_of, path))


def _write(agent: AgentImage, kernel: Path, initrd: Path | None, path: Path) -> None:
    needed = sum(each.stat().st_size for each in (kernel, initrd) if each is not None)
    require_space(path.parent, needed + (16 << 20), "making a medium")
    new = path.with_suffix(".new")
    try:
        mark, bios, uefi = _loaders(agent)
        lines = {"initrd16": "initrd16 /boot/initrd.img", "initrd": "initrd /boot/initrd.img"}
        given = lines if initrd is not None else dict.fromkeys(lines, "")
        config = _CONFIG.format(hole=empty_hole().decode(), **given).encode()
        files = {f"/boot/{mark}": b"", f"{_GRUB}/grub.cfg": config, _ELTORITO: bios, "/boot/esp.img": uefi}
        _master(new, files, {"/boot/vmlinuz": kernel, **({"/boot/initrd.img": initrd} if initrd else {})}, len(uefi))
        with new.open("rb") as file:
            os.fsync(file.fileno())
        new.rename(path)
        sync_directory(path.parent)
    finally:
        new.unlink(missing_ok=True)


def _loaders(agent: AgentImage) -> tuple[str, bytes, bytes]:
    """From the agent's ISO: the file by which GRUB knows its medium, what a BIOS starts, and what UEFI starts."""
    try:
        disc = pycdlib.PyCdlib()
        disc.open(str(agent.iso))
        try:
            named = [child.rock_ridge for child in disc.list_children(rr_path="/boot") if child.rock_ridge is not None]
            names = [each.name().decode() for each in named]
            content = io.BytesIO()
            disc.get_file_from_iso_fp(content, rr_path=_ELTORITO)
        finally:
            disc.close()
        mark = next(name for name in names if name.startswith(_MARK))
        entry = next(each for each in boot_entries(agent.iso) if each.firmware is Firmware.UEFI)
    except (PyCdlibException, StopIteration, OSError) as error:
        raise HostNotReady(
            f"the deploy agent's ISO {agent.iso} has not the loaders that a live kernel's medium needs "
            f"({type(error).__name__}: {error}); build it again with `mulligan agent build`",
            remedy="mulligan agent build",
        ) from error
    with agent.iso.open("rb") as file:
        file.seek(entry.offset)
        return mark, content.getvalue(), file.read(entry.bytes)


def _master(new: Path, files: dict[str, bytes], large: dict[str, Path], uefi_bytes: int) -> None:
    """Write the ISO. Its names are those of Rock Ridge, which GRUB reads; the others are only counted."""
    disc = pycdlib.PyCdlib()
    disc.new(interchange_level=3, rock_ridge="1.09", vol_ident=LABEL)
    disc.add_directory("/BOOT", rr_name="boot")
    disc.add_directory("/BOOT/GRUB", rr_name="grub")
    plain: dict[str, str] = {}
    for number, name in enumerate((*files, *large)):
        folder = "/BOOT/GRUB" if name.startswith(f"{_GRUB}/") else "/BOOT"
        plain[name] = f"{folder}/F{number}.;1"
    for name, content in files.items():
        disc.add_fp(io.BytesIO(content), len(content), plain[name], rr_name=name.rpartition("/")[2])
    for name, path in large.items():
        disc.add_file(str(path), plain[name], rr_name=name.rpartition("/")[2])
    disc.add_eltorito(
        plain[_ELTORITO], "/BOOT/CATALOG.;1", rr_bootcatname="boot.cat", boot_load_size=4, boot_info_table=True
    )
    disc.add_eltorito(plain["/boot/esp.img"], boot_load_size=uefi_bytes // 512, platform_id=0xEF, efi=True)
    disc.write(str(new))
    disc.close()
    with new.open("ab") as file:
        file.write(bytes(PADDING_BYTES))


def _hole_of(path: Path) -> int:
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        at = content.find(empty_hole())
    if at < 0:
        raise HostNotReady(f"the medium {path} has no room for kernel arguments; remove it, and it is made anew")
    return at
