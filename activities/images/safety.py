"""Looks into a disk image, after its digest was verified, and refuses what could harm the host.

The header is read by oslo.utils' format inspectors, which never follow what a header points to. `qemu-img` is only run
afterwards, with the format given, under limits of memory and time.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from pathlib import Path

from oslo_utils.imageutils import format_inspector

from mulligan.activities.drivers.base import Deadline
from mulligan.activities.errors import HostNotReady, ImageRejected, Unreachable
from mulligan.activities.images.expand import detect_compression
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
    command = ("prlimit", *QEMU_IMG_LIMITS, "qemu-img", "check", "-f", "qcow2", "--output=json", str(path))
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"},
        )
    except FileNotFoundError as error:
        raise _no_qemu_img("prlimit") from error
    try:
        async with asyncio.timeout(deadline.remaining):
            out, err = await process.communicate()
    except TimeoutError as error:
        raise Unreachable("qemu-img check did not end within the time given; it will be tried again") from error
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    _judge(process.returncode or 0, out, err)


def _judge(code: int, out: bytes, err: bytes) -> None:
    if code in (0, 3):  # 3: clusters are leaked, which wastes space and harms nothing
        return
    said = err.decode(errors="replace").strip()
    if code == 127 or (code == 1 and "failed to execute qemu-img" in said):
        raise _no_qemu_img("qemu-img")
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


def _no_qemu_img(program: str) -> HostNotReady:
    package = "qemu-utils" if program == "qemu-img" else "util-linux"
    return HostNotReady(
        f"a qcow2 image is checked with {program}, which is not installed on this host; install it",
        remedy=f"apt-get install --no-install-recommends {package}",
    )
