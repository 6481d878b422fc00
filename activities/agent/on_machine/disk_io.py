"""Writing a disk and reading it back, past the kernel's cache: what comes back was really there."""

from __future__ import annotations

import fcntl
import hashlib
import mmap
import os
import struct
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from .tools import Failed

CHUNK = 4 * 1024**2
PAGE = 4096
SYNC_BYTES = 64 * 1024**2
"""So much is written before the disk is waited for: what is reported is on the disk, and memory stays free."""
SYNC_SECONDS = 0.5
"""Where the network is slow, the disk is waited for so often, so that each report has news."""
_FLUSH = 0x1261
"""BLKFLSBUF of linux/fs.h: forget what is cached of a block device."""
_ZERO_OUT = 0x127F
"""BLKZEROOUT of linux/fs.h: zeros from a byte on, for so many bytes, made by the disk itself where it can."""
_ZEROS = bytes(CHUNK)


@dataclass(frozen=True)
class Hole:
    """So many bytes of zeros, which nobody sent."""

    size: int


Piece = bytes | Hole
Told = Callable[[int], None]
"""Called with how many bytes are done; raises to stop."""


@contextmanager
def opened(path: str, flags: int) -> Iterator[int]:
    """The disk, or `Failed` with why it cannot be opened."""
    try:
        disk = os.open(path, flags)
    except OSError as error:
        raise Failed("DISK_FAILED", f"{path} cannot be opened: {error.strerror}") from error
    try:
        yield disk
    except OSError as error:
        raise Failed("DISK_FAILED", f"{path}: {error.strerror}; the disk may be broken") from error
    finally:
        os.close(disk)


def write(path: str, pieces: Iterator[Piece], told: Told) -> tuple[int, str]:
    """Write the pieces from the disk's beginning; how many bytes there were, and their digest.

    Where there is a hole the disk is made to hold zeros, whatever was there before.
    """
    so_far, done, synced, when = hashlib.sha256(), 0, 0, time.monotonic()
    with opened(path, os.O_WRONLY | os.O_EXCL) as disk:
        for piece in _in_steps(pieces):
            if isinstance(piece, Hole):
                _zero(disk, done, piece.size)
                done += piece.size
                for zeros in _zeros(piece.size):
                    so_far.update(zeros)
            else:
                so_far.update(piece)
                done += _all(disk, piece, done)
            if done - synced >= SYNC_BYTES or time.monotonic() >= when + SYNC_SECONDS:
                os.fdatasync(disk)
                os.posix_fadvise(disk, synced, done - synced, os.POSIX_FADV_DONTNEED)
                synced, when = done, time.monotonic()
            told(synced)
        os.fsync(disk)
        _forget(disk)
    told(done)
    return done, f"sha256:{so_far.hexdigest()}"


def overwrite(path: str, size: int, told: Told) -> None:
    """Write zeros over all of it, which the disk may not make by itself."""
    synced = 0
    with opened(path, os.O_WRONLY | os.O_EXCL) as disk:
        for at in range(0, size, CHUNK):
            done = at + _all(disk, _ZEROS[: size - at], at)
            if done - synced >= SYNC_BYTES:
                os.fdatasync(disk)
                os.posix_fadvise(disk, synced, done - synced, os.POSIX_FADV_DONTNEED)
                synced = done
            told(synced)
        os.fsync(disk)
        _forget(disk)
    told(size)


def write_at(path: str, offset: int, data: bytes) -> None:
    """Write a few bytes, and see that they are there."""
    with opened(path, os.O_RDWR) as disk:
        _all(disk, data, offset)
        os.fsync(disk)
        _forget(disk)
        if os.pread(disk, len(data), offset) != data:
            raise Failed(
                "DISK_FAILED", f"{path} does not keep what is written at byte {offset}; the disk may be broken"
            )


def write_places(path: str, places: Iterable[tuple[int, bytes]], check: Callable[[], None]) -> None:
    """Write many places, and wait for the disk once. `check` is called after each, and raises to stop."""
    with opened(path, os.O_WRONLY) as disk:
        for offset, data in places:
            _all(disk, data, offset)
            check()
        os.fsync(disk)
        _forget(disk)


def read_at(path: str, offset: int, size: int) -> bytes:
    """A few bytes; fewer where the disk ends before."""
    with opened(path, os.O_RDONLY) as disk:
        return os.pread(disk, size, offset)


def digest(data: bytes) -> str:
    """`sha256:` and the hex digits."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def digest_of(path: str, size: int, told: Told) -> str:
    """The digest of the first `size` bytes, read from the disk itself."""
    so_far = hashlib.sha256()
    for done, piece in read_back(path, 0, size):
        so_far.update(piece)
        told(done)
    return f"sha256:{so_far.hexdigest()}"


def read_back(path: str, offset: int, size: int) -> Iterator[tuple[int, memoryview]]:
    """Bytes from the disk itself, with how many were read so far."""
    buffer = mmap.mmap(-1, CHUNK)  # begins on a page, as direct reads need
    view = memoryview(buffer)
    with opened(path, os.O_RDONLY) as disk:
        _forget(disk)
        with suppress(OSError):  # a file system that cannot read directly: its cache was forgotten above
            fcntl.fcntl(disk, fcntl.F_SETFL, os.O_DIRECT)
        done = 0
        while done < size:
            whole_pages = min(CHUNK, -(-(size - done) // PAGE) * PAGE)
            got = os.preadv(disk, [view[:whole_pages]], offset + done)
            if not got:
                raise Failed("DISK_FAILED", f"{path} ends at byte {offset + done}")
            part = view[: min(got, size - done)]
            done += len(part)
            yield done, part


def forget(path: str) -> None:
    """Drop what the kernel keeps of it in memory, so that what is read next comes from the disk."""
    with opened(path, os.O_RDONLY) as disk:
        _forget(disk)


def _in_steps(pieces: Iterator[Piece]) -> Iterator[Piece]:
    """The same, without a hole that takes longer than the run may wait for a word."""
    for piece in pieces:
        if isinstance(piece, Hole):
            yield from (Hole(min(SYNC_BYTES, piece.size - at)) for at in range(0, piece.size, SYNC_BYTES))
        else:
            yield piece


def _zeros(size: int) -> Iterator[bytes]:
    for at in range(0, size, CHUNK):
        yield _ZEROS[: size - at]


def _zero(disk: int, offset: int, size: int) -> None:
    """Let the disk zero whole pages; what it cannot, or is no disk, is written."""
    if offset % PAGE == size % PAGE == 0:
        with suppress(OSError):
            fcntl.ioctl(disk, _ZERO_OUT, struct.pack("QQ", offset, size))
            return
    for zeros in _zeros(size):
        offset += _all(disk, zeros, offset)


def _all(disk: int, data: bytes, offset: int) -> int:
    rest = memoryview(data)
    while rest:
        rest = rest[os.pwrite(disk, rest, offset + len(data) - len(rest)) :]
    return len(data)


def _forget(disk: int) -> None:
    os.posix_fadvise(disk, 0, 0, os.POSIX_FADV_DONTNEED)
    with suppress(OSError):  # not a block device
        fcntl.ioctl(disk, _FLUSH)
