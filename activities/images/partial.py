"""A download in progress: the bytes so far, and beside them what they were the beginning of.

Both survive the death of the process, so that the next attempt can go on where this one stopped.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shlex
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

from mulligan.activities.errors import HostNotReady

RESERVE_BYTES = 64 * 1024**2
"""What is left free on the store's file system, so that it never runs entirely full."""


@dataclass(frozen=True, slots=True)
class Origin:
    """What the bytes are the beginning of. `source` is a digest of the address, which may hold a secret."""

    source: str
    validator: str = ""
    """A strong ETag or a Last-Modified date, as sent in If-Range; empty when the server gave none."""
    total: int = 0
    """The length that the server announced, in bytes; 0 when it did not."""

    @classmethod
    def of(cls, url: str, validator: str = "", total: int = 0) -> Origin:
        """The origin for an address."""
        return cls(hashlib.sha256(url.encode()).hexdigest(), validator, total)


class Partial:
    """The file `path`, and its sidecar `path`.json. Every method blocks."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._sidecar = path.with_name(path.name + ".json")

    def origin(self) -> Origin | None:
        """What the bytes belong to; None when there are none, or when that is not known."""
        try:
            origin = Origin(**json.loads(self._sidecar.read_text()))
            self.path.stat()
        except (OSError, ValueError, TypeError):
            return None
        return origin

    def size(self) -> int:
        """How many bytes there are."""
        return self.path.stat().st_size if self.path.exists() else 0

    def begin(self, origin: Origin) -> BinaryIO:
        """Throw away what is there, note the new origin, and open for writing."""
        self.remove()
        write_whole(self._sidecar, json.dumps(asdict(origin)).encode())
        return self.path.open("xb", buffering=0)

    def resume(self) -> BinaryIO:
        """Open for writing at the end."""
        return self.path.open("ab", buffering=0)

    def remove(self) -> None:
        """Remove bytes and sidecar; nothing there is success."""
        self.path.unlink(missing_ok=True)
        self._sidecar.unlink(missing_ok=True)


def write_whole(path: Path, content: bytes) -> None:
    """Write a small file so that it is there whole or not at all, whatever dies meanwhile."""
    temporary = path.with_name(path.name + ".new")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(path)
    sync_directory(path.parent)


def sync_file(path: Path) -> None:
    """Wait until the file's bytes are on the disk. Blocks."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def sync_directory(directory: Path) -> None:
    """Make renames in the directory survive a loss of power."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def require_space(directory: Path, needed_bytes: int, what: str) -> None:
    """Raise `HostNotReady` when the file system cannot take `needed_bytes` more."""
    free = shutil.disk_usage(directory).free - RESERVE_BYTES
    if needed_bytes > free:
        raise _full(directory, f"{what} needs {needed_bytes} bytes, and {max(free, 0)} may be used")


@contextmanager
def disk_full_named(directory: Path) -> Iterator[None]:
    """Turn a full disk met while writing into `HostNotReady`."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise _full(directory, "it ran full while an image was written") from error


def _full(directory: Path, found: str) -> HostNotReady:
    return HostNotReady(
        f"not enough disk space for the image in {directory}: {found}; free some, or move the image store",
        remedy=f"df -h {shlex.quote(str(directory))}",
        directory=directory,
    )
