"""Looks into a disk image, after its digest was verified, and refuses what could harm the host.

The header is read by oslo.utils' format inspectors, which never follow what a header points to. `qemu-img` is only run
afterwards, with the format given, under limits of memory and time.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from oslo_utils.imageutils import format_inspector

from mulligan.activities.drivers.base import Deadline
from mulligan.activities.errors import ImageRejected
from mulligan.activities.images.expand import detect_compression
from mulligan.activities.images.qemu_img import qemu_img
from mulligan.activities.values import Compression, ImageFormat

RAW_NAMES = ("raw", "gpt")
"""What raw disks are detected as: nothing in particular, or something with a partition table (MBR or GPT)."""
QEMU_IMG_LIMITS = ("--as=2147483648", "--cpu=300", "--core=0", "--fsize=0")
"""2 GiB of memory and 300 seconds of CPU are ample for checking; nothing may be written."""


@dataclass(frozen=True, slots=True)
class Found:
    """What a disk image is: `format` is the inspector's word for it."""

    format: str
    virtual_size_bytes: int


def look(path: Path) -> Found:
    """Detect the format and run its safety checks. Raises `ImageRejected`. Blocks."""
    try:
        inspector = format_inspector.detect_file_format(str(path))
        if inspector is None or inspector.NAME in RAW_NAMES:
            return Found(ImageFormat.RAW, path.stat().st_size)
        if inspector.NAME == ImageFormat.QCOW2:
            inspector.safety_check()
        return Found(inspector.NAME, inspector.virtual_size)
    except format_inspector.SafetyCheckFailed as error:
        why = "; ".join(str(failure) for failure in error.failures.values())
        raise _unsafe(why) from error
    except format_inspector.ImageFormatError as error:
        raise _unsafe(str(error)) from error


def check_disk(path: Path, declared: ImageFormat, *, declared_virtual_bytes: int, max_virtual_bytes: int) -> Found:
    """Refuse an image that is not of the declared format and size, or too large. Raises `ImageRejected`. Blocks."""
    found = look(path)
    compression = detect_compression(path)
    seen = found.format if compression is Compression.NONE else compression.value
    if seen != declared:
        raise ImageRejected(
            f"the image was declared as {declared} and its content is {seen}; correct the declared format "
            "or compression",
            declared=declared,
            found=seen,
        )
    check_size(found.virtual_size_bytes, declared_virtual_bytes, max_virtual_bytes)
    return found


def check_size(size: int, declared: int, limit: int) -> None:
    """Refuse a virtual size in bytes that is not the declared one (0 where not known), or too large."""
    if size <= 0:
        raise ImageRejected("the image describes a disk of no size; publish it again", found=size)
    if size > limit:
        raise ImageRejected(
            f"the image describes a disk of {size} bytes and at most {limit} are allowed; use a smaller image, or "
            "raise the limit on virtual sizes",
            found=size,
            limit=limit,
        )
    if declared and size != declared:
        raise ImageRejected(
            f"the image was declared with a disk of {declared} bytes and describes one of {size}; correct "
            "the declaration",
            expected=declared,
            found=size,
        )


def _unsafe(why: str) -> ImageRejected:
    return ImageRejected(
        f"the image is not safe to use: {why}; flatten it into one self-contained file "
        "(qemu-img convert -O qcow2) and register that",
        found=why,
    )


async def check_qcow2(path: Path, deadline: Deadline) -> None:
    """Let `qemu-img check` walk the image's tables. Raises `ImageRejected` when they are damaged."""
    words = ("-f", "qcow2", "--output=json", str(path))
    code, out, said = await qemu_img("check", *words, limits=QEMU_IMG_LIMITS, deadline=deadline)
    if code in (0, 3):  # 3: clusters are leaked, which wastes space and harms nothing
        return
    try:
        counts = json.loads(out)
        said = f"{counts['corruptions']} corruptions" if "corruptions" in counts else said
    except ValueError:
        pass
    raise ImageRejected(
        f"the qcow2 image is damaged (qemu-img check ended with {code}: {said[:300]}); publish it again",
        found=said[:300],
        status=code,
    )
