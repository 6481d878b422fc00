"""What firmware and BMCs fetch: a medium with the run's kernel arguments in it, or a kernel and an initrd.

The ISO on the disk is the same for all runs. Where it has a hole, the run's kernel arguments are served in place of it;
any range of bytes may be asked for, as BMCs do that read a medium block by block. An ISO without a hole is as its
user gave it. What is counted as fetched was taken by the connection: of an answer that is broken off, what went before.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from aiohttp import hdrs, web

from mulligan.activities.bootserver.door import guarded
from mulligan.activities.bootserver.job import Job, Medium
from mulligan.activities.bootserver.jobs import Jobs, Refused
from mulligan.activities.threads import run_blocking

CHUNK_BYTES = 1024**2
NOTE_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Spliced:
    """A file of which some bytes are others when it is read."""

    path: Path
    offset: int = 0
    replacement: bytes = b""

    def size(self) -> int:
        """In bytes: that of the file. Blocks. Raises `OSError` where there is none."""
        found = self.path.stat()
        if not stat.S_ISREG(found.st_mode):
            raise FileNotFoundError(self.path)
        return found.st_size

    def pieces(self, start: int, end: int) -> Iterator[bytes]:
        """The bytes from `start` up to `end`, piece by piece. Blocks."""
        hole_end = self.offset + len(self.replacement)
        with self.path.open("rb", buffering=0) as file:
            while start < end:
                if self.offset <= start < hole_end:
                    piece = self.replacement[start - self.offset : end - self.offset]
                else:
                    until = min(end, self.offset) if start < self.offset else end
                    piece = os.pread(file.fileno(), min(CHUNK_BYTES, until - start), start)
                if not piece:
                    raise OSError(f"{self.path} became shorter while it was read")
                yield piece
                start += len(piece)


class MediaDoor:
    """The routes by which the agent, or a live machine, is booted."""

    def __init__(self, jobs: Jobs) -> None:
        self._jobs = jobs

    def routes(self) -> list[web.RouteDef]:
        """/v1/media/TOKEN/RUN.iso, /v1/boot/TOKEN/kernel and /v1/boot/TOKEN/initrd; HEAD too."""
        medium = guarded(self._jobs, "medium", self._medium)
        kernel = guarded(self._jobs, "kernel", self._kernel)
        initrd = guarded(self._jobs, "initrd", self._initrd)
        return [
            web.get("/v1/media/{token}/{run}.iso", medium),
            web.get("/v1/boot/{token}/kernel", kernel),
            web.get("/v1/boot/{token}/initrd", initrd),
        ]

    async def _medium(self, request: web.Request) -> web.StreamResponse:
        job, medium = await self._admit(request)
        if request.match_info["run"] != job.run_id:
            raise Refused(404, "this medium is of another run", job.id)
        iso = Spliced(Path(medium.iso), medium.hole_offset, medium.hole.encode())
        return await self._serve(request, job, "medium", iso)

    async def _kernel(self, request: web.Request) -> web.StreamResponse:
        job, medium = await self._admit(request)
        return await self._serve(request, job, "kernel", Spliced(Path(medium.kernel)))

    async def _initrd(self, request: web.Request) -> web.StreamResponse:
        job, medium = await self._admit(request)
        return await self._serve(request, job, "initrd", Spliced(Path(medium.initrd)))

    async def _serve(self, request: web.Request, job: Job, what: str, file: Spliced) -> web.StreamResponse:
        try:
            size = await run_blocking(file.size)
        except OSError:
            raise Refused(404, f"the {what} is not here any more", job.id) from None
        tag = f'"{job.id}.{job.attempt}"'
        start, end, status = chosen_range(request, tag, size)
        response = web.StreamResponse(status=status)
        response.headers.update({
            hdrs.ACCEPT_RANGES: "bytes", hdrs.ETAG: tag, hdrs.CACHE_CONTROL: "no-store",
            hdrs.CONTENT_TYPE: "application/octet-stream",
        })  # fmt: skip
        if status != 200:
            served = f"{start}-{end - 1}" if status == 206 else "*"
            response.headers[hdrs.CONTENT_RANGE] = f"bytes {served}/{size}"
        response.content_length = end - start
        await response.prepare(request)
        if request.method != hdrs.METH_HEAD and status != 416:
            await self._send(response, job, what, file.pieces(start, end))
        await response.write_eof()
        return response

    async def _send(self, response: web.StreamResponse, job: Job, what: str, pieces: Iterator[bytes]) -> None:
        """Send it, and note now and then what the connection took: a BMC may read one answer for a whole boot."""
        sent, since = 0, self._jobs.now()
        try:
            while piece := await run_blocking(next, pieces, b""):
                await response.write(piece)
                sent += len(piece)
                if (self._jobs.now() - since).total_seconds() > NOTE_SECONDS:
                    noted, sent = sent, 0
                    await run_blocking(self._jobs.note_fetched, job, what, noted, since)
                    since = self._jobs.now()
        finally:
            if sent:
                await run_blocking(self._jobs.note_fetched, job, what, sent, since)

    async def _admit(self, request: web.Request) -> tuple[Job, Medium]:
        job, boot = await run_blocking(self._jobs.admit, request.match_info["token"])
        if boot.medium is None:
            raise Refused(410, "nothing is booted for this job now", job.id)
        return job, boot.medium


def chosen_range(request: web.Request, tag: str, size: int) -> tuple[int, int, int]:
    """Which bytes were asked for: start, end, and the status (RFC 9110, section 14).

    Several ranges at once, or those of another file (If-Range), are answered with all of it.
    """
    asked = request.headers.get(hdrs.RANGE, "")
    if not asked.startswith("bytes=") or "," in asked or request.headers.get(hdrs.IF_RANGE, tag) != tag:
        return 0, size, 200
    first, dash, last = asked.removeprefix("bytes=").strip().partition("-")
    if not dash or not all(part == "" or (part.isascii() and part.isdigit()) for part in (first, last)):
        return 0, size, 200
    if not first:
        count = _number(last)
        return (max(0, size - count), size, 206) if count else (0, 0, 416)
    start, end = _number(first), min(size, _number(last) + 1) if last else size
    if last and _number(last) < start:
        return 0, size, 200
    return (start, end, 206) if start < size else (0, 0, 416)


def _number(digits: str) -> int:
    """The number; one with more than 20 digits is cut to something that no file has. Python takes no more than 4300."""
    return int(digits.lstrip("0")[:20] or 0)
