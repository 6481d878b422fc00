"""Which job a server is answered for when it boots from the network, by the MAC of its card.

A job has its cards from the moment at which its server is about to be switched on for it, not before: until then
whatever boots there by habit, or for somebody else, is told to boot its local disk.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import TypeGuard

from mulligan.activities.bootserver.job import Boot, Job
from mulligan.activities.bootserver.job_files import JobFiles, is_name, write
from mulligan.activities.bootserver.mac_index import MacIndex
from mulligan.activities.cards import distinctive
from mulligan.activities.errors import Conflict


class NetworkBoots:
    """Of the jobs in these files. Who changes something holds their lock; everything blocks."""

    def __init__(self, files: JobFiles, now: Callable[[], datetime]) -> None:
        self._files = files
        self._macs = MacIndex(files.directory / "macs", write)
        self._now = now

    def find(self, mac: str) -> Job | None:
        """The open job whose server has this network card and boots from the network now; None when none does."""
        if not self._macs.there():
            with self._files.locked():
                self.prepare()
        name = self._macs.job(mac)
        job = self._files.find(name) if is_name(name) else None
        if job is None or job.closed or job.result is not None or not _called(job.boot):
            return None
        return job if mac in job.boot.macs and self._now() < job.boot.expires_at else None

    def require_free(self, job: Job, macs: tuple[str, ...]) -> None:
        """Raise `Conflict` when an open job of another provider boots by one of the MACs."""
        self.prepare()
        for mac in distinctive(macs):
            other = self.find(mac)
            if other is not None and other.provider not in {job.provider, ""}:  # older jobs do not say whose
                raise self._taken(job, mac, other)

    def begin(self, job: Job) -> None:
        """Answer its cards for it from now on."""
        self.prepare()
        self._macs.put(job.boot.macs if job.boot is not None else (), job.id)

    def end(self, job: Job) -> None:
        """Answer no card for it any more."""
        self._macs.drop(job.boot.macs if job.boot is not None else (), job.id)

    def complete(self) -> None:
        """Complete the index: another version's worker may have begun jobs that are not in it."""
        self.prepare()
        for job in reversed(self._files.by_age()):
            if _called(job.boot) and not job.closed:
                self._macs.put([mac for mac in job.boot.macs if self.find(mac) is None], job.id)

    def prepare(self) -> None:
        """Have an index of MACs."""
        if not self._macs.there():
            self._macs.make(job for job in self._files.by_age() if _called(job.boot))

    def _taken(self, job: Job, mac: str, other: Job) -> Conflict:
        return Conflict(
            f"{job.provider or job.machine} is to boot from the network by {mac}, and so does "
            f"{other.provider or 'another server'} now, for {other.machine}: one of the two would be booted in place "
            "of the other. See which of them has that network card, and set `macs` of the other; if the machine is "
            f"gone for good, remove {self._files.path(other.id, 'json')} on the worker's host",
            provider=job.provider,
            other=other.provider,
            mac=mac,
            blame="site",
        )


def _called(boot: Boot | None) -> TypeGuard[Boot]:
    """Whether a server was, or is about to be, switched on for it. Older workers noted only when it had been."""
    return boot is not None and (boot.on_at is not None or boot.at is not None)
