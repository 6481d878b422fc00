"""Holes of sparse files: what holds nothing but zeros need neither be read nor sent."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

GAP_BYTES = 1024**2
MOST_STRETCHES = 4096


def data_sections(fd: int, end: int) -> Iterator[tuple[int, int]]:
    """(start, length) of what is not a hole."""
    position = 0
    with suppress(OSError):  # ENXIO: only a hole from there to the end
        while position < end:
            start = os.lseek(fd, position, os.SEEK_DATA)
            position = os.lseek(fd, start, os.SEEK_HOLE)
            yield start, position - start


def data_stretches(path: Path, end: int) -> list[tuple[int, int]]:
    """(first byte, byte after the last) of what is to be read of the file; all else up to `end` is zeros.

    Neighbours that are less than 1 MiB apart are one, and more than that where else there were more than 4096. Blocks.
    Raises OSError for a file that cannot be read.
    """
    with path.open("rb") as file:
        found = [(start, min(start + length, end)) for start, length in data_sections(file.fileno(), end)]
    gap = GAP_BYTES
    while len(joined := _joined(found, gap)) > MOST_STRETCHES:
        gap *= 2
    return joined


def _joined(stretches: list[tuple[int, int]], gap: int) -> list[tuple[int, int]]:
    joined: list[tuple[int, int]] = []
    for start, end in stretches:
        if joined and start < joined[-1][1] + gap:
            joined[-1] = (joined[-1][0], end)
        else:
            joined.append((start, end))
    return joined
