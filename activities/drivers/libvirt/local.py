"""A base brought to a pool that is a directory of this very host: copied by the kernel, not sent through libvirt.

Whether it is one is seen, not configured: libvirt has just made a volume under a name nobody else can have, and there
it is. Where the file system can share blocks, no byte is copied at all.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import libvirt

from mulligan.activities.drivers.base import Deadline
from mulligan.activities.drivers.libvirt.transfer import Report, Stopped, shrunk

STEP_BYTES = 16 << 20
"""Between two looks at the deadline."""
_BLOCK_BYTES = 1 << 20
_CANNOT = frozenset({errno.EXDEV, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL})
"""What the kernel says where it cannot copy between two file systems by itself."""

Copy = Callable[[int, int, int, int], int]
"""Copies from one descriptor to another: at most so many bytes at a position; gives how many."""


def open_volume(volume: libvirt.virStorageVol, size: int) -> int | None:
    """A descriptor to write the new, empty volume with; None where it is no file of this host that we may write."""
    try:
        fd = os.open(volume.path(), os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    found = os.fstat(fd)
    if stat.S_ISREG(found.st_mode) and found.st_size == size:
        return fd
    os.close(fd)
    return None


def copy_into(
    target: int, path: Path, report: Report, *, deadline: Deadline, stop: threading.Event, copy: Copy | None = None
) -> None:
    """Copy a file, holes as holes, and wait until it is on the disk. `report` gets bytes done and bytes in all.

    Ends early with `Stopped` or `Unreachable`; the volume is then not whole.
    """
    copy = copy or copy_by_kernel
    with path.open("rb", buffering=0) as source:
        end, position = os.fstat(source.fileno()).st_size, 0
        for start, length in data_sections(source.fileno(), end):
            position = start
            while position < start + length:
                if stop.is_set():
                    raise Stopped
                deadline.check(f"copying {path.name} into the pool")
                moved = copy(source.fileno(), target, position, min(STEP_BYTES, start + length - position))
                if not moved:
                    raise shrunk(position)
                os.posix_fadvise(target, position, moved, os.POSIX_FADV_DONTNEED)  # begin to write it out
                position += moved
                report(position, end)
        if os.fstat(source.fileno()).st_size != end:
            raise shrunk(position)
    os.fsync(target)
    report(end, end)


def data_sections(fd: int, end: int) -> Iterator[tuple[int, int]]:
    """(start, length) of what is not a hole."""
    position = 0
    with suppress(OSError):  # ENXIO: only a hole from there to the end
        while position < end:
            start = os.lseek(fd, position, os.SEEK_DATA)
            position = os.lseek(fd, start, os.SEEK_HOLE)
            yield start, position - start


def copy_by_kernel(source: int, target: int, position: int, most: int) -> int:
    """Have the kernel copy, or share blocks; copy by hand where it cannot."""
    try:
        return os.copy_file_range(source, target, most, position, position)
    except OSError as error:
        if error.errno not in _CANNOT:
            raise
    return copy_by_hand(source, target, position, most)


def copy_by_hand(source: int, target: int, position: int, most: int) -> int:
    """Read and write one block."""
    return os.pwrite(target, os.pread(source, min(most, _BLOCK_BYTES), position), position)
