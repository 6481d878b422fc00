"""Gets the bytes behind an image's source into a partial file: http(s) with resume, and local files.

Nothing here looks into the bytes; whether they are the right ones is decided by the digest afterwards.
"""

from __future__ import annotations

import asyncio
import errno
import os
import re
import stat
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import BinaryIO
from urllib.parse import unquote, urlsplit

import aiohttp

from mulligan.activities.drivers.base import Deadline, Progress
from mulligan.activities.errors import (
    AccessDenied,
    Busy,
    ImageRejected,
    InvalidRequest,
    MulliganError,
    NotFound,
    Unreachable,
    Unsupported,
)
from mulligan.activities.images.intake import Intake
from mulligan.activities.images.partial import Origin, Partial, disk_full_named, require_space
from mulligan.activities.threads import run_blocking
from mulligan.activities.values import Image

COPY_BYTES = 1024**2
"""How much is written at once: enough that the way into a thread costs little, and little memory."""
BUFFER_BYTES = 128 * 1024
"""How much is read ahead. As much again may be lost when a connection breaks."""
STALL_SECONDS = 60.0
"""A server that sends nothing for this long counts as gone."""


def check_scheme(source: str) -> str:
    """The source's scheme. Raises `Unsupported` when images cannot be fetched by it, `InvalidRequest` for rubbish."""
    try:
        scheme = urlsplit(source).scheme.lower()
    except ValueError as error:
        raise InvalidRequest(
            f"the image's source is no address: {error}; correct it", violations=[("source", str(error))]
        ) from error
    if scheme in ("http", "https", "file"):
        return scheme
    if scheme == "simulated":
        raise Unsupported(
            f"the image {source} has no bytes: it only works on simulated providers; name a simulated provider, "
            "or an image with an http, https or file source",
            source=source,
        )
    raise Unsupported(
        f"images cannot be fetched from {shown(source)}: the scheme is '{scheme}', and only http, https and file work",
        scheme=scheme,
    )


def shown(source: str) -> str:
    """The source as it may be shown: without user, password and query."""
    parts = urlsplit(source)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()


async def fetch_file(
    image: Image,
    partial: Partial,
    intake: Intake,
    *,
    roots: Sequence[Path],
    max_bytes: int,
    progress: Progress,
    deadline: Deadline,
) -> None:
    """Copy a local file, so that nobody can change it under the check; always from the start."""
    source = await run_blocking(_open_local, image.source, roots)
    with source:
        total = os.fstat(source.fileno()).st_size
        _check_total(image, total, max_bytes)
        await run_blocking(require_space, partial.path.parent, total, f"copying {shown(image.source)}")
        with await run_blocking(partial.begin, Origin.of(image.source, total=total)) as target:
            done = 0
            intake.begin(0)
            while moved := await run_blocking(_copy_some, source, target, intake, partial.path.parent):
                done += moved
                _check_growth(image, done, max_bytes)
                progress("download", done, total)
                deadline.check(f"copy {shown(image.source)}")


def local_size(source: str, roots: Sequence[Path]) -> int:
    """How many bytes a local file has. Raises as `fetch_file` does when it cannot be had."""
    with _open_local(source, roots) as file:
        return os.fstat(file.fileno()).st_size


def _open_local(source: str, roots: Sequence[Path]) -> BinaryIO:
    parts = urlsplit(source)
    if parts.netloc not in ("", "localhost"):
        raise Unsupported(f"{shown(source)} names another host; write file:///path, or serve the image over http")
    given = unquote(parts.path)
    if "\0" in given:
        raise InvalidRequest(
            f"{shown(source)} names no file: its path holds %00; correct it",
            violations=[("source", "names no file: its path holds %00")],
        )
    path = Path(given).resolve()
    _check_root(path, source, roots)
    try:
        if not path.is_file():
            raise NotFound(f"no image file at {path}; check the source of the image", path=path)
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except PermissionError as error:
        raise AccessDenied(f"the image file {path} may not be read by this process; allow it", path=path) from error
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENAMETOOLONG):
            raise
        raise NotFound(f"no image file at {path}; check the source of the image", path=path) from error
    file = os.fdopen(fd, "rb", buffering=0)
    try:  # what was opened decides, not what the path meant a moment ago
        _check_root(Path(f"/proc/self/fd/{fd}").readlink(), source, roots)
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise AccessDenied(f"{path} is not a regular file; images must be", path=path)
    except MulliganError:
        file.close()
        raise
    return file


def _check_root(path: Path, source: str, roots: Sequence[Path]) -> None:
    if not any(path.is_relative_to(root.resolve()) for root in roots):
        allowed = ", ".join(str(root) for root in roots) or "none are configured"
        raise AccessDenied(
            f"{shown(source)} leads outside the directories that images may come from ({allowed}); "
            "move the file there, or add its directory to the allowed ones",
            path=path,
        )


async def fetch_http(
    image: Image, partial: Partial, intake: Intake, *, max_bytes: int, progress: Progress, deadline: Deadline
) -> bool:
    """Fetch what is missing; True when earlier bytes were kept.

    An interruption raises `Unreachable` (`Busy` when the server asks for patience) and keeps the bytes so far.
    """
    download = _Download(image, partial, intake, max_bytes, progress)
    try:
        async with asyncio.timeout(deadline.remaining):
            return await download.run()
    except (aiohttp.ClientError, TimeoutError, ConnectionError) as error:
        if isinstance(error, aiohttp.InvalidURL | aiohttp.TooManyRedirects):
            raise NotFound(f"{shown(image.source)} does not lead to an image: {type(error).__name__}") from error
        raise Unreachable(
            f"{shown(image.source)} stopped answering after {partial.size()} bytes ({type(error).__name__}); the bytes "
            "are kept and the next try goes on from there",
            source=shown(image.source),
        ) from error


class _Download:
    """One request for what is missing."""

    def __init__(self, image: Image, partial: Partial, intake: Intake, max_bytes: int, progress: Progress) -> None:
        self._image = image
        self._partial = partial
        self._intake = intake
        self._max_bytes = max_bytes
        self._progress = progress
        self._source = shown(image.source)

    async def run(self) -> bool:
        origin = await run_blocking(self._partial.origin)
        have = await run_blocking(self._partial.size)
        if origin is None or origin.source != Origin.of(self._image.source).source:
            origin, have = None, 0
        elif origin.total and have == origin.total:
            await run_blocking(self._intake.begin, have)
            return True
        async with AsyncExitStack() as stack:
            session = await stack.enter_async_context(_session())
            response = await stack.enter_async_context(
                session.get(self._image.source, headers=_headers(origin, have), allow_redirects=True)
            )
            if response.status == 416 and have:
                await run_blocking(self._partial.remove)
                response = await stack.enter_async_context(session.get(self._image.source, headers=_headers(None, 0)))
            self._check_status(response)
            if response.status == 206 and _first_byte(response) != have:
                await run_blocking(self._partial.remove)
                raise Unreachable(f"{self._source} answered with another range than asked for; the next try is whole")
            kept = have if response.status == 206 else 0
            total = kept + (response.content_length or 0) if response.content_length is not None else 0
            await self._receive(response, kept, total)
        return kept > 0

    async def _receive(self, response: aiohttp.ClientResponse, kept: int, total: int) -> None:
        if total:
            _check_total(self._image, total, self._max_bytes)
        missing = (total or self._image.size_bytes) - kept
        await run_blocking(require_space, self._partial.path.parent, missing, f"downloading {self._source}")
        if kept:
            target = await run_blocking(self._partial.resume)
        else:
            target = await run_blocking(self._partial.begin, Origin.of(self._image.source, _validator(response), total))
        with target:
            await run_blocking(self._intake.begin, kept)
            done = await self._copy(response.content.iter_any(), target, kept, total)
        if not total and done < self._image.size_bytes:
            raise Unreachable(f"{self._source} ended after {done} of {self._image.size_bytes} bytes; try again")

    async def _copy(self, chunks: AsyncIterator[bytes], target: BinaryIO, done: int, total: int) -> int:
        """Write one block while the next one comes. What came before an interruption is written too."""
        self._progress("download", done, total or self._image.size_bytes)
        block = bytearray()
        writing = asyncio.create_task(asyncio.sleep(0))
        try:
            async for chunk in chunks:
                _check_growth(self._image, done + len(block) + len(chunk), self._max_bytes)
                block += chunk
                if len(block) >= COPY_BYTES:
                    await writing
                    done, full, block = done + len(block), block, bytearray()
                    writing = asyncio.create_task(self._keep(target, full, done, total))
        finally:
            await writing
            done += len(block)
            await self._keep(target, block, done, total)
        return done

    async def _keep(self, target: BinaryIO, block: bytearray, done: int, total: int) -> None:
        await run_blocking(_write, target, block, self._intake, self._partial.path.parent)
        self._progress("download", done, total or self._image.size_bytes)

    def _check_status(self, response: aiohttp.ClientResponse) -> None:
        status = response.status
        said = f"{self._source} answered {status} {response.reason or ''}".rstrip()
        if status in (401, 403):
            raise AccessDenied(f"{said}; give the image a source that this host may read", status=status)
        if status in (404, 410):
            raise NotFound(f"{said}; correct the image's source, or publish it there again", status=status)
        if status in (429, 503):
            wait = response.headers.get("Retry-After", "")
            seconds = min(float(wait), 600.0) if wait.isdigit() else 0.0
            raise Busy(f"{said}; it will be tried again", after_seconds=seconds)
        if status in (408, 425) or status >= 500:
            raise Unreachable(f"{said}; it will be tried again", status=status)
        if status not in (200, 206):
            raise NotFound(f"{said}, which is no image; correct the image's source", status=status)


def _session() -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        auto_decompress=False,  # the digest is of the bytes as served
        headers={"Accept-Encoding": "identity", "User-Agent": "mulligan"},
        read_bufsize=BUFFER_BYTES,
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=STALL_SECONDS, sock_read=STALL_SECONDS),
        trust_env=True,
    )


def _headers(origin: Origin | None, have: int) -> dict[str, str]:
    if origin is None or not have:
        return {}
    condition = {"If-Range": origin.validator} if origin.validator else {}
    return {"Range": f"bytes={have}-", **condition}


def _first_byte(response: aiohttp.ClientResponse) -> int:
    """Where the range of a 206 begins; -1 when it does not say."""
    start = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    return int(start.group(1)) if start else -1


def _validator(response: aiohttp.ClientResponse) -> str:
    etag = response.headers.get("ETag", "")
    if etag.startswith('"'):  # a weak one must not be sent in If-Range (RFC 9110, 13.1.5)
        return etag
    return response.headers.get("Last-Modified", "")


def _check_total(image: Image, total: int, max_bytes: int) -> None:
    if total > max_bytes:
        raise ImageRejected(
            f"{shown(image.source)} has {total} bytes and at most {max_bytes} may be downloaded; use a smaller "
            "image, or raise the limit on downloads",
            found=total,
            limit=max_bytes,
        )
    if image.size_bytes and total != image.size_bytes:
        what = "truncated or replaced" if total < image.size_bytes else "replaced"
        raise ImageRejected(
            f"{shown(image.source)} was declared with {image.size_bytes} bytes and has {total}: it was {what}; "
            "publish it again, or register the new image under its own digest",
            expected=image.size_bytes,
            found=total,
        )


def _check_growth(image: Image, done: int, max_bytes: int) -> None:
    limit = min(max_bytes, image.size_bytes or max_bytes)
    if done > limit:
        raise ImageRejected(
            f"{shown(image.source)} sends more than the {limit} bytes allowed or declared; check the image's source",
            limit=limit,
        )


def _copy_some(source: BinaryIO, target: BinaryIO, intake: Intake, directory: Path) -> int:
    block = source.read(COPY_BYTES)
    _write(target, block, intake, directory)
    return len(block)


def _write(target: BinaryIO, block: bytes | bytearray, intake: Intake, directory: Path) -> None:
    with disk_full_named(directory):
        view = memoryview(block)
        while view:
            written = target.write(view)
            intake.took(view[:written])
            view = view[written:]
