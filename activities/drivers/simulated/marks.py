"""Who may touch what on a simulated host: the mark and fence rules of `drivers.base`, over the fleet's file."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping

from mulligan.activities.drivers.simulated.settings import HostSettings
from mulligan.activities.errors import Conflict, StaleFence
from mulligan.activities.values import Kind, Mark


def name_of(kind: str, machine_id: str) -> str:
    """The name of a machine's object: `kind` is `computer`, `disk`, `live` (in the place of a disk) or `seed`."""
    return f"mulligan-{machine_id}-{kind}"


def check_fence(db: sqlite3.Connection, host: str, mark: Mark) -> None:
    """Raise `StaleFence` when the host has seen a newer fence of the same machine."""
    row = db.execute("SELECT fence FROM fences WHERE host=? AND machine_id=?", (host, mark.machine_id)).fetchone()
    if row is not None and row["fence"] > mark.fence:
        raise _stale(host, mark, row["fence"])


def keep_fence(db: sqlite3.Connection, host: str, mark: Mark) -> None:
    """Remember the newest fence seen of this machine, after checking it."""
    check_fence(db, host, mark)
    db.execute(
        "INSERT INTO fences VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET fence=excluded.fence"
        " WHERE fences.fence < excluded.fence",
        (host, mark.machine_id, mark.fence),
    )


def check_sole(db: sqlite3.Connection, settings: HostSettings, mark: Mark) -> None:
    """A server given whole holds one machine: raise `StaleFence` or `Conflict` when another's mark is on it."""
    if settings.kind is not Kind.BARE_METAL:
        return
    other = db.execute(
        "SELECT name, machine_id, fence FROM objects WHERE host=? AND machine_id<>? ORDER BY fence DESC LIMIT 1",
        (settings.host, mark.machine_id),
    ).fetchone()
    if other is not None and other["fence"] > mark.fence:
        raise _stale(settings.host, mark, other["fence"])
    if other is not None:
        raise _foreign(settings.host, other["name"], other["machine_id"], mark)


def own(db: sqlite3.Connection, host: str, kind: str, mark: Mark) -> dict[str, object] | None:
    """The data of this machine's object; None when it is absent. Raises `Conflict` when the name is someone else's."""
    name = name_of(kind, mark.machine_id)
    row = db.execute("SELECT machine_id, data FROM objects WHERE host=? AND name=?", (host, name)).fetchone()
    if row is None:
        return None
    if row["machine_id"] != mark.machine_id:
        raise _foreign(host, name, row["machine_id"], mark)
    data: dict[str, object] = json.loads(row["data"])
    return data


def put(db: sqlite3.Connection, host: str, kind: str, mark: Mark, data: Mapping[str, object]) -> None:
    """Make this machine's object, or take it over, under the mark."""
    db.execute(
        "INSERT INTO objects VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET"
        " run_id=excluded.run_id, fence=excluded.fence, data=excluded.data"
        " WHERE (objects.run_id, objects.fence, objects.data) <> (excluded.run_id, excluded.fence, excluded.data)",
        (
            host,
            name_of(kind, mark.machine_id),
            kind,
            mark.project,
            mark.machine,
            mark.machine_id,
            mark.run_id,
            mark.fence,
            json.dumps(data),
        ),
    )


def remove(db: sqlite3.Connection, host: str, kind: str, mark: Mark) -> bool:
    """Remove this machine's object; whether there was one."""
    found = own(db, host, kind, mark) is not None
    db.execute("DELETE FROM objects WHERE host=? AND name=?", (host, name_of(kind, mark.machine_id)))
    return found


def names(db: sqlite3.Connection, host: str, machine_id: str) -> tuple[str, ...]:
    """Every object that carries this machine's mark."""
    rows = db.execute("SELECT name FROM objects WHERE host=? AND machine_id=? ORDER BY name", (host, machine_id))
    return tuple(row["name"] for row in rows)


def _stale(host: str, mark: Mark, newer: int) -> StaleFence:
    return StaleFence(
        f"machine {mark.machine!r} asked with fence {mark.fence}, but host {host!r} has seen fence {newer}: a newer "
        "claim owns it, and this run must stop",
        host=host,
        machine_id=mark.machine_id,
        fence=mark.fence,
        newer=newer,
    )


def _foreign(host: str, name: str, owner: str, mark: Mark) -> Conflict:
    whose = f"machine {owner}" if owner else "nobody that Mulligan knows"
    return Conflict(
        f"machine {mark.machine!r} needs {name!r} on host {host!r}, but that is the property of {whose}: it was not "
        "touched; see what it is and remove it by hand, or claim another provider",
        host=host,
        object=name,
        owner=owner,
    )
