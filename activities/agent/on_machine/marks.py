"""Random marks on a disk, at places of it that are read after it was told to forget everything: zeros there were made
since. Of places that held zeros before, as most of a disk may, zeros prove nothing.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator

from . import disk_io
from .hardware import Disk
from .partitions import MIB
from .tools import Failed

SAMPLES = 1024
"""So many places of a disk are read after it was told to forget everything, besides its first and last mebibyte."""
_PIECE = 4096
"""The size of a place, and what its beginning is a multiple of: whole blocks of every disk."""
_ZEROS = bytes(disk_io.CHUNK)


class Marks:
    """Where one disk is marked, and with what."""

    def __init__(self, disk: Disk) -> None:
        self._path, size = disk.path, disk.size_bytes
        draw = random.SystemRandom()
        places = {draw.randrange(0, max(1, size // _PIECE)) * _PIECE for _ in range(SAMPLES)}
        self._places = [*ends(0, size, size), *((each, min(_PIECE, size - each)) for each in sorted(places))]
        self._random = os.urandom(_PIECE)

    def write(self, check: Callable[[], None]) -> None:
        """Mark the disk, and see that it keeps the marks. Raises `Failed`, and what `check` raises."""
        disk_io.write_places(self._path, self._marks(), check)
        for offset, mark in self._marks():
            if any(piece != mark for _, piece in disk_io.read_back(self._path, offset, len(mark))):
                why = f"{self._path} does not keep what is written at byte {offset}; the disk may be broken"
                raise Failed("DISK_FAILED", why)
            check()

    def are_zeros(self) -> bool:
        """Whether nothing but zeros is left where they were."""
        return reads_zeros(self._path, self._places)

    def _marks(self) -> Iterator[tuple[int, bytes]]:
        """By where a byte is, so that places may overlap."""
        for offset, size in self._places:
            begin = offset % _PIECE
            yield offset, (self._random * (size // _PIECE + 2))[begin : begin + size]


def ends(start: int, size: int, whole: int) -> Iterator[tuple[int, int]]:
    """Offset and length of the first and of the last mebibyte, as far as they lie on the disk."""
    for offset in (start, max(start, start + size - MIB)):
        if 0 <= offset < whole:
            yield offset, min(MIB, size, whole - offset)


def reads_zeros(path: str, places: list[tuple[int, int]], told: disk_io.Told = lambda done: None) -> bool:
    """Whether nothing but zeros is there, read from the disk itself."""
    for offset, size in places:
        for done, piece in disk_io.read_back(path, offset, size):
            if piece.tobytes() != _ZEROS[: len(piece)]:
                return False
            told(done)
    return True
