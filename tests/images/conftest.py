"""A real HTTP server for images, with the moods of real ones, and a store to fetch into."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from aiohttp import web

from mulligan.activities.drivers.base import Deadline
from mulligan.activities.images.store import ImageStore
from mulligan.activities.values import Compression, Image, ImageFormat
from tests.services.temporal import free_port

MIB = 1024**2


@dataclass
class Origin:
    """Serves `content`, and misbehaves as told."""

    content: bytes = b""
    etag: str = '"one"'
    ranges: bool = True
    status: int = 0
    """Answer with this status and nothing else."""
    cut_at: int | None = None
    """Drop the connection when this offset of the file was sent."""
    hold_at: int | None = None
    """Wait at this offset until `go` is set."""
    announce: bool = True
    """Whether to send a Content-Length."""
    shift: int = 0
    """How far the ranges that it answers with are beside those that were asked for."""
    headers: dict[str, str] = field(default_factory=dict)
    go: asyncio.Event = field(default_factory=asyncio.Event)
    requests: list[dict[str, str]] = field(default_factory=list)
    url: str = ""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(dict(request.headers))
        if self.status:
            return web.Response(status=self.status, headers=self.headers)
        start = self._start(request)
        response = web.StreamResponse(status=206 if start else 200, headers=self.headers)
        response.headers["ETag"] = self.etag
        if start:
            response.headers["Content-Range"] = (
                f"bytes {start + self.shift}-{len(self.content) - 1}/{len(self.content)}"
            )
        if self.announce:
            response.content_length = len(self.content) - start
        await response.prepare(request)
        await self._send(request, response, start)
        return response

    def _start(self, request: web.Request) -> int:
        asked = request.headers.get("Range", "")
        same = request.headers.get("If-Range", self.etag) == self.etag
        return int(asked.removeprefix("bytes=").removesuffix("-")) if asked and same and self.ranges else 0

    async def _send(self, request: web.Request, response: web.StreamResponse, start: int) -> None:
        stops = sorted({stop for stop in (self.cut_at, self.hold_at, len(self.content)) if stop is not None})
        for stop in stops:
            await response.write(self.content[start:stop])
            start = max(start, stop)
            if stop == self.hold_at:
                await self.go.wait()
            if stop == self.cut_at and request.transport is not None:
                request.transport.close()
                return

    def image(self, **changes: object) -> Image:
        """The image as it ought to be declared."""
        fields: dict[str, object] = {
            "name": "debian",
            "source": self.url,
            "digest": "sha256:" + hashlib.sha256(self.content).hexdigest(),
            "format": ImageFormat.RAW,
            "compression": Compression.NONE,
        }
        return Image(**{**fields, **changes})  # type: ignore[arg-type]


@pytest.fixture
async def origin() -> AsyncIterator[Origin]:
    """A server with nothing to serve yet."""
    served = Origin()
    app = web.Application()
    app.router.add_get("/images/disk.img", served.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    served.url = f"http://127.0.0.1:{site.port}/images/disk.img"
    yield served
    served.go.set()
    await runner.cleanup()


@pytest.fixture
def roots(tmp_path: Path) -> Path:
    """The directory that local images may come from."""
    directory = tmp_path / "allowed"
    directory.mkdir()
    return directory


@pytest.fixture
def store(tmp_path: Path, roots: Path) -> ImageStore:
    """An empty store with limits of 64 MiB (download) and 512 MiB (disk)."""
    return ImageStore(tmp_path / "store", file_roots=[roots], max_download_bytes=64 * MIB, max_virtual_bytes=512 * MIB)


@pytest.fixture
def deadline() -> Deadline:
    """A minute, which no test needs."""
    return Deadline.after(60)


@dataclass
class Seen:
    """Every progress that was reported."""

    lines: list[tuple[str, int, int]] = field(default_factory=list)

    def __call__(self, doing: str, done: int, total: int) -> None:
        self.lines.append((doing, done, total))

    @property
    def words(self) -> list[str]:
        return list(dict.fromkeys(line[0] for line in self.lines))


@pytest.fixture
def seen() -> Seen:
    """A progress to look at afterwards."""
    return Seen()


@pytest.fixture
def disk() -> bytes:
    """A raw disk of 3 MiB that looks like nothing in particular, and like no other."""
    return b"".join(hashlib.sha256(b"%d" % i).digest() for i in range(3 * MIB // 32))


@pytest.fixture
def left(tmp_path: Path) -> Callable[[], list[str]]:
    """The suffixes of all that is in the store."""
    return lambda: sorted(path.name.partition(".")[2] for path in (tmp_path / "store").iterdir())


async def until(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    """Wait for a condition; fail when it does not come true."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "the condition did not come true"
        await asyncio.sleep(0.01)


@pytest.fixture
def eventually() -> Callable[..., object]:
    """`until`."""
    return until


@pytest.fixture
def unused_port() -> int:
    """A port of the loopback interface on which nobody listens."""
    return free_port()
