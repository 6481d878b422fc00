"""A base brought to a pool that is a directory of this very host: copied, not sent through libvirt.

Whether it is one is seen, not configured: libvirt has just made a volume under a name nobody else can have, and there
it is. Where the file system can share blocks, no byte is copied at all.
"""

from __future__ import annotations

import fcntl
import os
import stat
import threading
from contextlib import suppress
from pathlib import Path

import libvirt

from mulligan.activities.drivers.base import Deadline
from mulligan.activities.drivers.libvirt.transfer import Report, Stopped, shrunk
from mulligan.activities.holes import data_sections

STEP_BYTES = 1 << 20
_FLUSH_BYTES = 64 << 20
_CLONE = 0x40049409
"""FICLONE, see ioctl_ficlone(2)."""


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


def copy_into(target: int, path: Path, report: Report, *, deadline: Deadline, stop: threading.Event) -> None:
    """Copy a file, holes as holes, and wait until it is on the disk. `report` gets bytes done and bytes in all.

    Ends early with `Stopped` or `Unreachable`; the volume is then not whole.
    """
    with path.open("rb", buffering=0) as source:
        end = os.fstat(source.fileno()).st_size
        if not clone(source.fileno(), target):
            for start, length in data_sections(source.fileno(), end):
                for position in range(start, start + length, STEP_BYTES):
                    if stop.is_set():
                        raise Stopped
                    deadline.check(f"copying {path.name} into the pool")
                    moved = _copy_block(source.fileno(), target, position, min(STEP_BYTES, start + length - position))
                    report(position + moved, end)
        if os.fstat(source.fileno()).st_size != end:
            raise shrunk(end)
    os.fsync(target)
    report(end, end)


def clone(source: int, target: int) -> bool:
    """Have both files share their blocks; False where the file system cannot."""
    with suppress(OSError):
        fcntl.ioctl(target, _CLONE, source)
        return True
    return False


def _copy_block(source: int, target: int, position: int, length: int) -> int:
    block = os.pread(source, length, position)
    if len(block) < length:
        raise shrunk(position + len(block))
    view = memoryview(block)
    while view:
        view = view[os.pwrite(target, view, position + length - len(view)) :]
    if position % _FLUSH_BYTES < length:  # begin to write it out, so that the wait for the disk at the end is short
        os.posix_fadvise(target, max(0, position - _FLUSH_BYTES), _FLUSH_BYTES, os.POSIX_FADV_DONTNEED)
    return length
