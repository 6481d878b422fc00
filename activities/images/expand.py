"""Expansion of gzip, xz and zstd in bounded memory, with a limit on what comes out.

Every decompressor is driven by hand in small bites, because a few bytes of a bomb become gigabytes.
"""

from __future__ import annotations

import lzma
import os
import sys
import zlib
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

from mulligan.activities.errors import ImageRejected
from mulligan.activities.images.disk_hash import DiskHash, stretches
from mulligan.activities.values import Compression

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

BITE_BYTES = 1024**2
"""How much a decompressor may put out at once."""
FEED_BYTES = 64 * 1024
"""How much a decompressor is fed at once."""
MEMORY_BYTES = 256 * 1024**2
"""What an xz or zstd stream may ask for as its window."""
_WINDOW_LOG = MEMORY_BYTES.bit_length() - 1
STEP_BYTES = 16 * 1024**2
RATIO_FLOOR_BYTES = 256 * 1024**2
"""Below this size an expansion is not judged by its ratio."""

MAGIC = {
    b"\x1f\x8b": Compression.GZIP,
    b"\xfd7zXZ\x00": Compression.XZ,
    b"\x28\xb5\x2f\xfd": Compression.ZSTD,
}


def detect_compression(path: Path) -> Compression:
    """How the file is compressed, by its first bytes."""
    with path.open("rb") as file:
        head = file.read(8)
    return next((kind for magic, kind in MAGIC.items() if head.startswith(magic)), Compression.NONE)


class Source(Protocol):
    """Where compressed bytes come from."""

    def read(self, most: int, /) -> bytes:
        """The next bytes; empty at the end."""

    def tell(self) -> int:
        """How many bytes were read."""

    def close(self) -> None:
        """Close it."""


class _Member(Protocol):
    """One compressed stream; a file may hold several in a row."""

    @property
    def eof(self) -> bool:
        """Whether the stream's end was reached."""

    @property
    def unused_data(self) -> bytes:
        """What was read beyond the stream's end."""


def expanded(source: Source, compression: Compression) -> Iterator[bytes]:
    """Yield the expanded bytes in pieces. Raises `ImageRejected` when the stream is damaged, cut off or has a tail."""
    try:
        match compression:
            case Compression.GZIP:
                yield from _gzip(source)
            case Compression.XZ:
                yield from _xz(source)
            case Compression.ZSTD:
                yield from _zstd(source)
            case Compression.NONE:
                yield from iter(lambda: source.read(FEED_BYTES), b"")
    except (zlib.error, lzma.LZMAError, zstd.ZstdError) as error:
        raise _rejected(compression, str(error)) from error


def _gzip(source: Source) -> Iterator[bytes]:
    data = source.read(FEED_BYTES)
    while data:
        member = zlib.decompressobj(wbits=31)
        while not member.eof:
            yield member.decompress(data, BITE_BYTES)
            data = member.unconsumed_tail
            if not data and not member.eof and not (data := source.read(FEED_BYTES)):
                yield from _drain(member)
        data = _next_member(source, member)


def _drain(member: zlib._Decompress) -> Iterator[bytes]:
    while piece := member.decompress(b"", BITE_BYTES):
        yield piece
    if not member.eof:
        raise _rejected(Compression.GZIP, "the stream is cut off")


def _xz(source: Source) -> Iterator[bytes]:
    data = source.read(FEED_BYTES)
    while data:
        member = lzma.LZMADecompressor(format=lzma.FORMAT_XZ, memlimit=MEMORY_BYTES)
        while not member.eof:
            yield member.decompress(data, BITE_BYTES)
            data = b""
            if not member.eof and member.needs_input and not (data := source.read(FEED_BYTES)):
                raise _rejected(Compression.XZ, "the stream is cut off")
        data = _next_member(source, member)


def _zstd(source: Source) -> Iterator[bytes]:
    data = source.read(FEED_BYTES)
    while data:
        member = zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: _WINDOW_LOG})
        while not member.eof:
            yield member.decompress(data, BITE_BYTES)
            data = b""
            if not member.eof and member.needs_input and not (data := source.read(FEED_BYTES)):
                raise _rejected(Compression.ZSTD, "the stream is cut off")
        data = member.unused_data or source.read(FEED_BYTES)


def _next_member(source: Source, member: _Member) -> bytes:
    """The bytes of the next stream, without the zeros that gzip and xz allow as padding."""
    data = member.unused_data.lstrip(b"\0")
    while not data and (more := source.read(FEED_BYTES)):
        data = more.lstrip(b"\0")
    return data


def _rejected(compression: Compression, found: str) -> ImageRejected:
    return ImageRejected(
        f"the image was declared as {compression} and cannot be expanded: {found}; publish it again, "
        "or declare its compression as it is",
        compression=compression,
        found=found,
    )


class Expansion:
    """Writes a compressed file out, step by step, so that a caller can show progress and stop between steps.

    `max_bytes` caps what is written. Beyond 256 MiB, more than `max_ratio` bytes out per byte in are refused too.
    Blocks of zeros become holes.
    """

    def __init__(
        self, source: Source, target: Path, compression: Compression, *, max_bytes: int, max_ratio: int
    ) -> None:
        self._source = source
        self._target = target.open("xb", buffering=0)
        self._pieces = expanded(self._source, compression)
        self._max_bytes = max_bytes
        self._max_ratio = max_ratio
        self._hash = DiskHash()
        self._keeper = ThreadPoolExecutor(1, thread_name_prefix="keep")
        self._kept: Future[None] = self._keeper.submit(lambda: None)
        self._filling, self._keeping = bytearray(BITE_BYTES), bytearray(BITE_BYTES)
        self._rest = memoryview(b"")
        self.written = 0

    @property
    def consumed(self) -> int:
        """How many compressed bytes were read."""
        return self._source.tell()

    @property
    def digest(self) -> str:
        """`disk-sha256:<hex>` of what was written so far."""
        self._kept.result()
        return self._hash.digest

    def step(self) -> bool:
        """Expand and write the next pieces; False when all is written."""
        end = self.written + STEP_BYTES
        while self.written < end:
            filled = self._fill()
            self._kept.result()  # one block is hashed and written while the next one is expanded
            self._filling, self._keeping = self._keeping, self._filling
            self._kept = self._keeper.submit(self._keep, memoryview(self._keeping)[:filled], self.written)
            self.written += filled
            if filled < BITE_BYTES:
                self._kept.result()
                self._target.truncate(self.written)
                return False
        return True

    def close(self) -> None:
        """Close both files."""
        self._keeper.shutdown()
        self._target.close()
        self._source.close()

    def _fill(self) -> int:
        """Fill a block with expanded bytes; how many there were: less than a block only at the end."""
        filled = 0
        while filled < BITE_BYTES:
            if not self._rest:
                piece = next(self._pieces, None)
                if piece is None:
                    break
                self._check(self.written + filled + len(piece))
                self._rest = memoryview(piece)
            taken = min(BITE_BYTES - filled, len(self._rest))
            self._filling[filled : filled + taken] = self._rest[:taken]
            filled, self._rest = filled + taken, self._rest[taken:]
        return filled

    def _keep(self, block: memoryview, position: int) -> None:
        """Hash and write a block; zeros are neither."""
        self._hash.update(block)
        for is_data, start, end in stretches(block):
            if is_data:
                self._write(block[start:end], position + start)

    def _write(self, view: memoryview, position: int) -> None:
        while view:
            done = os.pwrite(self._target.fileno(), view, position)
            view, position = view[done:], position + done

    def _check(self, written: int) -> None:
        if written > self._max_bytes:
            raise ImageRejected(
                f"the image expands to more than the {self._max_bytes} bytes allowed or declared; use a smaller image, "
                "correct its declared size, or raise the limit on virtual sizes",
                limit=self._max_bytes,
            )
        if written > RATIO_FLOOR_BYTES and written > self.consumed * self._max_ratio:
            raise ImageRejected(
                f"the image expands to more than {self._max_ratio} times its compressed size, as a decompression bomb "
                "does; publish it less compressed if it is genuine",
                limit=self._max_ratio,
            )
