"""The simulated driver: every verb of a real one, on hosts that exist only in a file."""

from __future__ import annotations

import hashlib
import json
import random
import sqlite3
import time
import uuid
from collections.abc import Collection, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial

from mulligan.activities.drivers.base import (
    BaseImage,
    ConsoleChunk,
    Deadline,
    LiveSource,
    PowerReading,
    Progress,
    Shape,
    Sighting,
    Sightings,
)
from mulligan.activities.drivers.simulated import marks
from mulligan.activities.drivers.simulated.boot import boot_of, mac_of
from mulligan.activities.drivers.simulated.frame import BUSY_VERBS, Frame, Verb, pause
from mulligan.activities.drivers.simulated.guest import ensure_guest
from mulligan.activities.drivers.simulated.personalities import Personality
from mulligan.activities.drivers.simulated.seed import GuestSeed, read_seed
from mulligan.activities.drivers.simulated.settings import HostSettings
from mulligan.activities.drivers.simulated.state import State
from mulligan.activities.errors import Conflict, InvalidRequest, Leftover, NotFound
from mulligan.activities.threads import run_blocking
from mulligan.activities.values import Inspection, InventoryRow, Kind, Mark, PowerState, Service, ServiceKind

CHUNK_BYTES = 64 * 1024
CAPABILITIES = (
    "arch.x86_64", "boot.disk", "boot.live", "boot.live-iso", "console.serial", "driver.simulated", "firmware.bios",
    "firmware.uefi",
)  # fmt: skip
"""What every simulated host can do."""

PRETENDED_BYTES = 512 * 1024 * 1024
"""How large an image of unknown size is said to be while it is placed."""


class SimulatedDriver:
    """A connection to one simulated host.

    It is a Driver, Disks, LiveSources, Computers, Power, Console, Addresses, PlayedGuests.
    """

    moves_bytes = False

    def __init__(self, state: State, settings: HostSettings) -> None:
        self._state = state
        self._settings = settings
        self._host = settings.host
        self._frame = Frame(state, settings)

    async def inspect(self, deadline: Deadline) -> Inspection:
        """The host as its address describes it."""
        return await self._frame.run(Verb("inspect", None, deadline), lambda _db: self._inspection())

    async def remains(self, machine_id: str, deadline: Deadline) -> tuple[str, ...]:
        """Every object that carries this machine's mark."""
        return await self._frame.run(
            Verb("remains", None, deadline), lambda db: marks.names(db, self._host, machine_id)
        )

    async def close(self) -> None:
        """Nothing is held: the fleet's file stays open for the process, and guests go on running."""

    async def has_base(self, digest: str, deadline: Deadline) -> bool:
        """Whether the base was placed on this host."""
        return await self._frame.run(Verb("has_base", None, deadline), partial(self._has_base, digest))

    async def place_base(self, image: BaseImage, progress: Progress, deadline: Deadline) -> None:
        """Pretend to copy the base, in steps, then keep its name; no file is read."""
        verb = Verb("place_base", None, deadline)
        total = image.virtual_size_bytes or PRETENDED_BYTES
        there = await self._state.read(partial(self._has_base, image.digest))

        async def copy() -> None:
            seconds = random.Random(f"{self._host}/{self._settings.seed}/{image.digest}").uniform(1.5, 4.0)
            for step in range(11):
                progress("placing the image", total * step // 10, total)
                if step < 10 and self._settings.speed:
                    await pause(seconds * self._settings.speed / 10, verb, self._host)

        def keep(db: sqlite3.Connection) -> None:
            db.execute("INSERT OR IGNORE INTO bases VALUES (?, ?, ?)", (self._host, image.digest, total))

        await self._frame.run(verb, keep, None if there else copy)

    async def remove_bases(self, only: Collection[str] | None, deadline: Deadline) -> tuple[str, ...]:
        """Forget the bases that no disk is built on."""

        def unmake(db: sqlite3.Connection) -> tuple[str, ...]:
            disks = db.execute("SELECT data FROM objects WHERE host=? AND kind IN ('disk', 'live')", (self._host,))
            held = [json.loads(row["data"]) for row in disks]
            used = {each.get(key) for each in held for key in ("base", "initrd")}
            rows = db.execute("SELECT digest FROM bases WHERE host=? ORDER BY digest", (self._host,))
            there = [row["digest"] for row in rows]
            gone = [digest for digest in there if digest not in used and (only is None or digest in only)]
            db.executemany("DELETE FROM bases WHERE host=? AND digest=?", [(self._host, digest) for digest in gone])
            return tuple(gone)

        return await self._frame.run(Verb("remove_bases", None, deadline), unmake)

    async def create_disks(self, mark: Mark, digest: str, disk_gib: int, seed: bytes, deadline: Deadline) -> None:
        """Make, or take over, the machine's disk and seed."""
        if disk_gib < 1:
            raise InvalidRequest(
                f"machine {mark.machine!r} asked for a disk of {disk_gib} GiB; ask for at least 1",
                violations=[("disk_gib", "is less than 1")],
            )
        guest = asdict(await run_blocking(read_seed, seed))
        wanted: dict[str, dict[str, object]] = {
            "disk": {"base": digest, "disk_gib": disk_gib},
            "seed": {"digest": hashlib.sha256(seed).hexdigest(), "guest": guest},
        }

        await self._frame.run(Verb("create_disks", mark, deadline), partial(self._put, mark, [digest], wanted))

    async def place_live(self, mark: Mark, source: LiveSource, seed: bytes, deadline: Deadline) -> None:
        """Make, or take over, what the machine boots in the place of a disk, and its seed."""
        guest = asdict(await run_blocking(read_seed, seed) if seed else GuestSeed())
        wanted: dict[str, dict[str, object]] = {
            "live": {"base": source.digest, "initrd": source.initrd_digest, "format": source.format.value},
            "seed": {"digest": hashlib.sha256(seed).hexdigest(), "guest": guest},
        }
        needed = [each for each in (source.digest, source.initrd_digest) if each]
        await self._frame.run(Verb("place_live", mark, deadline), partial(self._put, mark, needed, wanted))

    async def remove_disks(self, mark: Mark, deadline: Deadline) -> None:
        """Remove disk, or what is booted in its place, and seed; `Leftover` says what stayed."""

        def unmake(db: sqlite3.Connection) -> None:
            disk, live, seed = (marks.own(db, self._host, kind, mark) for kind in ("disk", "live", "seed"))
            if disk is None and live is None and seed is None:
                return
            self._check_off(db, mark, "its disks cannot be removed")
            self._check_unstuck(db, mark)
            marks.remove(db, self._host, "disk", mark)
            marks.remove(db, self._host, "live", mark)
            if disk is not None and seed is not None and self._settings.has(Personality.HALF_UNDO):
                raise self._leftover(db, mark)
            if seed is not None and self._settings.has(Personality.STICKY_MEDIA):
                self._set_host(db, "stuck_seed=?", json.dumps(seed["guest"]))
            marks.remove(db, self._host, "seed", mark)

        await self._frame.run(Verb("remove_disks", mark, deadline), unmake)

    async def define(self, mark: Mark, shape: Shape, deadline: Deadline) -> None:
        """Make the machine's definition; one of an older try is replaced, powered off."""
        wanted = {**asdict(shape.resources), "firmware": shape.firmware.value, "architecture": shape.architecture}

        def make(db: sqlite3.Connection) -> None:
            marks.check_sole(db, self._settings, mark)
            key = (self._host, marks.name_of("computer", mark.machine_id))
            held = db.execute("SELECT fence, run_id FROM objects WHERE host=? AND name=?", key).fetchone()
            found = marks.own(db, self._host, "computer", mark)
            if found == wanted and held is not None and tuple(held) == (mark.fence, mark.run_id):
                return
            if found is not None:
                self._switch(db, mark, "off")
            marks.put(db, self._host, "computer", mark, wanted)
            db.execute("INSERT OR IGNORE INTO machines (host, machine_id) VALUES (?, ?)", (self._host, mark.machine_id))

        await self._frame.run(Verb("define", mark, deadline), make)

    async def undefine(self, mark: Mark, deadline: Deadline) -> None:
        """Remove the definition of a machine that is off."""

        def unmake(db: sqlite3.Connection) -> None:
            if marks.own(db, self._host, "computer", mark) is None:
                return
            self._check_off(db, mark, "its definition cannot be removed")
            self._check_unstuck(db, mark)
            marks.remove(db, self._host, "computer", mark)
            db.execute("DELETE FROM machines WHERE host=? AND machine_id=?", (self._host, mark.machine_id))

        await self._frame.run(Verb("undefine", mark, deadline), unmake)

    async def power(self, mark: Mark, deadline: Deadline) -> PowerReading:
        """Read the power; a host that lies reads the old state once after each change."""
        state = await self._frame.run(Verb("power", mark, deadline), partial(self._read_power, mark))
        return PowerReading(PowerState(state), datetime.now(UTC), f"simulated: {state}")

    async def power_on(self, mark: Mark, deadline: Deadline) -> None:
        """Start a boot, unless one goes on."""

        def start(db: sqlite3.Connection) -> sqlite3.Row:
            marks.check_sole(db, self._settings, mark)
            row = self._row(db, mark)
            if row is None or marks.own(db, self._host, "computer", mark) is None:
                raise NotFound(
                    f"machine {mark.machine!r} cannot be powered on: simulated host {self._host!r} has no definition "
                    "of it; define it first",
                    machine_id=mark.machine_id,
                )
            if row["state"] != "on":
                self._boot(db, mark)
            return self._row(db, mark) or row

        row = await self._frame.run(Verb("power_on", mark, deadline), start)
        ensure_guest(self._state, self._settings, row)

    async def power_off(self, mark: Mark, deadline: Deadline) -> None:
        """Cut the power."""
        await self._frame.run(Verb("power_off", mark, deadline), lambda db: self._switch(db, mark, "off"))

    async def console(self, mark: Mark, offset: int, deadline: Deadline) -> ConsoleChunk:
        """What the console has shown since the last power on."""
        row = await self._frame.run(Verb("console", mark, deadline), lambda db: self._row(db, mark))
        if row is None or not row["boots"]:
            return ConsoleChunk(offset, offset, "")
        ensure_guest(self._state, self._settings, row)
        now = time.time() if row["state"] == "on" else row["off_at"]
        shown = boot_of(self._settings, row).console(now, json.loads(row["notes"]))
        text = shown[offset : offset + CHUNK_BYTES]
        return ConsoleChunk(offset, offset + len(text), text.decode("ascii"))

    async def addresses(self, mark: Mark, deadline: Deadline) -> Sightings:
        """The lease that the simulated network gave; a host that lies shows an old one first."""
        row, lie = await self._frame.run(Verb("addresses", mark, deadline), partial(self._read_lease, mark))
        if row is None or row["state"] != "on":
            return Sightings(silent={"dhcp-lease": "the machine is off"})
        ensure_guest(self._state, self._settings, row)
        boot, mac = boot_of(self._settings, row), mac_of(row["number"])
        if lie:
            before = datetime.fromtimestamp(boot.powered_at - 3600, UTC)
            return Sightings((Sighting("dhcp-lease", "127.0.0.254", mac, before),))
        if boot.address_at is None or boot.address_at > time.time():
            return Sightings(silent={"dhcp-lease": f"no lease for {mac} yet"})
        at = datetime.fromtimestamp(boot.address_at, UTC)
        return Sightings((Sighting("dhcp-lease", boot.address, mac, at),))

    async def gateway(self, deadline: Deadline) -> str:
        """Simulated guests live in this process: they reach the boot server on loopback."""
        return await self._frame.run(Verb("gateway", None, deadline), lambda _db: "127.0.0.1")

    def unanswered(self, service: Service) -> str:
        """Guests say an SSH banner on one port, where they are set to, and nothing else."""
        settings = self._settings
        if not settings.service:
            return "its guests listen nowhere (its setting service is off)"
        if service.kind is ServiceKind.HTTP or service.port != settings.service_port:
            return f"its guests answer with an SSH banner on port {settings.service_port} only"
        return ""

    def _inspection(self) -> Inspection:
        settings = self._settings
        bare = settings.kind is Kind.BARE_METAL
        return Inspection(
            kind=settings.kind,
            inventory=tuple(InventoryRow(name, total) for name, total in settings.resources.rows()),
            capabilities=tuple(sorted((*CAPABILITIES, *(("boot.virtual-media",) if bare else ())))),
            facts={
                "simulation": "this host is simulated: it exists only in a file, and no real machine is made on it",
                "fleet": settings.fleet,
                "seed": str(settings.seed),
                "speed": f"{settings.speed:g}",
                "personalities": ", ".join(sorted(settings.personalities)) or "none",
            },
        )

    def _put(
        self, mark: Mark, bases: Collection[str], wanted: Mapping[str, dict[str, object]], db: sqlite3.Connection
    ) -> None:
        """Have the machine's objects be these, which need these bases."""
        marks.check_sole(db, self._settings, mark)
        for digest in bases:
            if not self._has_base(digest, db):
                raise NotFound(
                    f"machine {mark.machine!r} needs base {digest} on simulated host {self._host!r}, which does not "
                    "have it; place it first",
                    digest=digest,
                )
        found = {kind: marks.own(db, self._host, kind, mark) for kind in wanted}
        if found != wanted:
            self._check_off(db, mark, "its disks cannot be replaced")
        for kind, data in wanted.items():
            marks.put(db, self._host, kind, mark, data)

    def _has_base(self, digest: str, db: sqlite3.Connection) -> bool:
        return db.execute("SELECT 1 FROM bases WHERE host=? AND digest=?", (self._host, digest)).fetchone() is not None

    def _row(self, db: sqlite3.Connection, mark: Mark) -> sqlite3.Row | None:
        row: sqlite3.Row | None = db.execute(
            "SELECT * FROM machines WHERE host=? AND machine_id=?", (self._host, mark.machine_id)
        ).fetchone()
        return row

    def _set_host(self, db: sqlite3.Connection, setting: str, value: object) -> None:
        """Change what the host itself remembers; `setting` is an assignment such as `busy=?`."""
        db.execute("INSERT OR IGNORE INTO hosts (host) VALUES (?)", (self._host,))
        db.execute(f"UPDATE hosts SET {setting} WHERE host=?", (value, self._host))  # noqa: S608 - constants above

    def _boot(self, db: sqlite3.Connection, mark: Mark) -> None:
        disk, live, seed = (marks.own(db, self._host, kind, mark) for kind in ("disk", "live", "seed"))
        disk = live if live is not None else disk
        if disk is None or seed is None:
            raise Conflict(
                f"machine {mark.machine!r} cannot be powered on: it has no disk on simulated host {self._host!r}; "
                "create its disks first",
                machine_id=mark.machine_id,
            )
        guest = json.dumps(seed["guest"])
        stuck = db.execute("SELECT stuck_seed FROM hosts WHERE host=?", (self._host,)).fetchone()
        if stuck is not None and stuck["stuck_seed"]:
            guest = stuck["stuck_seed"]
            self._set_host(db, "stuck_seed=?", None)
        db.execute(
            "UPDATE machines SET boots=boots+1, boot_id=?, guest=?, notes='[]', home='', caller_until=0"
            " WHERE host=? AND machine_id=?",
            (str(uuid.uuid4()), json.dumps({**json.loads(guest), "base": disk["base"]}), self._host, mark.machine_id),
        )
        self._switch(db, mark, "on")

    def _switch(self, db: sqlite3.Connection, mark: Mark, state: str) -> None:
        row = self._row(db, mark)
        if row is None or row["state"] == state:
            return
        on, lies = state == "on", self._settings.has(Personality.LIES_ONCE)
        powered_at, off_at = (time.time(), row["off_at"]) if on else (row["powered_at"], time.time())
        db.execute(
            "UPDATE machines SET state=?, powered_at=?, off_at=?, lie_state=?, lie_address=? WHERE number=?",
            (state, powered_at, off_at, row["state"] if lies else "", lies and on, row["number"]),
        )
        if self._settings.has(Personality.BUSY_WINDOW):
            self._set_host(db, "busy=?", BUSY_VERBS)
        if on and self._settings.has(Personality.DIES) and not self._mended(db):
            self._set_host(db, "dead=?", 1)

    def _read_power(self, mark: Mark, db: sqlite3.Connection) -> str:
        row = self._row(db, mark)
        if row is None:
            return "absent"
        if row["lie_state"]:
            db.execute("UPDATE machines SET lie_state='' WHERE number=?", (row["number"],))
            return str(row["lie_state"])
        return str(row["state"])

    def _read_lease(self, mark: Mark, db: sqlite3.Connection) -> tuple[sqlite3.Row | None, bool]:
        row = self._row(db, mark)
        lie = row is not None and row["state"] == "on" and bool(row["lie_address"])
        if row is not None and lie:
            db.execute("UPDATE machines SET lie_address=0 WHERE number=?", (row["number"],))
        return row, lie

    def _check_off(self, db: sqlite3.Connection, mark: Mark, what: str) -> None:
        row = self._row(db, mark)
        if row is not None and row["state"] == "on":
            raise Conflict(
                f"machine {mark.machine!r} is on: {what} on simulated host {self._host!r}; power it off first",
                machine_id=mark.machine_id,
            )

    def _check_unstuck(self, db: sqlite3.Connection, mark: Mark) -> None:
        if self._settings.has(Personality.STUCK_UNDO) and not self._mended(db):
            raise self._leftover(db, mark)

    def _mended(self, db: sqlite3.Connection) -> bool:
        row = db.execute("SELECT mended FROM hosts WHERE host=?", (self._host,)).fetchone()
        return row is not None and bool(row["mended"])

    def _leftover(self, db: sqlite3.Connection, mark: Mark) -> Leftover:
        objects = marks.names(db, self._host, mark.machine_id)
        return Leftover(
            f"machine {mark.machine!r} was to be removed from simulated host {self._host!r}, but {', '.join(objects)} "
            "stayed; release it again, and when that does not help, mend the host",
            objects=objects,
            host=self._host,
        )
