"""The jobs of this host's deploy agents, kept in files: nothing about them lives in a process that may be killed.

All processes that share the directory see the same jobs: the boot server that an agent talks to need not be in the
process that waits for it. Every change is made under one lock. All methods block for as long as a small file takes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import structlog

from mulligan.activities.bootserver.job import (
    Boot,
    Job,
    JobKind,
    Medium,
    Order,
    Payload,
    PermitGiven,
    Phase,
    Report,
    Seen,
    job_id,
    older_id,
)
from mulligan.activities.bootserver.job_files import LONGEST_NAME, JobFiles, is_name, write
from mulligan.activities.bootserver.network_boots import NetworkBoots
from mulligan.activities.bootserver.tokens import AgentPermit, check_agent, issue_agent, read_agent
from mulligan.activities.errors import AccessDenied, Conflict
from mulligan.activities.seal import Keyring
from mulligan.activities.values import Mark

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
        self._files = JobFiles(directory)
        self._boots = NetworkBoots(self._files, now)
        self._keyring = keyring
        self.now = now

    def find(self, job: str) -> Job | None:
        """The job; None when there is none, or when its file cannot be understood, which is logged."""
        return self._files.find(job)

    def seen(self, job: str) -> Seen:
        """What was seen of its newest boot."""
        return self._files.seen(job)

    def name(self, provider: str, mark: Mark, kind: JobKind) -> str:
        """What the provider's job of this kind for the claim is called; one that is there keeps its older name."""
        older = self._files.find(older_id(mark, kind))
        return older.id if older is not None and older.provider == provider else job_id(provider, mark, kind)

    def open(self, wanted: Job, *, without_missed: bool = False) -> Job:
        """Open a job, or go on with it: one that the same execution asked for is kept as it is, but for what is known
        now of which server it is, which somebody may have corrected.

        Of one that another execution asked for it is kept whether a disk may have been changed, and which written disks
        were told to be gone: with `without_missed` these need not be there.
        """
        with self._files.locked():
            self._files.prune()
            found = self._files.find(wanted.id)
            if found is not None and found.result is not None and _same(found, wanted):
                return found  # done already
            if found is not None and not found.closed and _same(found, wanted):
                wanted = replace(found, identity=wanted.identity, asked_at=self.now())
                self._files.keep(wanted)
                return wanted
            wanted = replace(wanted, asked_at=self.now())
            if found is not None:
                wrote = tuple(each for each in wanted.wrote if not without_missed or each not in found.missed)
                wanted = replace(wanted, wrote=wrote, missed=found.missed)
                wanted = replace(wanted, permits=found.permits, attempt=found.attempt)
            self._files.keep(wanted)
            self._files.path(wanted.id, "seen.json").unlink(missing_ok=True)
            return wanted

    def change(self, job: str, change: Callable[[Job], Job]) -> Job:
        """Change a job, for good: it is on the disk before this returns. Raises `Refused` when there is none."""
        with self._files.locked():
            found = self._there(job)
            changed = change(found)
            if changed != found:
                self._files.keep(changed)
            return changed

    def load(self, job: str, image: Payload | None, seed: bytes, packed: Payload | None = None) -> Job:
        """What is to be written, or nothing, and the same compressed; the seed only where the job has none yet.

        Raises `Conflict` when the job is over.
        """
        with self._files.locked():
            found = self._at_work(job)
            served = found.seed
            if served is None:
                path = self._files.path(job, "seed")
                write(path, seed)
                served = Payload(str(path), len(seed), f"sha256:{hashlib.sha256(seed).hexdigest()}")
            changed = replace(found, image=image, packed=packed, seed=served)
            if changed != found:
                self._files.keep(changed)
            return changed

    def order(self, job: str, order: Order) -> Job:
        """What the agent is told from its next report on."""
        return self.change(job, lambda found: replace(found, order=order))

    def finish(self, job: str, result: Mapping[str, Any]) -> Job:
        """The job is done, without an agent."""
        return self.change(job, lambda found: replace(found, result=result))

    def begin_boot(self, job: str, url: str, expires_at: datetime, macs: tuple[str, ...]) -> Job:
        """A new boot of the agent, by a boot server at `url`, with a token of its own; older tokens end.

        Raises `Conflict` when the job is over, or when an open job of another provider boots by one of the MACs.
        """
        with self._files.locked():
            found = self._at_work(job)
            self._boots.require_free(found, macs)
            boot = Boot(found.attempt + 1, expires_at.replace(microsecond=0), macs)
            changed = replace(found, url=url, attempt=boot.attempt, boot=boot, order=Order.GO_ON)
            self._files.keep(changed)
            self._files.keep_seen(job, Seen(boot.attempt))
            return changed

    def equip(self, job: str, medium: Medium) -> Job:
        """What the newest boot is booted from. Raises `Conflict` when the job is over."""
        return self._change_boot(job, lambda boot: replace(boot, medium=medium))

    def switching_on(self, job: str) -> None:
        """The server is about to be switched on: what was sent up to now was not for what it boots, and what it boots
        from now on is this job's. Whatever else was left open for the server is over.

        Raises `Conflict` when the job is over: whoever comes so late must not switch on what was switched off for good;
        and when another provider's server boots by one of its MACs by now.
        """
        with self._files.locked():
            found, now = self._at_work(job), self.now()
            self._boots.require_free(found, found.boot.macs if found.boot is not None else ())
            for other in self._files.of(found.provider) if found.provider else ():
                if other.id != job and not other.closed:
                    self._end(other)
            if found.boot is not None:
                found = replace(found, boot=replace(found.boot, on_at=now))
                self._files.keep(found)
                self._boots.begin(found)
            seen = self._seen_of(found)
            self._files.keep_seen(job, replace(seen, before=seen.fetched, on_at=now))

    def booted(self, job: str) -> Job:
        """The server was switched on for the newest boot. Raises `Conflict` when the job is over."""
        return self._change_boot(job, lambda boot: replace(boot, at=self.now()))

    def give_up_boot(self, job: str) -> Job:
        """The newest boot is waited for no more, and its token is of no more use."""
        return self.change(job, lambda found: replace(found, boot=None))

    def close(self, job: str) -> None:
        """Serve nothing for the job any more: whoever asks is told that it is over. Nothing there is success."""
        with self._files.locked():
            found = self._files.find(job)
            if found is not None and not found.closed:
                self._end(found)
            self._files.path(job, "seed").unlink(missing_ok=True)

    def close_left(self, provider: str, mark: Mark, asked_by: str) -> None:
        """Close what was left open for a claim whose server is off: a live machine, and what another execution than
        this one asked the agent for, which would be done by whatever boots there next."""
        for kind in JobKind:
            found = self._files.find(self.name(provider, mark, kind))
            if found is not None and (kind is JobKind.LIVE or found.asked_by != asked_by):
                self.close(found.id)

    def write_anew(self, deploy: str, erase: str, *, asked: float, heard: float) -> bool:
        """What was written before disks were erased is of no more use, and what was proved to be erased counts as
        written no more; the erase is forgotten, but not how often it was booted: no token of then is good for a later
        boot. False, and nothing is changed, while the erase is at work: it was asked for, or its agent was heard of,
        within so many seconds."""
        with self._files.locked():
            erased, written = self._files.find(erase), self._files.find(deploy)
            if erased is None or not erased.asked_by:
                return True
            if self._is_at_work(erased, asked, heard):
                return False
            if written is not None:
                permits = () if erased.done else written.permits
                self._end(replace(written, result=None, image=None, seed=None, permits=permits))
            plain = Job(erased.id, erased.kind, erased.machine, "", "", "", provider=erased.provider)
            self._files.keep(replace(plain, attempt=erased.attempt, closed=True))
            return True

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
        found = self._files.find(permit.job) if is_name(permit.job) else None
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
        with self._files.locked():
            job, boot = _of_agent(*self.admit(token))
            if not boot.owner:
                boot = replace(boot, owner=owner, owned_at=self.now(), peer=peer)
                job = replace(job, boot=boot)
                self._files.keep(job)
            return self._owned(job, boot, owner)

    def owned(self, token: str, owner: str) -> Job:
        """The job, for the boot that owns the token. Raises `Refused`."""
        return self._owned(*_of_agent(*self.admit(token)), owner)

    def permit(self, token: str, owner: str, given: PermitGiven) -> Job:
        """Let the agent change a disk: noted for good before it is told. Raises `Refused`."""
        with self._files.locked():
            job = self.owned(token, owner)
            if all((known.disk, known.what) != (given.disk, given.what) for known in job.permits):
                job = replace(job, permits=(*job.permits, given))
                self._files.keep(job)
            return job

    def report(
        self, token: str, owner: str, report: Report, result: dict[str, Any] | None, hardware: dict[str, Any] | None
    ) -> Order:
        """Note what the agent says, a result for good; gives its order. Raises `Refused`."""
        with self._files.locked():
            job = self.owned(token, owner)
            if result is not None and job.result is None:
                job = replace(job, result=result)
                self._files.keep(job)
            seen = self._seen_of(job)
            hardware = hardware or dict(seen.hardware)
            self._files.keep_seen(job.id, replace(seen, report=report, told=job.order, hardware=hardware))
            return job.order

    def fail(self, token: str, owner: str, report: Report, gone: tuple[PermitGiven, ...]) -> None:
        """Note that the agent is not believed, and which written disks it did not find: this boot is over. Raises
        `Refused`."""
        with self._files.locked():
            job = self.owned(token, owner)
            self._files.keep(replace(job, gone=gone))
            self._files.keep_seen(job.id, replace(self._seen_of(job), report=report))

    def told_gone(self, job: str) -> Job:
        """Whoever asked for it is told which written disks are gone."""
        return self.change(job, lambda it: replace(it, gone=(), missed=tuple(dict.fromkeys((*it.missed, *it.gone)))))

    def _is_at_work(self, job: Job, asked: float, heard: float) -> bool:
        """Whether an attempt asked for it, or its agent was heard of and did not fail, within so many seconds."""
        boot, report = job.boot, self._seen_of(job).report
        if job.closed or (report is not None and report.phase is Phase.FAILED):
            return False
        told = report.at if report is not None else boot.at if boot is not None else None
        if job.result is not None:
            told = None  # its server is being switched off
        times = ((job.asked_at, asked), (told, heard))
        return any(at is not None and (self.now() - at).total_seconds() < seconds for at, seconds in times)

    def note_fetched(self, job: Job, what: str, count: int, since: datetime | None = None) -> None:
        """So many bytes of this were sent, the first of them at `since` or just now."""
        with self._files.locked():
            if self._files.seen(job.id).attempt > job.attempt:
                return  # the end of a connection of an earlier boot
            seen = self._seen_of(job)
            early = since is not None and seen.on_at is not None and since < seen.on_at
            before = _more(seen.before, what, count) if early else seen.before
            self._files.keep_seen(job.id, replace(seen, fetched=_more(seen.fetched, what, count), before=before))

    def note_refused(self, job: str, why: str) -> None:
        """Somebody was refused: whoever waits for the job says so. A name that is no job's is left alone."""
        with self._files.locked():
            found = self._files.find(job) if job else None
            if found is not None and not found.closed:
                self._files.keep_seen(job, replace(self._seen_of(found), refused=why))

    def for_mac(self, mac: str) -> Job | None:
        """The open job whose server has this network card and boots from the network now; None when none does."""
        return self._boots.find(mac)

    def index(self) -> None:
        """Complete the index of MACs: another version's worker may have begun jobs that are not in it. Blocks."""
        if self._files.directory.is_dir():
            with self._files.locked():
                self._boots.complete()

    def _end(self, job: Job) -> None:
        self._files.keep(replace(job, closed=True, boot=None))
        self._boots.end(job)
        self._files.path(job.id, "seed").unlink(missing_ok=True)

    def _change_boot(self, job: str, change: Callable[[Boot], Boot]) -> Job:
        def changed(found: Job) -> Job:
            _require_at_work(found)
            return replace(found, boot=change(found.boot)) if found.boot is not None else found

        return self.change(job, changed)

    def _owned(self, job: Job, boot: Boot, owner: str) -> Job:
        if not boot.owner:
            raise Refused(409, "the configuration comes first: nobody has asked for it with this token", job.id)
        if boot.owner != owner:
            raise Refused(409, f"the token was used by another boot of the agent, which came from {boot.peer}", job.id)
        return job

    def _there(self, job: str) -> Job:
        found = self._files.find(job)
        if found is None:
            raise Refused(404, f"there is no job {job}", job)
        return found

    def _at_work(self, job: str) -> Job:
        found = self._there(job)
        _require_at_work(found)
        return found

    def _seen_of(self, job: Job) -> Seen:
        seen = self._files.seen(job.id)
        return seen if seen.attempt == job.attempt else Seen(job.attempt)


def _more(counts: Mapping[str, int], what: str, count: int) -> dict[str, int]:
    return {**counts, what: counts.get(what, 0) + count}


def _of_agent(job: Job, boot: Boot) -> tuple[Job, Boot]:
    """Both, if an agent was booted. Raises `Refused`."""
    if job.kind is JobKind.LIVE:
        raise Refused(403, "the token is of a live machine, on which no deploy agent has any business", job.id)
    return job, boot


def _require_at_work(job: Job) -> None:
    """Raises `Conflict` when the job is over."""
    if job.closed:
        raise Conflict(f"{job.provider or job.machine}: what was begun there was ended by another action")


def _same(found: Job, wanted: Job) -> bool:
    """Whether both are the same wish of the same execution."""
    keys = ("kind", "workflow_id", "run_id", "asked_by", "provider", "erase")
    return all(getattr(found, key) == getattr(wanted, key) for key in keys)
