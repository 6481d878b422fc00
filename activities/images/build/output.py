"""What a builder hands over, and how: the image appears under its name complete and on disk, or not at all."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from mulligan.activities.values import Firmware, ImageFormat

Progress = Callable[[str, float], None]
"""Called with what is being done and how much of the whole build is done, from 0 to 1."""


@dataclass(frozen=True, slots=True)
class BuiltImage:
    """A disk image on this host's disk."""

    path: Path
    format: ImageFormat
    virtual_size_bytes: int
    arch: str
    firmware: tuple[Firmware, ...]
    sha256: str
    """Hexadecimal digest of the file."""
    login: str
    """The user that the seed's top-level SSH keys log in as."""


@contextlib.contextmanager
def published(output: Path) -> Iterator[Path]:
    """A fresh path to write to: renamed to `output` when the block ends well, removed when it does not."""
    output.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=output.parent, prefix=f".{output.name}.", suffix=".partial")
    os.close(descriptor)
    partial = Path(name)
    try:
        yield partial
        partial.chmod(0o644)
        _sync(partial)
        partial.replace(output)
        _sync(output.parent)
    finally:
        partial.unlink(missing_ok=True)


def digest(path: Path) -> str:
    """The file's sha256 in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
