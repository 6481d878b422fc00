"""The jobs of this host's deploy agents, kept in files: nothing about them lives in a process that may be killed.

All processes that share the directory see the same jobs: the boot server that an agent talks to need not be in the
process that waits for it. Every change is made under one lock. All methods block for as long as a small file takes.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import structlog
from pydantic import TypeAdapter

from mulligan.activities.bootserver.job import Boot, Job, JobKind, Medium, Order, Payload, PermitGiven, Report, Seen
from mulligan.activities.bootserver.mac_index import MacIndex
from mulligan.activities.bootserver.tokens import AgentPermit, check_agent, issue_agent, read_agent
from mulligan.activities.cards import distinctive
from mulligan.activities.errors import AccessDenied, Conflict
from mulligan.activities.seal import Keyring

KEEP_SECONDS = 90 * 86400
"""How long a closed job is kept: for whoever wants to know what was done to a disk."""

_JOB: TypeAdapter[Job] = TypeAdapter(Job)
_SEEN: TypeAdapter[Seen] = TypeAdapter(Seen)
LONGEST_NAME = 200
_NAMES = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.")

T = TypeVar("T")

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class Refused(Exception):
    """Somebody has no business here. `status` is the HTTP status: 403, 404, 409 or 410.

    `proved` says that the token was issued here for this job, so that whoever waits for the job wants to know.
    """

    def __init__(self, status: int, why: str, job: str = "", *, proved: bool | None = None) -> None:
        super().__init__(why)
        self.status, self.why, self.job = status, why, job
        self.proved = status in (409, 410) if proved is None else proved


class Jobs:
    """The jobs in one directory. `now` gives aware times."""

    def __init__(
        self, directory: Path, keyring: Keyring, *, now: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._directory = directory
        self._macs = MacIndex(directory / "macs", _write)
        self._keyring = keyring
        self.now = now

    def find(self, job: str) -> Job | None:
        """The job; None when there is none, or when its file cannot be understood, which is logged."""
        try:
            return _JOB.validate_json(self._path(job, "json").read_bytes())
        except FileNotFoundError:
            return None
        except ValueError as error:
            log.error("a job's file cannot be understood", job=job, why=str(error)[:300])
            return None

    def seen(self, job: str) -> Seen:
        """What was seen of its newest boot."""
        try:
            return _SEEN.validate_json(self._path(job, "seen.json").read_bytes())
        except (OSError, ValueError):  # never written, or cut off by a loss of power: it is reported again
            return Seen()

    def open(self, wanted: Job) -> Job:
        """Open a job, or go on with it: one that the same execution asked for is kept as it is.

        Of one that another execution asked for it is kept whether a disk may have been changed, and nothing else.
        """
        with self._locked():
            self._prune()
            found = self.find(wanted.id)
            if found is not None and not found.closed and _same(found, wanted):
                return found
            if found is not None and found.result is not None and _same(found, wanted):
                return found  # done already
            if found is not None:
                wanted = replace(wanted, permits=found.permits, attempt=found.attempt)
            self._keep(wanted)
            self._path(wanted.id, "seen.json").unlink(missing_ok=True)
            return wanted

    def change(self, job: str, change: Callable[[Job], Job]) -> Job:
        """Change a job, for good: it is on the disk before this returns. Raises `Refused` when there is none."""
        with self._locked():
            found = self._there(job)
            changed = change(found)
            if changed != found:
                self._keep(changed)
            return changed

    def load(self, job: str, image: Payload | None, seed: bytes, packed: Payload | None = None) -> Job:
        """What is to be written, or nothing, and the same compressed; the seed only where the job has none yet."""
        with self._locked():
            found = self._there(job)
            served = found.seed
            if served is None:
                path = self._path(job, "seed")
                _write(path, seed)
                served = Payload(str(path), len(seed), f"sha256:{hashlib.sha256(seed).hexdigest()}")
            changed = replace(found, image=image, packed=packed, seed=served)
            if changed != found:
                self._keep(changed)
            return changed

    def order(self, job: str, order: Order) -> Job:
        """What the agent is told from its next report on."""
        return self.change(job, lambda found: replace(found, order=order))

    def finish(self, job: str, result: Mapping[str, Any]) -> Job:
        """The job is done, without an agent."""
        return self.change(job, lambda found: replace(found, result=result))

    def begin_boot(self, job: str, url: str, expires_at: datetime, macs: tuple[str, ...]) -> Job:
        """A new boot of the agent, by a boot server at `url`, with a token of its own; older tokens end.

        Raises `Conflict` when an open job of another provider boots by one of the MACs. One of the same provider, which
        was left open, has them no more.
        """
        with self._locked():
            found = self._there(job)
            self._index()
            for mac in distinctive(macs):
                other = self.for_mac(mac)
                if other is not None and other.provider not in {found.provider, ""}:  # older jobs do not say whose
                    raise self._taken(found, mac, other)
            boot = Boot(found.attempt + 1, expires_at.replace(microsecond=0), macs)
            changed = replace(found, url=url, attempt=boot.attempt, boot=boot, order=Order.GO_ON)
            self._macs.put(macs, job)
            self._keep(changed)
            self._keep_seen(job, Seen(boot.attempt))
            return changed

    def equip(self, job: str, medium: Medium) -> Job:
        """What the newest boot is booted from."""
        return self._change_boot(job, lambda boot: replace(boot, medium=medium))

    def switching_on(self, job: str) -> None:
        """The server is about to be switched on: what was sent up to now was not for what it boots."""
        with self._locked():
            seen = self._seen_of(self._there(job))
            self._keep_seen(job, replace(seen, before=seen.fetched, on_at=self.now()))

    def booted(self, job: str) -> Job:
        """The server was switched on for the newest boot."""
        return self._change_boot(job, lambda boot: replace(boot, at=self.now()))

    def give_up_boot(self, job: str) -> Job:
        """The newest boot is waited for no more, and its token is of no more use."""
        return self.change(job, lambda found: replace(found, boot=None))

    def close(self, job: str) -> None:
        """Serve nothing for the job any more: whoever asks is told that it is over. Nothing there is success."""
        with self._locked():
            found = self.find(job)
            if found is not None and not found.closed:
                self._keep(replace(found, closed=True, boot=None))
                self._macs.drop(found.boot.macs if found.boot is not None else (), job)
            self._path(job, "seed").unlink(missing_ok=True)

    def discard(self, job: str) -> None:
        """Forget the job. Nothing there is success."""
        with self._locked():
            for suffix in ("json", "seen.json", "seed"):
                self._path(job, suffix).unlink(missing_ok=True)
            _sync(self._directory)

    def token(self, job: Job) -> str:
        """The token of the newest boot."""
        assert job.boot is not None
        return issue_agent(self._keyring, AgentPermit(job.id, job.boot.attempt, job.boot.expires_at), job.bound_to)

    def admit(self, token: str) -> tuple[Job, Boot]:
        """The job that a token is good for, and its newest boot. Raises `Refused`."""
        try:
            permit = read_agent(token)
        except AccessDenied as error:
            raise Refused(403, error.message) from None
        found = self.find(permit.job) if _is_name(permit.job) else None
        if found is None:
            raise Refused(404, "no job of this name is known here", permit.job[:LONGEST_NAME])
        try:
            check_agent(self._keyring, token, found.bound_to, self.now())
        except AccessDenied as error:
            raise Refused(403, error.message, found.id, proved="expires_at" in error.metadata) from None
        if found.closed or found.boot is None:
            raise Refused(410, "the job is over, or waits for this boot no more", found.id)
        if found.boot.attempt != permit.attempt:
            why = f"the token is of boot {permit.attempt} of the agent, and boot {found.boot.attempt} took its place"
            raise Refused(410, why, found.id)
        return found, found.boot

    def own(self, token: str, owner: str, peer: str) -> Job:
        """Let the first boot of the agent that asks own the token; refuse any other. Raises `Refused`."""
        with self._locked():
            job, boot = _of_agent(*self.admit(token))
            if not boot.owner:
                boot = replace(boot, owner=owner, owned_at=self.now(), peer=peer)
                job = replace(job, boot=boot)
                self._keep(job)
            return self._owned(job, boot, owner)

    def owned(self, token: str, owner: str) -> Job:
        """The job, for the boot that owns the token. Raises `Refused`."""
        return self._owned(*_of_agent(*self.admit(token)), owner)

    def permit(self, token: str, owner: str, given: PermitGiven) -> Job:
        """Let the agent change a disk: noted for good before it is told. Raises `Refused`."""
        with self._locked():
            job = self.owned(token, owner)
            if all((known.disk, known.what) != (given.disk, given.what) for known in job.permits):
                job = replace(job, permits=(*job.permits, given))
                self._keep(job)
            return job

    def report(
        self, token: str, owner: str, report: Report, result: dict[str, Any] | None, hardware: dict[str, Any] | None
    ) -> Order:
        """Note what the agent says, a result for good; gives its order. Raises `Refused`."""
        with self._locked():
            job = self.owned(token, owner)
            if result is not None and job.result is None:
                job = replace(job, result=result)
                self._keep(job)
            seen = self._seen_of(job)
            hardware = hardware or dict(seen.hardware)
            self._keep_seen(job.id, replace(seen, report=report, told=job.order, hardware=hardware))
            return job.order

    def note_fetched(self, job: Job, what: str, count: int, since: datetime | None = None) -> None:
        """So many bytes of this were sent, the first of them at `since` or just now."""
        with self._locked():
            if self.seen(job.id).attempt > job.attempt:
                return  # the end of a connection of an earlier boot
            seen = self._seen_of(job)
            early = since is not None and seen.on_at is not None and since < seen.on_at
            before = _more(seen.before, what, count) if early else seen.before
            self._keep_seen(job.id, replace(seen, fetched=_more(seen.fetched, what, count), before=before))

    def note_refused(self, job: str, why: str) -> None:
        """Somebody was refused: whoever waits for the job says so. A name that is no job's is left alone."""
        with self._locked():
            found = self.find(job) if job else None
            if found is not None and not found.closed:
                self._keep_seen(job, replace(self._seen_of(found), refused=why))

    def for_mac(self, mac: str) -> Job | None:
        """The open job whose server has this network card and boots from the network now; None when none does."""
        if not self._macs.there():
            with self._locked():
                self._index()
        name = self._macs.job(mac)
        job = self.find(name) if _is_name(name) else None
        if job is None or job.closed or job.result is not None or job.boot is None:
            return None
        return job if mac in job.boot.macs and self.now() < job.boot.expires_at else None

    def index(self) -> None:
        """Complete the index of MACs: another version's worker may have begun jobs that are not in it. Blocks."""
        if not self._directory.is_dir():
            return
        with self._locked():
            self._index()
            for job in reversed(self._by_age()):
                if job.boot is not None and not job.closed:
                    self._macs.put([mac for mac in job.boot.macs if self.for_mac(mac) is None], job.id)

    def _index(self) -> None:
        """Have an index of MACs; the caller holds the lock."""
        if not self._macs.there():
            self._macs.make(self._by_age())

    def _by_age(self) -> list[Job]:
        """Every job, the one that was written last at the end."""
        names = [path.name.removesuffix(".json") for path in self._directory.glob("*.json")]
        found = [job for name in names if not name.endswith(".seen") and (job := self.find(name)) is not None]
        return sorted(found, key=lambda job: self._path(job.id, "json").stat().st_mtime)

    def _taken(self, job: Job, mac: str, other: Job) -> Conflict:
        return Conflict(
            f"{job.provider or job.machine} is to boot from the network by {mac}, and so does "
            f"{other.provider or 'another server'} now, for {other.machine}: one of the two would be booted in place "
            "of the other. See which of them has that network card, and set `macs` of the other; if the machine is "
            f"gone for good, remove {self._path(other.id, 'json')} on the worker's host",
            provider=job.provider,
            other=other.provider,
            mac=mac,
            blame="site",
        )

    def _change_boot(self, job: str, change: Callable[[Boot], Boot]) -> Job:
        def changed(found: Job) -> Job:
            return replace(found, boot=change(found.boot)) if found.boot is not None else found

        return self.change(job, changed)

    def _owned(self, job: Job, boot: Boot, owner: str) -> Job:
        if not boot.owner:
            raise Refused(409, "the configuration comes first: nobody has asked for it with this token", job.id)
        if boot.owner != owner:
            raise Refused(409, f"the token was used by another boot of the agent, which came from {boot.peer}", job.id)
        return job

    def _there(self, job: str) -> Job:
        found = self.find(job)
        if found is None:
            raise Refused(404, f"there is no job {job}", job)
        return found

    def _seen_of(self, job: Job) -> Seen:
        seen = self.seen(job.id)
        return seen if seen.attempt == job.attempt else Seen(job.attempt)

    def _path(self, job: str, suffix: str) -> Path:
        if not _is_name(job):
            raise ValueError(f"{job[:80]!r} is no name of a job")
        return self._directory / f"{job}.{suffix}"

    def _keep(self, job: Job) -> None:
        _write(self._path(job.id, "json"), _JOB.dump_json(job))

    def _keep_seen(self, job: str, seen: Seen) -> None:
        _write(self._path(job, "seen.json"), _SEEN.dump_json(seen), durable=False)

    def _prune(self) -> None:
        """Remove jobs that were closed long ago."""
        for path in self._directory.glob("*.json"):
            name = path.name.removesuffix(".json").removesuffix(".seen")
            if time.time() - path.stat().st_mtime > KEEP_SECONDS:
                job = self.find(name)
                if job is None or job.closed:
                    path.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = os.open(self._directory / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)


def _more(counts: Mapping[str, int], what: str, count: int) -> dict[str, int]:
    return {**counts, what: counts.get(what, 0) + count}


def _is_name(job: str) -> bool:
    return 0 < len(job) <= LONGEST_NAME and not job.startswith(".") and set(job) <= _NAMES


def _of_agent(job: Job, boot: Boot) -> tuple[Job, Boot]:
    """Both, if an agent was booted. Raises `Refused`."""
    if job.kind is JobKind.LIVE:
        raise Refused(403, "the token is of a live machine, on which no deploy agent has any business", job.id)
    return job, boot


def _same(found: Job, wanted: Job) -> bool:
    """Whether both are the same wish of the same execution."""
    keys = ("kind", "workflow_id", "run_id", "asked_by", "erase")
    return all(getattr(found, key) == getattr(wanted, key) for key in keys)


def _write(path: Path, content: bytes, *, durable: bool = True) -> None:
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
