"""A raw disk compressed for its way to servers on a slow network: made once, kept beside the image, verified.

<algorithm>-<hex>.disk.zst        the raw disk as one zstd stream
<algorithm>-<hex>.disk.zst.json   of which disk it is, and its size
<algorithm>-<hex>.disk.zst.new    while it is made, not yet believed
<algorithm>-<hex>.disk.zst.lock   there while somebody works on it
"""

from __future__ import annotations

import hashlib
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from mulligan.activities.drivers.base import BaseImage, Deadline, Progress
from mulligan.activities.errors import ImageRejected
from mulligan.activities.images.expand import expanded
from mulligan.activities.images.flight import Flight, single_flight
from mulligan.activities.images.partial import require_space, sync_directory, sync_file, write_whole
from mulligan.activities.images.raw import RawDisk
from mulligan.activities.threads import run_blocking
from mulligan.activities.values import Compression

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

STEP_BYTES = 4 * 1024**2
LEVEL = 3
KEPT_BESIDE = ("disk.zst", "disk.zst.json", "disk.zst.new", "disk.zst.json.new")
"""What is kept here beside an image, and goes with it."""


@dataclass(frozen=True, slots=True)
class PackedDisk:
    """A raw disk as one zstd stream."""

    path: Path
    bytes: int
    """Of the stream."""


@dataclass(frozen=True, slots=True)
class _Known:
    """What was found out about a file that looks so."""

    of: str
    bytes: int
    mtime_ns: int


async def packed_disk(image: BaseImage, disk: RawDisk, progress: Progress, deadline: Deadline) -> PackedDisk:
    """Have a raw disk's zstd stream. Whole or not at all, and only if it expands to that disk again.

    `progress` is called with `compress` and `verify`, and bytes of the disk. Raises `HostNotReady` where there is no
    room, `ImageRejected` where the disk's file is no longer what it was, `Unreachable` when the deadline passes.
    """
    name, folder = image.digest.replace(":", "-"), image.path.parent
    path = folder / f"{name}.disk.zst"
    sidecar = folder / f"{name}.disk.zst.json"
    if found := await run_blocking(_known, path, sidecar, disk):
        return found
    async with single_flight(folder / f"{name}.disk.zst.lock", "packed disk", progress, deadline) as flight:
        if found := await run_blocking(_known, path, sidecar, disk):
            return found
        new = folder / f"{name}.disk.zst.new"
        try:
            await _pack(disk, new, flight, deadline)
            await _verify(disk, new, flight, deadline)
            return await run_blocking(_keep, new, path, sidecar, disk)
        finally:
            await run_blocking(new.unlink, missing_ok=True)


def _known(path: Path, sidecar: Path, disk: RawDisk) -> PackedDisk | None:
    """The stream, when it is of this disk and was not touched since."""
    try:
        known, there = _Known(**json.loads(sidecar.read_text())), path.stat()
    except (OSError, ValueError, TypeError):
        return None
    if known != _Known(disk.digest, there.st_size, there.st_mtime_ns):
        return None
    return PackedDisk(path, there.st_size)


async def _pack(disk: RawDisk, new: Path, flight: Flight, deadline: Deadline) -> None:
    allocated = (await run_blocking(disk.path.stat)).st_blocks * 512
    await run_blocking(require_space, new.parent, allocated, "compressing the image")
    with disk.path.open("rb", buffering=0) as source, zstd.open(new, "wb", level=LEVEL) as target:
        done = 0
        while chunk := await run_blocking(source.read, STEP_BYTES):
            await run_blocking(target.write, chunk)
            done += len(chunk)
            flight.report("compress", done, disk.bytes)
            deadline.check("compress the image")


async def _verify(disk: RawDisk, new: Path, flight: Flight, deadline: Deadline) -> None:
    """That it expands to the disk: nobody is to wait for a transfer that ends with the wrong bytes."""
    digest, done = hashlib.sha256(), 0
    with new.open("rb") as source:
        pieces = expanded(source, Compression.ZSTD)
        while (chunk := await run_blocking(next, pieces, None)) is not None:
            await run_blocking(digest.update, chunk)
            done += len(chunk)
            flight.report("verify", done, disk.bytes)
            deadline.check("verify the compressed image")
    if (done, f"sha256:{digest.hexdigest()}") != (disk.bytes, disk.digest):
        raise ImageRejected(
            f"the image's raw disk was changed since it was prepared: {disk.path.name} has {done} bytes of "
            f"sha256:{digest.hexdigest()}, and had {disk.bytes} of {disk.digest}; remove the file, and it is made anew",
            expected=disk.digest,
        )


def _keep(new: Path, path: Path, sidecar: Path, disk: RawDisk) -> PackedDisk:
    sync_file(new)
    new.chmod(0o444)
    new.rename(path)
    sync_directory(path.parent)
    there = path.stat()
    write_whole(sidecar, json.dumps(asdict(_Known(disk.digest, there.st_size, there.st_mtime_ns))).encode())
    return PackedDisk(path, there.st_size)
