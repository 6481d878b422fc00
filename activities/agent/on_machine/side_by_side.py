"""Several disks worked on at once, each by a thread of its own, and one report of all of them.

One after the other, a dozen hard disks would take weeks to be overwritten.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TypeVar

from .hardware import Disk
from .reporter import Reporter
from .tools import Failed

Ended = TypeVar("Ended")

_LOOK_SECONDS = 0.05
TELL_SECONDS = 0.5
"""So often it is put together anew how far all are; a change of what one is at, at once."""


def at_once(works: Sequence[Callable[[], Ended]]) -> list[Ended]:
    """Do them all; how each ended. What one raises, as that all must stop, is raised once all have ended."""
    ends: dict[int, Ended] = {}
    troubles: list[Exception] = []

    def do(number: int) -> None:
        try:
            ends[number] = works[number]()
        except Exception as error:  # noqa: BLE001 - a thread's boundary: whatever it was is raised below
            troubles.append(error)

    threads = [threading.Thread(target=do, args=(number,), daemon=True) for number in range(len(works))]
    started = []
    for thread in threads:
        try:
            thread.start()
        except RuntimeError as error:
            troubles.append(Failed("OUT_OF_MEMORY", f"{len(works)} disks cannot be worked on at once: {error}"))
            break
        started.append(thread)
    for thread in started:
        thread.join()
    if troubles:
        raise troubles[0]
    return [ends[number] for number in range(len(works))]


def within(seconds: float, works: Sequence[Callable[[], Ended]], check: Callable[[], None]) -> list[Ended | None]:
    """Do them all at once; what each gave, or None of one that failed or takes longer: a drive may never answer, and
    nothing is owed to it. Raises what `check`, which is called all the time, raises."""
    ends: dict[int, Ended] = {}

    def do(number: int) -> None:
        with suppress(Failed, OSError):
            ends[number] = works[number]()

    threads = [threading.Thread(target=do, args=(number,), daemon=True) for number in range(len(works))]
    for thread in threads:
        with suppress(RuntimeError):
            thread.start()
    until = time.monotonic() + seconds
    while any(thread.is_alive() for thread in threads) and time.monotonic() < until:
        check()
        time.sleep(_LOOK_SECONDS)
    return [ends.get(number) for number in range(len(works))]


class Erasing:
    """How far all disks are: the bytes done of all, and what each is at.

    `passes` is how often all of a disk is gone through; the second time, it is checked.
    """

    def __init__(self, reporter: Reporter, disks: Sequence[Disk], passes: int) -> None:
        self._reporter = reporter
        self._disks = {disk.path: disk for disk in disks}
        self._passes = passes
        self._lock = threading.Lock()
        self._doing = {disk.path: ("erasing", "{} waits") for disk in disks}
        self._bytes = dict.fromkeys(self._disks, 0)
        self._when = 0.0

    def at(self, disk: Disk, what: str, done: int = 0, total: int = 0, phase: str = "erasing") -> None:
        """Where the work on this disk is; `what` has `{}` for its name. Raises as the reporter's `at`."""
        if len(self._disks) == 1:
            self._reporter.at(phase, what.format(disk.named), done, total)
            return
        with self._lock:
            before = disk.size_bytes if phase == "checking" else 0
            self._bytes[disk.path] = before + (disk.size_bytes * done // total if total else 0)
            new, self._doing[disk.path] = self._doing[disk.path] != (phase, what), (phase, what)
            if new or time.monotonic() >= self._when + TELL_SECONDS:
                self._when = time.monotonic()
                self._tell()
        self.check()

    def ended(self, disk: Disk, how: str) -> None:
        """Nothing more is done to this disk; `how` has `{}` for its name."""
        if len(self._disks) > 1:
            with self._lock:
                self._bytes[disk.path] = disk.size_bytes * self._passes
                self._doing[disk.path] = ("checking", how)
                self._tell()

    def check(self) -> None:
        """Raise where all work must stop, as the reporter does."""
        self._reporter.check()

    def _tell(self) -> None:
        named: dict[str, list[str]] = {}
        for path, (_, what) in self._doing.items():
            named.setdefault(what, []).append(path.rpartition("/")[2])
        said = "; ".join(what.format(", ".join(names)) for what, names in named.items())
        phase = "erasing" if any(phase == "erasing" for phase, _ in self._doing.values()) else "checking"
        total = self._passes * sum(disk.size_bytes for disk in self._disks.values())
        self._reporter.at(phase, f"{len(self._disks)} disks: {said}", sum(self._bytes.values()), total)
