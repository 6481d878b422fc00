"""An image's bytes while they come: their digest, and what the expansion may read of them already.

Nothing is believed before the digest is right. What is expanded meanwhile goes into a temporary file, and is thrown
away when it is not.
"""

from __future__ import annotations

import hashlib
import threading
from pathlib import Path
from typing import BinaryIO

REREAD_BYTES = 1024**2


class Abandoned(Exception):
    """The bytes will not be completed; never leaves this room."""


class Tail:
    """Reads a file that another thread still writes. `read` waits for bytes until the end is said."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: BinaryIO | None = None
        self._changed = threading.Condition()
        self._size = self._position = 0
        self._ended = self._abandoned = False

    def grown(self, size: int) -> None:
        """The file's first `size` bytes are there."""
        with self._changed:
            self._size = size
            self._changed.notify_all()

    @property
    def ended(self) -> bool:
        """Whether all bytes are there."""
        return self._ended

    def end(self) -> None:
        """No more will come."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def abandon(self) -> None:
        """Whoever reads gets `Abandoned`; nothing once the reader is done."""
        with self._changed:
            self._abandoned = True
            self._changed.notify_all()

    def read(self, most: int) -> bytes:
        """The next bytes; empty at the end. Raises `Abandoned`."""
        with self._changed:
            self._changed.wait_for(lambda: self._position < self._size or self._ended or self._abandoned)
            if self._abandoned:
                raise Abandoned
            most = min(most, self._size - self._position)
        if not most:
            return b""
        if self._file is None:
            self._file = self._path.open("rb", buffering=0)
        found = self._file.read(most)
        self._position += len(found)
        return found

    def tell(self) -> int:
        """How many bytes were read."""
        return self._position

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()


class Intake:
    """One attempt to get an image's bytes into the file `path`. Every method but `tail`'s blocks a little."""

    def __init__(self, path: Path, algorithm: str) -> None:
        self.tail = Tail(path)
        self._path, self._algorithm = path, algorithm
        self._hash = hashlib.new(algorithm)
        self._size = 0

    def begin(self, kept: int) -> None:
        """Bytes will be appended to the first `kept` ones, which are read from the disk."""
        self._hash, self._size = hashlib.new(self._algorithm), 0
        if not kept:
            return
        with self._path.open("rb", buffering=0) as file:
            while self._size < kept and (block := file.read(min(REREAD_BYTES, kept - self._size))):
                self.took(block)

    def took(self, block: bytes | memoryview) -> None:
        """These bytes were written next."""
        self._hash.update(block)
        self._size += len(block)
        self.tail.grown(self._size)

    @property
    def digest(self) -> str:
        """`<algorithm>:<hex>` of all bytes so far."""
        return f"{self._algorithm}:{self._hash.hexdigest()}"

    @property
    def size(self) -> int:
        """How many bytes there are so far."""
        return self._size
