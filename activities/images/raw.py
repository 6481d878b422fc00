"""The raw disk of an image, for servers whose disk the deploy agent writes: converted once, kept beside the image.

<algorithm>-<hex>.disk         the raw disk, sparse; only where the image is not raw already
<algorithm>-<hex>.disk.json    its size and sha256, so that it need not be read again
<algorithm>-<hex>.disk.new     while it is made, not yet believed
<algorithm>-<hex>.disk.lock    there while somebody works on it
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path

from mulligan.activities.drivers.base import BaseImage, Deadline, Progress
from mulligan.activities.errors import ImageRejected
from mulligan.activities.images.flight import Flight, single_flight
from mulligan.activities.images.partial import require_space, sync_directory, sync_file, write_whole
from mulligan.activities.images.qemu_img import qemu_img
from mulligan.activities.threads import run_blocking
from mulligan.activities.values import ImageFormat

HASH_STEP_BYTES = 4 * 1024**2
CONVERT_LIMITS = ("--as=2147483648", "--cpu=14400", "--core=0")
"""2 GiB of memory and 4 hours of CPU; what is written is limited to the disk's size besides."""
KEPT_BESIDE = ("disk", "disk.json", "disk.new", "disk.json.new")
"""What is kept here beside an image, and goes with it."""
_PERCENT = re.compile(rb"\((\d+)\.\d+/100%\)")


@dataclass(frozen=True, slots=True)
class RawDisk:
    """A raw disk to be served as it is."""

    path: Path
    bytes: int
    digest: str
    """`sha256:<hex>` of all of it."""


@dataclass(frozen=True, slots=True)
class _Known:
    """What was found out about a file that looks so."""

    digest: str
    bytes: int
    mtime_ns: int


async def raw_disk(image: BaseImage, progress: Progress, deadline: Deadline) -> RawDisk:
    """Have the raw disk of a verified image, with its digest. Whole or not at all.

    `progress` is called with `convert` and `verify`, and bytes. Raises `HostNotReady`, `ImageRejected`, `Unreachable`.
    """
    plain = image.format is ImageFormat.RAW
    name = image.digest.replace(":", "-")
    folder = image.path.parent
    path = image.path if plain else folder / f"{name}.disk"
    sidecar = folder / f"{name}.disk.json"
    if found := await run_blocking(_known, path, sidecar):
        return found
    async with single_flight(folder / f"{name}.disk.lock", "raw disk", progress, deadline) as flight:
        if found := await run_blocking(_known, path, sidecar):
            return found
        if plain:
            return await _hashed(path, path, sidecar, flight, deadline)
        new = folder / f"{name}.disk.new"
        try:
            await _convert(image, new, flight, deadline)
            return await _hashed(new, path, sidecar, flight, deadline)
        finally:
            await run_blocking(new.unlink, missing_ok=True)


def _known(path: Path, sidecar: Path) -> RawDisk | None:
    """The disk, when it was read before and was not touched since."""
    try:
        known, there = _Known(**json.loads(sidecar.read_text())), path.stat()
    except (OSError, ValueError, TypeError):
        return None
    if (there.st_size, there.st_mtime_ns) != (known.bytes, known.mtime_ns):
        return None
    return RawDisk(path, known.bytes, known.digest)


async def _hashed(made: Path, path: Path, sidecar: Path, flight: Flight, deadline: Deadline) -> RawDisk:
    """Read the file for its digest, then give it its name."""
    digest, total = hashlib.sha256(), (await run_blocking(made.stat)).st_size
    with made.open("rb", buffering=0) as file:
        while chunk := await run_blocking(file.read, HASH_STEP_BYTES):
            await run_blocking(digest.update, chunk)
            flight.report("verify", file.tell(), total)
            deadline.check("read the raw disk")
    return await run_blocking(_keep, made, path, sidecar, f"sha256:{digest.hexdigest()}")


def _keep(made: Path, path: Path, sidecar: Path, digest: str) -> RawDisk:
    if made != path:
        made.chmod(0o444)
        made.rename(path)
        sync_directory(path.parent)
    there = path.stat()
    write_whole(sidecar, json.dumps(asdict(_Known(digest, there.st_size, there.st_mtime_ns))).encode())
    return RawDisk(path, there.st_size, digest)


async def _convert(image: BaseImage, new: Path, flight: Flight, deadline: Deadline) -> None:
    size = image.virtual_size_bytes
    allocated = (await run_blocking(image.path.stat)).st_size
    await run_blocking(require_space, new.parent, min(size, 2 * allocated), "converting the image")

    def heard(said: bytes) -> None:
        if percents := _PERCENT.findall(said):
            flight.report("convert", size * int(percents[-1]) // 100, size)

    words = ("-p", "-t", "writeback", "-f", image.format.value, "-O", "raw", str(image.path), str(new))
    limits = (*CONVERT_LIMITS, f"--fsize={size}")
    code, _, said = await qemu_img("convert", *words, limits=limits, deadline=deadline, heard=heard)
    if code:
        raise ImageRejected(
            f"the image cannot be made raw: qemu-img convert ended with {code}: {said[:300]}; publish it again",
            found=said[:300],
            status=code,
        )
    await run_blocking(sync_file, new)
