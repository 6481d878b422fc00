"""What live images must be: an ISO 9660 image with a boot record, a Linux kernel, an initrd. Read, never run.

An ISO's boot record is that of "El Torito" (Phoenix/IBM, 1995, section 2); a kernel's header that of Linux's
Documentation/arch/x86/boot.rst. What is checked is what a server would fail on without a word.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from mulligan.activities.errors import ImageRejected
from mulligan.activities.values import Firmware, Image, ImageFormat

SECTOR_BYTES = 2048
FIRST_DESCRIPTOR = 16
MOST_DESCRIPTORS = 64
CATALOG_BYTES = 2 * SECTOR_BYTES
_ENTRY_BYTES = 32
_PLATFORMS = {0x00: Firmware.BIOS, 0xEF: Firmware.UEFI}
_BOOTABLE, _SECTIONS, _LAST_SECTION = 0x88, (0x90, 0x91), 0x91

_HEADER_BYTES = 0x300
_INITRD_MAGICS = (
    *(b"070701", b"070702", b"\x1f\x8b", b"\xfd7zXZ\x00", b"\x28\xb5\x2f\xfd", b"\x02\x21\x4c\x18"),
    *(b"\x5d\x00\x00", b"BZh", b"\x89LZO"),
)
"""cpio, and what Linux unpacks: gzip, xz, zstd, lz4, lzma, bzip2, lzo."""


@dataclass(frozen=True, slots=True)
class BootEntry:
    """One thing on a medium that a firmware can start."""

    firmware: Firmware
    offset: int
    """Where it begins, in bytes."""
    bytes: int
    """How much of it the boot record names; loaders read the rest by themselves."""


def check_bootable(path: Path, image: Image) -> int:
    """The size in bytes of a live image's file that is what it was declared as. Raises `ImageRejected`. Blocks."""
    size = path.stat().st_size
    if image.format is ImageFormat.INITRD:
        check_initrd(path)
        return size
    found = firmware_of_iso(path) if image.format is ImageFormat.ISO else firmware_of_kernel(path)
    if missing := [each for each in image.firmware if each not in found]:
        boots, lacks = " and ".join(sorted(found)), " and ".join(missing)
        raise ImageRejected(
            f"{image.name} was declared to boot with {' and '.join(image.firmware)}, and has nothing that {lacks} "
            f"could start; it boots with {boots}: register it so",
            found=boots,
            declared=" and ".join(image.firmware),
        )
    return size


def is_iso(path: Path) -> bool:
    """Whether it looks like an ISO 9660 image. Blocks."""
    with path.open("rb") as file:
        return _sector(file, FIRST_DESCRIPTOR)[1:6] == b"CD001"


def is_kernel(path: Path) -> bool:
    """Whether it looks like a Linux kernel for x86. Blocks."""
    with path.open("rb") as file:
        return file.read(_HEADER_BYTES)[0x202:0x206] == b"HdrS"


def firmware_of_iso(path: Path) -> frozenset[Firmware]:
    """The firmware that can start the medium, which is whole. Raises `ImageRejected`. Blocks."""
    return frozenset(entry.firmware for entry in boot_entries(path))


def boot_entries(path: Path) -> tuple[BootEntry, ...]:
    """What the medium's boot record names: one entry at least. Raises `ImageRejected`. Blocks."""
    size = path.stat().st_size
    with path.open("rb") as file:
        catalog = _catalog(file, size)
        entries = tuple(_entries(catalog))
    if not entries:
        raise _no_medium("its boot record names nothing that a PC could start")
    for entry in entries:
        if entry.offset >= size:
            raise _no_medium(f"it ends at byte {size}, before what its boot record names: it was cut off")
    return entries


def _catalog(file: IO[bytes], size: int) -> bytes:
    """The boot record's catalog."""
    found = -1
    for number in range(FIRST_DESCRIPTOR, FIRST_DESCRIPTOR + MOST_DESCRIPTORS):
        descriptor = _sector(file, number)
        if descriptor[1:6] != b"CD001":
            raise _no_medium("it is no ISO 9660 image, or was cut off" if found < 0 else "its descriptors do not end")
        if descriptor[0] == 1:
            (blocks,), (block,) = struct.unpack_from("<I", descriptor, 80), struct.unpack_from("<H", descriptor, 128)
            if blocks * block > size:
                raise _no_medium(f"it has {size} bytes and says that it has {blocks * block}: it was cut off")
        elif descriptor[0] == 0 and descriptor[7:30] == b"EL TORITO SPECIFICATION":
            (found,) = struct.unpack_from("<I", descriptor, 71)
        elif descriptor[0] == 255:
            break
    if found < 0:
        raise _no_medium("it has no boot record: nothing can be booted from it")
    file.seek(found * SECTOR_BYTES)
    return file.read(CATALOG_BYTES)


def _entries(catalog: bytes) -> Iterator[BootEntry]:
    """The bootable entries, in their order. The first two are the catalog's own and the default entry."""
    head = catalog[:_ENTRY_BYTES]
    words = struct.unpack("<16H", head) if len(head) == _ENTRY_BYTES else (1,)
    if head[:1] != b"\x01" or head[30:32] != b"\x55\xaa" or sum(words) & 0xFFFF:
        raise _no_medium("its boot catalog is damaged, or was cut off")
    platform, left, last = head[1], 1, False
    for at in range(_ENTRY_BYTES, len(catalog) - _ENTRY_BYTES + 1, _ENTRY_BYTES):
        entry = catalog[at : at + _ENTRY_BYTES]
        if left:
            left -= 1
            sectors, block = struct.unpack_from("<HI", entry, 6)
            if entry[0] == _BOOTABLE and platform in _PLATFORMS:
                yield BootEntry(_PLATFORMS[platform], block * SECTOR_BYTES, sectors * 512)
        elif not last and entry[0] in _SECTIONS:
            platform, last = entry[1], entry[0] == _LAST_SECTION
            (left,) = struct.unpack_from("<H", entry, 2)
        else:
            return


def firmware_of_kernel(path: Path) -> frozenset[Firmware]:
    """The firmware that can start the kernel, which is whole. Raises `ImageRejected`. Blocks."""
    size = path.stat().st_size
    with path.open("rb") as file:
        header = file.read(_HEADER_BYTES)
    if len(header) < _HEADER_BYTES or header[0x1FE:0x200] != b"\x55\xaa" or header[0x202:0x206] != b"HdrS":
        raise ImageRejected(
            "the image was declared as a kernel, and is no Linux kernel for x86 (bzImage); give the file that "
            "distributions call vmlinuz",
            declared=ImageFormat.KERNEL,
        )
    (paragraphs,) = struct.unpack_from("<I", header, 0x1F4)
    whole = ((header[0x1F1] or 4) + 1) * 512 + paragraphs * 16
    if whole > size:
        raise ImageRejected(
            f"the kernel has {size} bytes and says that it has {whole}: it was cut off; fetch it again, and register "
            "its whole file",
            found=size,
            expected=whole,
        )
    starts_by_uefi = header[:2] == b"MZ"
    return frozenset({Firmware.BIOS, *((Firmware.UEFI,) if starts_by_uefi else ())})


def check_initrd(path: Path) -> None:
    """Raise `ImageRejected` for what Linux would not take for an initrd. Blocks."""
    with path.open("rb") as file:
        if not file.read(8).startswith(_INITRD_MAGICS):
            raise ImageRejected(
                "the initrd is neither a cpio archive nor compressed in a way that Linux unpacks; give the file that "
                "distributions call initrd.img",
                declared=ImageFormat.INITRD,
            )


def _sector(file: IO[bytes], number: int) -> bytes:
    """A sector; zeros after the end."""
    file.seek(number * SECTOR_BYTES)
    return file.read(SECTOR_BYTES).ljust(SECTOR_BYTES, b"\0")


def _no_medium(why: str) -> ImageRejected:
    return ImageRejected(
        f"the image was declared as a bootable ISO, and cannot be booted: {why}; give the whole file of a bootable "
        "CD or DVD",
        declared=ImageFormat.ISO,
        found=why,
    )
