"""The image store: every image fetched once, verified before anything believes it, and kept under its digest.

<directory>/<algorithm>-<hex>.raw|.qcow2   the expanded disk, read-only
<directory>/<algorithm>-<hex>.iso|.kernel|.initrd   what a live machine is booted from, likewise
<directory>/<algorithm>-<hex>.json         what was verified, so that it need not be again
<directory>/<algorithm>-<hex>.part[.json]  an interrupted download, to be resumed
<directory>/<algorithm>-<hex>.expanding    the disk while it is expanded, not yet believed
<directory>/<algorithm>-<hex>.lock         there while somebody works on it
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
from collections.abc import AsyncIterator, Awaitable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from mulligan.activities.drivers.base import BaseImage, Deadline, Progress
from mulligan.activities.errors import Busy, Final, ImageRejected, InvalidRequest, Unreachable
from mulligan.activities.images import packed, raw
from mulligan.activities.images.bootable import check_bootable
from mulligan.activities.images.disk_hash import DISK_HASH, DiskHash
from mulligan.activities.images.expand import Expansion
from mulligan.activities.images.fetch import check_scheme, fetch_file, fetch_http, local_size, shown
from mulligan.activities.images.flight import Flight, single_flight
from mulligan.activities.images.intake import Intake
from mulligan.activities.images.partial import (
    Partial,
    disk_full_named,
    require_space,
    sync_directory,
    write_whole,
)
from mulligan.activities.images.safety import check_disk, check_qcow2, check_size
from mulligan.activities.threads import run_blocking, run_in
from mulligan.activities.values import Compression, Image, ImageFormat

GIB = 1024**3
DIGEST = re.compile(r"sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}")
HASH_STEP_BYTES = 1024**2
MEDIUM = "medium-"
"""What the suffixes of media begin with that were made around a kernel, and go with it."""
BOOT = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True)
class Stock:
    """How much of an image is here, and how much would have to be fetched."""

    there_bytes: int = 0
    """Size of the verified disk; 0 when it is not here."""
    fetch_bytes: int = 0
    """What would be fetched, as far as that is known before; 0 when nothing would be."""


@dataclass(frozen=True, slots=True)
class _Verified:
    """The marker beside a disk: `content` is the digest of the expanded bytes.

    `boot` is the boot of this host in which they were written, as nobody waited for them to be on the disk. After
    another boot they are verified again, from the disk, and it is empty.
    """

    format: ImageFormat
    compression: Compression
    content: str
    virtual_size_bytes: int
    size: int = 0
    mtime_ns: int = 0
    boot: str = ""


def check_digest(digest: str) -> None:
    """Raise `InvalidRequest` unless the digest is `sha256:` or `sha512:` and lower-case hex of the right length."""
    if not DIGEST.fullmatch(digest):
        raise InvalidRequest(
            f"'{digest[:160]}' is no digest that images can be named by; give sha256:<64 hex digits> or "
            "sha512:<128 hex digits> (md5 and sha1 are refused)",
            violations=[("digest", "must be sha256:<64 hex digits> or sha512:<128 hex digits>")],
        )


class ImageStore:
    """The images in one directory, which any number of processes on this host may share.

    `file_roots` are the directories from which `file:` sources may come. `max_download_bytes` caps the bytes behind a
    source, `max_virtual_bytes` the disk that an image describes, `max_ratio` how much an image of more than 256 MiB may
    grow by expansion.
    """

    def __init__(
        self,
        directory: Path,
        *,
        file_roots: Sequence[Path] = (),
        max_download_bytes: int = 64 * GIB,
        max_virtual_bytes: int = 1024 * GIB,
        max_ratio: int = 500,
    ) -> None:
        self._directory = directory
        self._roots = tuple(file_roots)
        self._max_download = max_download_bytes
        self._max_virtual = max_virtual_bytes
        self._max_ratio = max_ratio
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)

    async def ensure(self, image: Image, progress: Progress, deadline: Deadline) -> BaseImage:
        """Have the image on disk, verified, and say where.

        `progress` is called with `download`, `verify`, `expand` or `inspect`, and bytes. Raises `ImageRejected`,
        `NotFound`, `AccessDenied`, `Unsupported`, `InvalidRequest` or `HostNotReady` when this image cannot be had, and
        leaves nothing of it; `Unreachable` or `Busy` when a later try may go on from what was fetched.
        """
        check_digest(image.digest)
        check_scheme(image.source)
        if found := await run_blocking(self._known, image):
            return found
        asked = f"{hashlib.sha256(image.source.encode()).hexdigest()} {image.format} {image.compression}"
        async with single_flight(self._path(image.digest, "lock"), asked, progress, deadline) as flight:
            found = await run_blocking(self._known, image) or await self._again(image, flight, deadline)
            return found or await self._obtain(image, flight, deadline)

    async def stock(self, image: Image) -> Stock:
        """What `ensure` would find. Fetches nothing and waits for nobody.

        Raises `ImageRejected`, `NotFound`, `AccessDenied`, `Unsupported` or `InvalidRequest` where `ensure` would, as
        far as it can be told without the bytes.
        """
        check_digest(image.digest)
        scheme = check_scheme(image.source)
        if found := await run_blocking(self._known, image):
            return Stock(there_bytes=await run_blocking(_size, found.path))
        if scheme == "file":
            return Stock(fetch_bytes=await run_blocking(local_size, image.source, self._roots))
        return Stock(fetch_bytes=image.size_bytes)

    async def remove(self, digest: str) -> bool:
        """Remove all that is kept of the digest; False when there was nothing. `Busy` while somebody prepares it."""
        check_digest(digest)
        lock, now = self._path(digest, "lock"), Deadline.after(0.0)
        try:
            async with single_flight(lock, "remove", lambda *_: None, now):
                return await run_blocking(self._remove, digest)
        except Unreachable as error:
            raise Busy(
                f"the image {digest} is being prepared just now; remove it afterwards", after_seconds=10
            ) from error

    def _path(self, digest: str, suffix: str) -> Path:
        return self._directory / f"{digest.replace(':', '-')}.{suffix}"

    def _partial(self, digest: str) -> Partial:
        return Partial(self._path(digest, "part"))

    def _remove(self, digest: str) -> bool:
        own = ("json", "part", "part.json", "expanding", "json.new", "part.json.new")
        names = (*own, *ImageFormat, *raw.KEPT_BESIDE, *packed.KEPT_BESIDE)
        there = [path for name in names if (path := self._path(digest, name)).exists()]
        there += self._directory.glob(f"{digest.replace(':', '-')}.{MEDIUM}*")
        for path in there:
            path.unlink(missing_ok=True)
        sync_directory(self._directory)
        return bool(there)

    def _marker(self, digest: str) -> _Verified | None:
        try:
            fields = json.loads(self._path(digest, "json").read_text())
            fields["format"] = ImageFormat(fields["format"])
            fields["compression"] = Compression(fields["compression"])
            return _Verified(**fields)
        except (OSError, ValueError, TypeError, KeyError):
            return None

    def _known(self, image: Image) -> BaseImage | None:
        """The image, when it was verified before and its file was not touched since."""
        marker = self._marker(image.digest)
        if marker is None:
            return None
        path = self._path(image.digest, marker.format)
        try:
            there = path.stat()
        except FileNotFoundError:
            return None
        if (there.st_size, there.st_mtime_ns) != (marker.size, marker.mtime_ns) or marker.boot not in ("", _boot()):
            return None
        if (image.format, image.compression) != (marker.format, marker.compression):
            raise ImageRejected(
                f"the image {image.name} was declared as {image.format} with compression {image.compression}, and the "
                f"bytes of {image.digest} are {marker.format} with {marker.compression}; correct the declaration",
                declared=image.format,
                found=marker.format,
            )
        check_size(marker.virtual_size_bytes, image.virtual_size_bytes, self._max_virtual)
        return BaseImage(image.digest, path, marker.format, marker.virtual_size_bytes)

    async def _again(self, image: Image, flight: Flight, deadline: Deadline) -> BaseImage | None:
        """Verify afresh a disk whose file was touched, or may not have reached the disk before this host went down;
        remove it when it is not what it was."""
        marker = await run_blocking(self._marker, image.digest)
        if marker is None:
            return None
        path = self._path(image.digest, marker.format)
        if await run_blocking(path.exists):
            if await self._digest(path, marker.content, flight, deadline) == marker.content:
                kept = marker if marker.boot == _boot() else replace(marker, boot="")
                await run_blocking(self._mark, image.digest, path, kept)
                return await run_blocking(self._known, image)
            await run_blocking(path.unlink)
        await run_blocking(self._path(image.digest, "json").unlink)
        return None

    async def _obtain(self, image: Image, flight: Flight, deadline: Deadline) -> BaseImage:
        partial = self._partial(image.digest)
        expanding = self._path(image.digest, "expanding")
        try:
            content, disk = image.digest, partial.path
            if image.compression is not Compression.NONE:
                disk = expanding
            content = await self._fetch_verified(image, partial, expanding, flight, deadline)
            virtual_size = await self._inspect(image, disk, flight, deadline)
            return await run_blocking(self._keep, image, disk, content, virtual_size)
        except Final:
            await run_blocking(self._remove, image.digest)
            raise
        finally:
            await run_blocking(expanding.unlink, missing_ok=True)

    async def _fetch_verified(
        self, image: Image, partial: Partial, expanding: Path, flight: Flight, deadline: Deadline
    ) -> str:
        """Fetch until the digest is right, and give that of the disk. A wrong one after a resume may be the resume's
        fault: once more, whole."""
        resumed = True
        while resumed:
            intake = Intake(partial.path, image.digest.partition(":")[0])
            async with self._expansion(image, intake, expanding, flight, deadline) as expanded:
                resumed = await self._fetch(image, partial, intake, flight, deadline)
                flight.report("verify", intake.size, intake.size)
                if intake.digest == image.digest:
                    intake.tail.end()
                    return await expanded
            await run_blocking(partial.remove)
        raise ImageRejected(
            f"the bytes behind {shown(image.source)} are not those of the image {image.name}: expected {image.digest}, "
            f"got {intake.digest}; restore the file, or register the new bytes as an image of their own",
            expected=image.digest,
            found=intake.digest,
        )

    async def _fetch(self, image: Image, partial: Partial, intake: Intake, flight: Flight, deadline: Deadline) -> bool:
        limit = self._max_download
        if check_scheme(image.source) == "file":
            await fetch_file(
                image,
                partial,
                intake,
                roots=self._roots,
                max_bytes=limit,
                progress=flight.report,
                deadline=deadline,
            )
            return False
        return await fetch_http(image, partial, intake, max_bytes=limit, progress=flight.report, deadline=deadline)

    async def _digest(self, path: Path, like: str, flight: Flight, deadline: Deadline) -> str:
        """The file's digest, by the same algorithm as `like`."""
        algorithm = like.partition(":")[0]
        digest = DiskHash() if algorithm == DISK_HASH else hashlib.new(algorithm)
        total = await run_blocking(_size, path)
        with path.open("rb") as file:
            while chunk := await run_blocking(file.read, HASH_STEP_BYTES):
                await run_blocking(digest.update, chunk)
                flight.report("verify", file.tell(), total)
                deadline.check("verify the image's digest")
        return digest.digest if isinstance(digest, DiskHash) else f"{algorithm}:{digest.hexdigest()}"

    @asynccontextmanager
    async def _expansion(
        self, image: Image, intake: Intake, target: Path, flight: Flight, deadline: Deadline
    ) -> AsyncIterator[Awaitable[str]]:
        """Expand while the bytes come; gives the digest of the disk, once the intake's tail has ended.

        It waits for bytes in a thread of its own, so that no number of slow downloads can use up those that write them.
        """
        await run_blocking(target.unlink, missing_ok=True)
        if image.compression is Compression.NONE:
            whole: asyncio.Future[str] = asyncio.get_running_loop().create_future()
            whole.set_result(image.digest)  # what is not compressed is the disk already
            yield whole
            return
        await run_blocking(require_space, self._directory, image.size_bytes, f"expanding {image.name}")
        limit = self._max_virtual
        if image.format is ImageFormat.RAW and image.virtual_size_bytes:
            limit = min(limit, image.virtual_size_bytes)
        expansion = Expansion(intake.tail, target, image.compression, max_bytes=limit, max_ratio=self._max_ratio)
        with ThreadPoolExecutor(1, thread_name_prefix="expand") as thread:
            expanding = asyncio.create_task(self._expand(expansion, intake, thread, flight, deadline))
            try:
                yield expanding
            finally:
                intake.tail.abandon()
                await asyncio.gather(expanding, return_exceptions=True)

    async def _expand(
        self, expansion: Expansion, intake: Intake, thread: Executor, flight: Flight, deadline: Deadline
    ) -> str:
        try:
            with disk_full_named(self._directory):
                while await run_in(thread, expansion.step):
                    if intake.tail.ended:  # until then the download is what is told of
                        flight.report("expand", expansion.consumed, intake.size)
                    deadline.check("expand the image")
        finally:
            expansion.close()
        flight.report("expand", intake.size, intake.size)
        return expansion.digest

    async def _inspect(self, image: Image, disk: Path, flight: Flight, deadline: Deadline) -> int:
        size = await run_blocking(_size, disk)
        flight.report("inspect", 0, size)
        if image.format not in (ImageFormat.RAW, ImageFormat.QCOW2):
            found_size = await run_blocking(check_bootable, disk, image)
            check_size(found_size, 0, self._max_virtual)
            return found_size
        found = await run_blocking(
            check_disk,
            disk,
            image.format,
            declared_virtual_bytes=image.virtual_size_bytes,
            max_virtual_bytes=self._max_virtual,
        )
        if image.format is ImageFormat.QCOW2:
            await check_qcow2(disk, deadline)
        flight.report("inspect", size, size)
        return found.virtual_size_bytes

    def _keep(self, image: Image, disk: Path, content: str, virtual_size: int) -> BaseImage:
        """Note what was verified, and only then give the disk its name."""
        final = self._path(image.digest, image.format)
        disk.chmod(0o444)
        self._mark(image.digest, disk, _Verified(image.format, image.compression, content, virtual_size, boot=_boot()))
        disk.rename(final)
        sync_directory(self._directory)
        self._partial(image.digest).remove()
        return BaseImage(image.digest, final, image.format, virtual_size)

    def _mark(self, digest: str, path: Path, verified: _Verified) -> None:
        there = path.stat()
        marker = replace(verified, size=there.st_size, mtime_ns=there.st_mtime_ns)
        write_whole(self._path(digest, "json"), json.dumps(asdict(marker)).encode())


def _boot() -> str:
    """Which boot of this host it is; see random(4)."""
    return BOOT.read_text().strip()


def _size(path: Path) -> int:
    return path.stat().st_size
