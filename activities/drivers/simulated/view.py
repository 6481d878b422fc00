"""The operator's and the tests' view of a simulated fleet: what exists, what was done, and how a host is mended."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mulligan.activities.drivers.simulated.state import path_of


@dataclass(frozen=True, slots=True)
class SimulatedObject:
    """One object of a machine: `kind` is `computer`, `disk` or `seed`."""

    host: str
    name: str
    kind: str
    project: str
    machine: str
    machine_id: str
    run_id: str
    fence: int


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the journal: a call of a changing verb, or a call that failed."""

    number: int
    at: datetime
    pid: int
    """The process that made the call."""
    host: str
    verb: str
    machine_id: str
    fence: int
    outcome: str
    """`BEGUN` (a slow verb has started), `OK`, or the error's reason, e.g. `STALE_FENCE`."""
    changed: bool
    """Whether the host was changed: a repeated verb that found the desired state there has not changed it."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything that exists in a fleet at one moment."""

    objects: tuple[SimulatedObject, ...] = ()
    powered_on: tuple[tuple[str, str], ...] = ()
    """(host, machine id)."""
    bases: tuple[tuple[str, str], ...] = ()
    """(host, digest); kept on purpose when machines go."""

    @property
    def clean(self) -> bool:
        """Whether nothing of any machine is there."""
        return not self.objects and not self.powered_on


def snapshot(state_dir: Path, fleet: str) -> Snapshot:
    """Read what exists now. A fleet that nobody has driven yet is empty."""
    objects = "SELECT host, name, kind, project, machine, machine_id, run_id, fence FROM objects ORDER BY host, name"
    powered = "SELECT host, machine_id FROM machines WHERE state='on' ORDER BY host, machine_id"
    bases = "SELECT host, digest FROM bases ORDER BY host, digest"
    found = _rows(state_dir, fleet, objects, powered, bases)
    return Snapshot(
        tuple(SimulatedObject(*row) for row in found[0]),
        tuple((row[0], row[1]) for row in found[1]),
        tuple((row[0], row[1]) for row in found[2]),
    )


def journal(state_dir: Path, fleet: str, after: int = 0) -> tuple[Entry, ...]:
    """Read what was done, oldest first, from the entry after number `after` on."""
    entries = "SELECT id, at, pid, host, verb, machine_id, fence, outcome, changed FROM journal ORDER BY id"
    (rows,) = _rows(state_dir, fleet, entries)
    return tuple(
        Entry(number, datetime.fromtimestamp(at, UTC), pid, host, verb, machine_id, fence, outcome, bool(changed))
        for number, at, pid, host, verb, machine_id, fence, outcome, changed in rows
        if number > after
    )


def mend(state_dir: Path, fleet: str, host: str) -> None:
    """Repair a host by hand: it answers again and its objects can be removed, whatever its personality."""
    with closing(sqlite3.connect(path_of(state_dir, fleet), timeout=10)) as db, db:
        db.execute(
            "INSERT INTO hosts (host, mended) VALUES (?, 1)"
            " ON CONFLICT DO UPDATE SET mended=1, dead=0, busy=0, stuck_seed=NULL",
            (host,),
        )


def plant(state_dir: Path, fleet: str, host: str, name: str) -> None:
    """Put an object on the host that carries nobody's mark, as someone working there by hand might."""
    with closing(sqlite3.connect(path_of(state_dir, fleet), timeout=10)) as db, db:
        db.execute("INSERT INTO objects VALUES (?, ?, 'disk', '', '', '', '', 0, '{}')", (host, name))


def _rows(state_dir: Path, fleet: str, *queries: str) -> list[list[Any]]:
    path = path_of(state_dir, fleet)
    if not path.exists():
        return [[] for _ in queries]
    with closing(sqlite3.connect(path, timeout=10, isolation_level=None)) as db:
        db.execute("BEGIN")
        if db.execute("SELECT 1 FROM sqlite_master WHERE name='journal'").fetchone() is None:
            return [[] for _ in queries]  # another process is just making it: that is the last of its tables
        return [db.execute(query).fetchall() for query in queries]
