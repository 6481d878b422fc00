"""The drivers' directory: lanes, fences and jobs are files there, so who speaks with one BMC must share it.

It has an identity, which every worker of a partition says where the others see it: in the name under which it polls
Temporal. The identity is drawn once and kept in a file; the file's inode is part of it, so that a copy of the
directory is another directory.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import secrets
import shlex
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from mulligan.activities.errors import HostNotReady

ID_FILE = "directory-id"
_DRAWN = re.compile(rb"[0-9a-f]{12}")
_OCTAL = re.compile(r"\\([0-7]{3})")
"""How blanks are written in the list of mounts."""
_LOCAL_LOCKS = frozenset({"nolock", "local_lock=flock", "local_lock=all"})
"""NFS mount options with which a lock is known to this host only."""


def identify(directory: Path) -> str:
    """The directory's identity, drawn now if it has none: 12 hexadecimal digits, a dash, and the inode.

    Raises `HostNotReady` where it cannot be written, or its file system has no locks.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        file = os.open(directory / ID_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX)  # one worker draws; the others wait a moment, and read
            drawn = os.read(file, 64)
            if not _DRAWN.fullmatch(drawn):
                drawn = secrets.token_hex(6).encode()
                os.ftruncate(file, 0)
                os.pwrite(file, drawn, 0)
                os.fsync(file)
            return f"{drawn.decode()}-{os.fstat(file).st_ino:x}"
        finally:
            os.close(file)
    except OSError as error:
        raise HostNotReady(
            f"the drivers' directory {directory} is to be written and locked by this worker, and is not "
            f"({error.strerror or error}); let its user own it, on a file system with locks (NFS: version 4)",
            remedy=f"ls -ld {shlex.quote(str(directory))}",
        ) from error


def lane_file(directory: Path, bmc: str) -> Path:
    """The file that is locked by whoever speaks with the BMC. It is never removed: a lock on it would be lost."""
    return directory / "lanes" / f"{hashlib.sha256(bmc.encode()).hexdigest()[:32]}.lock"


def locks_are_local(directory: Path, mounts: Path = Path("/proc/self/mountinfo")) -> bool:
    """Whether other hosts that have this directory mounted do not see this host's locks, by the mount's options."""
    where, local = directory.resolve(), False
    longest = -1
    for line in mounts.read_text().splitlines():
        before, _, after = line.partition(" - ")
        point = Path(_OCTAL.sub(lambda found: chr(int(found[1], 8)), before.split()[4]))
        if where.is_relative_to(point) and len(point.parts) >= longest:
            longest = len(point.parts)
            kind, _, options = after.split(maxsplit=2)
            local = kind in {"nfs", "nfs4"} and bool(_LOCAL_LOCKS & set(options.split(",")))
    return local


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A worker, by what it says of itself when it polls."""

    process: str
    """`pid@host`."""
    directory: str = ""
    """The identity of its drivers' directory; empty where it says none."""

    @property
    def host(self) -> str:
        """Its host."""
        return self.process.partition("@")[2]

    def __str__(self) -> str:
        return f"{self.process} (directory {self.directory or 'unknown'})"


def me(directory: str) -> Neighbour:
    """This process, with the identity of its drivers' directory."""
    return Neighbour(f"{os.getpid()}@{socket.gethostname()}", directory)


def polls_as(neighbour: Neighbour) -> str:
    """The name under which a worker polls."""
    return f"{neighbour.process}/{neighbour.directory}"


def neighbour_of(name: str) -> Neighbour:
    """The worker that polls under this name."""
    process, _, directory = name.partition("/")
    return Neighbour(process, directory)


def strangers(mine: str, neighbours: Iterable[Neighbour]) -> tuple[Neighbour, ...]:
    """Those who do not share the directory of this identity, each once."""
    return tuple(sorted({each for each in neighbours if each.directory != mine}, key=str))
