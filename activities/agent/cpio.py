"""An initramfs of a directory: a cpio archive ("newc") whose bytes depend on nothing but names, modes and contents.

The format is that of the kernel's Documentation/driver-api/early-userspace/buffer-format.rst.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

_ALIGN = 4


def newc(tree: Path) -> Iterator[bytes]:
    """The archive of everything below `tree`, piece by piece: owned by root, without times, in the order of names."""
    number = 0
    for number, path in enumerate(sorted(tree.rglob("*")), start=1):
        yield from _entry(number, path.relative_to(tree).as_posix(), *_mode_and_content(path))
    yield from _entry(number + 1, "TRAILER!!!", 0, b"")


def _mode_and_content(path: Path) -> tuple[int, bytes]:
    kind = path.lstat().st_mode
    if stat.S_ISLNK(kind):
        return stat.S_IFLNK | 0o777, os.fsencode(path.readlink())
    rights = 0o755 if kind & stat.S_IXUSR else 0o644
    return (stat.S_IFDIR | rights, b"") if stat.S_ISDIR(kind) else (stat.S_IFREG | rights, path.read_bytes())


def _entry(number: int, name: str, mode: int, content: bytes) -> Iterator[bytes]:
    encoded = os.fsencode(name) + b"\0"
    # inode, mode, owner, group, links, time, size, four device numbers, length of the name, checksum (unused)
    fields = (number, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(encoded), 0)
    head = b"070701" + b"".join(b"%08X" % field for field in fields) + encoded
    yield _padded(head)
    yield _padded(content)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % _ALIGN)
