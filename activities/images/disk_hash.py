"""The digest of a disk's content, by which a disk whose file was touched is known again, and where its holes are."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator

BLOCK_BYTES = 64 * 1024
"""Blocks of zeros of this size, at a multiple of it, are holes."""

DISK_HASH = "disk-sha256"

_PLACE = struct.Struct(">Q")
_ZEROS = bytes(BLOCK_BYTES)


class DiskHash:
    """A digest of a disk: of its data, and of where that lies. Blocks of zeros are looked at, but not hashed."""

    def __init__(self) -> None:
        self._data, self._layout = hashlib.sha256(), hashlib.sha256()
        self._position = 0
        self._in_data = False

    @property
    def digest(self) -> str:
        """`disk-sha256:<hex>` of all bytes so far, however they were cut into pieces."""
        parts = (self._data.digest(), self._layout.digest(), _PLACE.pack(self._position))
        return f"{DISK_HASH}:{hashlib.sha256(b''.join(parts)).hexdigest()}"

    def update(self, piece: bytes | bytearray | memoryview) -> None:
        """Take the next bytes: whole blocks, but for the last piece."""
        view = memoryview(piece)
        for is_data, start, end in stretches(piece):
            if is_data != self._in_data:
                self._layout.update(_PLACE.pack(self._position + start))
                self._in_data = is_data
            if is_data:
                self._data.update(view[start:end])
        self._position += len(piece)


def stretches(piece: bytes | bytearray | memoryview) -> Iterator[tuple[bool, int, int]]:
    """The data and the holes in whole blocks of a disk: (whether it is data, start, end)."""
    view, start = memoryview(piece), 0
    while start < len(view):
        is_data, end = not _is_hole(view, start), start + BLOCK_BYTES
        while end < len(view) and _is_hole(view, end) != is_data:
            end += BLOCK_BYTES
        yield is_data, start, min(end, len(view))
        start = end


def _is_hole(view: memoryview, start: int) -> bool:
    if view[start]:
        return False
    block = view[start : start + BLOCK_BYTES].tobytes()  # comparing views would go byte by byte
    return block == (_ZEROS if len(block) == BLOCK_BYTES else _ZEROS[: len(block)])
