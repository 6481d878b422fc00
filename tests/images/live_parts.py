"""Live images for tests: media with boot records of every sort, and what looks like a kernel and an initrd."""

from __future__ import annotations

import hashlib
import io
import struct
from functools import cache
from pathlib import Path
from typing import Any

import pycdlib

from mulligan.activities.values import Firmware, Image, ImageFormat

LOADER = b"a loader" * 512
BOTH = (Firmware.BIOS, Firmware.UEFI)


@cache
def an_iso(firmware: tuple[Firmware, ...] = BOTH, content: bytes = b"the rest of the medium" * 1000) -> bytes:
    """A medium that boots with this firmware; with none, it has no boot record. The same each time, its dates too."""
    disc = pycdlib.PyCdlib()
    disc.new(interchange_level=3)
    files = {"/BIOS.;1": LOADER, "/UEFI.;1": LOADER, "/REST.;1": content}
    for name, data in files.items():
        disc.add_fp(io.BytesIO(data), len(data), name)
    if Firmware.BIOS in firmware:
        disc.add_eltorito("/BIOS.;1", "/BOOT.CAT;1", boot_load_size=4)
    if Firmware.UEFI in firmware:
        disc.add_eltorito("/UEFI.;1", "/BOOT.CAT;1", boot_load_size=8, platform_id=0xEF, efi=True)
    written = io.BytesIO()
    disc.write_fp(written)
    disc.close()
    return written.getvalue()


def a_kernel(*, uefi: bool = True, size: int = 8192) -> bytes:
    """What has a Linux kernel's header, and says that it is so long."""
    sectors = 3
    header = bytearray(size)
    header[:2] = b"MZ" if uefi else b"\xea\x05"
    header[0x1F1] = sectors
    struct.pack_into("<I", header, 0x1F4, (size - (sectors + 1) * 512) // 16)
    header[0x1FE:0x200] = b"\x55\xaa"
    header[0x202:0x206] = b"HdrS"
    return bytes(header)


INITRD = b"070701" + b"what a machine is started with" * 300


def digest_of(content: bytes) -> str:
    """As images are named by."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def live_iso(folder: Path, content: bytes | None = None, **said: Any) -> Image:
    """A registered ISO, whose file is in this folder."""
    data = an_iso() if content is None else content
    path = folder / f"{hashlib.sha256(data).hexdigest()[:12]}.iso"
    path.write_bytes(data)
    return Image("rescue", path.as_uri(), digest_of(data), ImageFormat.ISO, **said)


def live_kernel(folder: Path, kernel: bytes | None = None, initrd: bytes = INITRD, **said: Any) -> Image:
    """A registered kernel with its initrd, whose files are in this folder."""
    data = a_kernel() if kernel is None else kernel
    (folder / "vmlinuz").write_bytes(data)
    (folder / "initrd.img").write_bytes(initrd)
    given = {"initrd_source": (folder / "initrd.img").as_uri(), "initrd_digest": digest_of(initrd)} | said
    return Image("diskless", (folder / "vmlinuz").as_uri(), digest_of(data), ImageFormat.KERNEL, **given)
