"""Which job a network card boots for: one small file for each MAC, so that not every job is read for each server.

A file names the job that took the MAC last. It is a hint: whoever follows it looks at the job itself, so that one that
is left over does no harm. Where there is no index yet, it is made from the jobs.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

from mulligan.activities.bootserver.job import Job

Keep = Callable[[Path, bytes], None]


class MacIndex:
    """The index in a folder; who changes it holds the jobs' lock. `keep` writes a file, whole and for good."""

    def __init__(self, folder: Path, keep: Keep) -> None:
        self._folder = folder
        self._keep = keep

    def there(self) -> bool:
        """Whether it was made."""
        return self._folder.is_dir()

    def make(self, jobs: Iterable[Job]) -> None:
        """Make it anew; of jobs that name the same MAC the last one has it. Complete before it is there."""
        new = self._folder.with_name(self._folder.name + ".new")
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(mode=0o700)
        made = MacIndex(new, self._keep)
        for job in jobs:
            if job.boot is not None and not job.closed:
                made.put(job.boot.macs, job.id)
        new.rename(self._folder)

    def job(self, mac: str) -> str:
        """The name of the job that took the MAC last; empty when none did."""
        try:
            return self._path(mac).read_text(encoding="ascii", errors="replace").strip()
        except FileNotFoundError:
            return ""

    def put(self, macs: Iterable[str], job: str) -> None:
        """Let the job have the MACs."""
        for mac in macs:
            if self.job(mac) != job:
                self._keep(self._path(mac), job.encode())

    def drop(self, macs: Iterable[str], job: str) -> None:
        """Forget the MACs, where they are still the job's."""
        for mac in macs:
            if self.job(mac) == job:
                with contextlib.suppress(FileNotFoundError):
                    self._path(mac).unlink()

    def _path(self, mac: str) -> Path:
        return self._folder / mac.replace(":", "-")
