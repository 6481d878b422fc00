"""The files of the boot server's jobs, in one directory: whole or not there, and changed under one lock.

What must survive is on the disk before anybody is told (`durable`); what was seen only is reported again.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import structlog
from pydantic import TypeAdapter

from mulligan.activities.bootserver.job import Job, JobKind, Seen, may_be_of

KEEP_SECONDS = 90 * 86400
"""How long a closed job is kept: for whoever wants to know what was done to a disk."""

_JOB: TypeAdapter[Job] = TypeAdapter(Job)
_SEEN: TypeAdapter[Seen] = TypeAdapter(Seen)
LONGEST_NAME = 200
_NAMES = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.")

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class JobFiles:
    """The jobs of one directory, as files. All methods block for as long as a small file takes."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def find(self, job: str) -> Job | None:
        """The job; None when there is none, or when its file cannot be understood, which is logged."""
        try:
            return _JOB.validate_json(self.path(job, "json").read_bytes())
        except FileNotFoundError:
            return None
        except ValueError as error:
            log.error("a job's file cannot be understood", job=job, why=str(error)[:300])
            return None

    def seen(self, job: str) -> Seen:
        """What was seen of its newest boot."""
        try:
            return _SEEN.validate_json(self.path(job, "seen.json").read_bytes())
        except (OSError, ValueError):  # never written, or cut off by a loss of power: it is reported again
            return Seen()

    def path(self, job: str, suffix: str) -> Path:
        """One of a job's files. Raises `ValueError` for what is no name of a job."""
        if not is_name(job):
            raise ValueError(f"{job[:80]!r} is no name of a job")
        return self.directory / f"{job}.{suffix}"

    def keep(self, job: Job) -> None:
        """Keep it for good."""
        write(self.path(job.id, "json"), _JOB.dump_json(job))

    def keep_seen(self, job: str, seen: Seen) -> None:
        """Keep it, as far as nothing happens to this host."""
        write(self.path(job, "seen.json"), _SEEN.dump_json(seen), durable=False)

    def prune(self) -> None:
        """Remove jobs that were closed long ago. What was written on a server is known until it was erased, or written
        for somebody else: its machine may live for years."""
        newest: Mapping[str, Job] | None = None
        for path in self.directory.glob("*.json"):
            name = path.name.removesuffix(".json").removesuffix(".seen")
            if time.time() - path.stat().st_mtime > KEEP_SECONDS:
                job = self.find(name)
                if job is not None and job.written:
                    newest = newest or {each.provider: each for each in self.by_age()}
                    last = newest.get(job.provider, job)
                    if last.claim == job.claim and not (last.kind is JobKind.ERASE and last.result is not None):
                        continue
                if job is None or job.closed or job.boot is None:
                    path.with_name(f"{name}.seed").unlink(missing_ok=True)
                    path.unlink(missing_ok=True)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Nobody else changes a job meanwhile, in whatever process of whatever host."""
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = os.open(self.directory / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    def by_age(self) -> list[Job]:
        """Every job, the one that was written last at the end."""
        found = [job for name in self._names() if (job := self.find(name)) is not None]
        return sorted(found, key=lambda job: self.path(job.id, "json").stat().st_mtime)

    def of(self, provider: str) -> list[Job]:
        """The jobs of one provider, without a look into all."""
        found = (self.find(name) for name in self._names() if may_be_of(name, provider))
        return [job for job in found if job is not None and job.provider == provider]

    def _names(self) -> list[str]:
        names = (path.name.removesuffix(".json") for path in self.directory.glob("*.json"))
        return [name for name in names if not name.endswith(".seen")]


def is_name(job: str) -> bool:
    """Whether it may be a job's name, and so that of a file."""
    return 0 < len(job) <= LONGEST_NAME and not job.startswith(".") and set(job) <= _NAMES


def write(path: Path, content: bytes, *, durable: bool = True) -> None:
    """Whole or not at all; and on the disk before this returns, where it must be."""
    new = path.with_name(path.name + ".new")
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(content)
        if durable:
            file.flush()
            os.fsync(file.fileno())
    new.replace(path)
    if durable:
        _sync(path.parent)


def _sync(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
