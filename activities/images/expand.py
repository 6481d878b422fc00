"""Expansion of gzip, xz and zstd in bounded memory, with a limit on what comes out.

Every decompressor is driven by hand in small bites, because a few bytes of a bomb become gigabytes.
"""

from __future__ import annotations

import hashlib
import lzma
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Protocol

import zstandard

from mulligan.activities.errors import ImageRejected
from mulligan.activities.values import Compression

BITE_BYTES = 1024**2
"""How much a gzip or xz decompressor may put out at once."""
ZSTD_BITE_BYTES = 4096
"""How much is fed to zstd at once: a block of 4 bytes may become 128 KiB, so at most 128 MiB come out."""
MEMORY_BYTES = 256 * 1024**2
"""What an xz or zstd stream may ask for as its window."""
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


class _Member(Protocol):
    """One compressed stream; a file may hold several in a row."""

    @property
    def eof(self) -> bool:
        """Whether the stream's end was reached."""

    @property
    def unused_data(self) -> bytes:
        """What was read beyond the stream's end."""


def expanded(source: BinaryIO, compression: Compression) -> Iterator[bytes]:
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
                yield from iter(lambda: source.read(BITE_BYTES), b"")
    except (zlib.error, lzma.LZMAError, zstandard.ZstdError) as error:
        raise _rejected(compression, str(error)) from error


def _gzip(source: BinaryIO) -> Iterator[bytes]:
    data = source.read(BITE_BYTES)
    while data:
        member = zlib.decompressobj(wbits=31)
        while not member.eof:
            yield member.decompress(data, BITE_BYTES)
            data = member.unconsumed_tail
            if not data and not member.eof and not (data := source.read(BITE_BYTES)):
                yield from _drain(member)
        data = _next_member(source, member)


def _drain(member: zlib._Decompress) -> Iterator[bytes]:
    while piece := member.decompress(b"", BITE_BYTES):
        yield piece
    if not member.eof:
        raise _rejected(Compression.GZIP, "the stream is cut off")


def _xz(source: BinaryIO) -> Iterator[bytes]:
    data = source.read(BITE_BYTES)
    while data:
        member = lzma.LZMADecompressor(format=lzma.FORMAT_XZ, memlimit=MEMORY_BYTES)
        while not member.eof:
            yield member.decompress(data, BITE_BYTES)
            data = b""
            if not member.eof and member.needs_input and not (data := source.read(BITE_BYTES)):
                raise _rejected(Compression.XZ, "the stream is cut off")
        data = _next_member(source, member)


def _zstd(source: BinaryIO) -> Iterator[bytes]:
    data = source.read(ZSTD_BITE_BYTES)
    while data:
        member = zstandard.ZstdDecompressor(max_window_size=MEMORY_BYTES).decompressobj()
        while not member.eof:
            yield member.decompress(data)
            if not member.eof and not (data := source.read(ZSTD_BITE_BYTES)):
                raise _rejected(Compression.ZSTD, "the stream is cut off")
        data = member.unused_data or source.read(ZSTD_BITE_BYTES)


def _next_member(source: BinaryIO, member: _Member) -> bytes:
    """The bytes of the next stream, without the zeros that gzip and xz allow as padding."""
    data = member.unused_data.lstrip(b"\0")
    while not data and (more := source.read(BITE_BYTES)):
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

    def __init__(self, source: Path, target: Path, compression: Compression, *, max_bytes: int, max_ratio: int) -> None:
        self._source = source.open("rb")
        self._target = target.open("xb", buffering=0)
        self._pieces = expanded(self._source, compression)
        self._max_bytes = max_bytes
        self._max_ratio = max_ratio
        self._hash = hashlib.sha256()
        self.written = 0

    @property
    def consumed(self) -> int:
        """How many compressed bytes were read."""
        return self._source.tell()

    @property
    def digest(self) -> str:
        """`sha256:<hex>` of what was written so far."""
        return f"sha256:{self._hash.hexdigest()}"

    def step(self) -> bool:
        """Write the next pieces; False when all is written."""
        until = self.written + STEP_BYTES
        while self.written < until:
            piece = next(self._pieces, None)
            if piece is None:
                self._target.truncate(self.written)
                return False
            self._write(piece)
        return True

    def close(self) -> None:
        """Close both files."""
        self._target.close()
        self._source.close()

    def _write(self, piece: bytes) -> None:
        self.written += len(piece)
        self._check()
        self._hash.update(piece)
        if piece.count(0) == len(piece):
            self._target.seek(self.written)
            return
        view = memoryview(piece)
        while view:
            view = view[self._target.write(view) :]

    def _check(self) -> None:
        if self.written > self._max_bytes:
            raise ImageRejected(
                f"the image expands to more than the {self._max_bytes} bytes allowed or declared; use a smaller image, "
                "correct its declared size, or raise the limit on virtual sizes",
                limit=self._max_bytes,
            )
        if self.written > RATIO_FLOOR_BYTES and self.written > self.consumed * self._max_ratio:
            raise ImageRejected(
                f"the image expands to more than {self._max_ratio} times its compressed size, as a decompression bomb "
                "does; publish it less compressed if it is genuine",
                limit=self._max_ratio,
            )
