"""Small files in the drivers' directory that are read and written whole, within a BMC's lane."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


def read_whole(path: Path) -> bytes:
    """What the file says; nothing where there is none.

    It is opened as if to be made: a network file system may remember for a while that there was no such file, and must
    ask.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), "rb") as file:
        return file.read()


def write_whole(path: Path, content: bytes) -> None:
    """Put this in its place: all or nothing, and on the disk before it returns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f"{path.name}.new")
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with contextlib.suppress(OSError):  # not every network file system knows this for a folder
            os.fsync(folder)
    finally:
        os.close(folder)
