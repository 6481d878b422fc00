"""What an image file is, for filling in what somebody who registers it left out."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

from oslo_utils.imageutils import format_inspector

from mulligan.activities.errors import AccessDenied, ImageRejected, NotFound
from mulligan.activities.images.bootable import check_initrd, firmware_of_iso, firmware_of_kernel, is_iso, is_kernel
from mulligan.activities.images.expand import detect_compression, expanded
from mulligan.activities.images.safety import RAW_NAMES, look
from mulligan.activities.values import Compression, Firmware, ImageFormat


@dataclass(frozen=True, slots=True)
class FileFacts:
    """The facts of an image file, in the words of `values.Image`."""

    digest: str
    """`sha256:<hex>` of the file as it is."""
    size_bytes: int
    format: ImageFormat
    compression: Compression
    virtual_size_bytes: int
    """Of the disk; 0 for what is no disk."""
    firmware: tuple[Firmware, ...] = ()
    """What boots it, where that can be read."""


def describe_file(path: Path, *, max_virtual_bytes: int = 1024**4) -> FileFacts:
    """Read the file once, or twice when it is compressed. Blocks, for as long as that takes.

    Raises `NotFound`, `AccessDenied`, or `ImageRejected` when it is no image that could be provisioned.
    """
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            size = file.tell()
    except (FileNotFoundError, IsADirectoryError) as error:
        raise NotFound(f"no image file at {path}; check the path", path=path) from error
    except PermissionError as error:
        raise AccessDenied(f"the image file {path} may not be read; allow it", path=path) from error
    compression = detect_compression(path)
    for form, looks_so, firmware_of in _LIVE:
        if looks_so(path):
            boots = tuple(sorted(firmware_of(path)))
            return FileFacts(f"sha256:{digest}", size, form, Compression.NONE, 0, boots)
    if compression is Compression.NONE:
        found = look(path)
        name, virtual_size = found.format, found.virtual_size_bytes
    else:
        name, virtual_size = _look_inside(path, compression, max_virtual_bytes)
    if name not in (ImageFormat.RAW, ImageFormat.QCOW2):
        raise ImageRejected(
            f"{path} is {name}, and images must be raw or qcow2, a bootable ISO or a kernel; convert it "
            "(qemu-img convert -O qcow2), or unpack it first",
            found=name,
        )
    return FileFacts(f"sha256:{digest}", size, ImageFormat(name), compression, virtual_size)


def describe_initrd(path: Path) -> str:
    """The digest of a kernel's initrd. Blocks. Raises as `describe_file`."""
    try:
        check_initrd(path)
        with path.open("rb") as file:
            return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
    except (FileNotFoundError, IsADirectoryError) as error:
        raise NotFound(f"no initrd at {path}; check the path", path=path) from error
    except PermissionError as error:
        raise AccessDenied(f"the initrd {path} may not be read; allow it", path=path) from error


_LIVE = ((ImageFormat.ISO, is_iso, firmware_of_iso), (ImageFormat.KERNEL, is_kernel, firmware_of_kernel))
"""What is booted as it is: how it is known, and which firmware boots it."""


def _look_inside(path: Path, compression: Compression, limit: int) -> tuple[str, int]:
    """Detect the format of what a compressed file holds, without writing it anywhere."""
    size = 0
    with path.open("rb") as file:
        # Iterating is all that the wrapper does with it here.
        wrapper = format_inspector.InspectWrapper(cast(IO[bytes], expanded(file, compression)))
        for piece in wrapper:
            size += len(piece)
            if size > limit:
                raise ImageRejected(f"{path} expands to more than {limit} bytes; use a smaller image", limit=limit)
    try:
        inspector = wrapper.format
    except format_inspector.ImageFormatError as error:
        raise ImageRejected(f"{path} is not one clear format: {error}", found=error) from error
    if inspector is None or inspector.NAME in RAW_NAMES:
        return ImageFormat.RAW, size
    return inspector.NAME, inspector.virtual_size
