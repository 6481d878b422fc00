"""What a simulated boot shows over time: a pure function of the host's settings and of the moment of power on.

Nothing runs while a machine boots: console and address are worked out when they are asked for, so that a killed
process loses nothing.
"""

from __future__ import annotations

import json
import random
import sqlite3
import time
from dataclasses import dataclass

from mulligan.activities.drivers.simulated.personalities import Personality
from mulligan.activities.drivers.simulated.settings import HostSettings
from mulligan.activities.values import Kind

_SCRIPT = (
    (0.00, "[    0.000000] Linux version 6.1.0-simulated (this is a simulation)"),
    (0.05, "[    0.412004] Command line: root=LABEL=root console=ttyS0"),
    (0.20, "[    1.083311] virtio_blk virtio1: [vda] simulated disk"),
    (0.35, "[    1.902718] EXT4-fs (vda1): mounted filesystem with ordered data mode"),
    (0.50, "[    2.511926] systemd[1]: Set hostname to <{hostname}>."),
    (0.70, "[    3.120455] cloud-init[412]: Cloud-init running 'init' with datasource NoCloud"),
    (0.90, "[  OK  ] Started OpenSSH server daemon."),
    (1.00, "{hostname} login: "),
)
"""When each line shows, as a share of the time that the system takes, and the line."""


@dataclass(frozen=True, slots=True)
class Boot:
    """One boot of one machine."""

    machine_id: str
    boot_id: str
    hostname: str
    address: str
    powered_at: float
    """POSIX time, seconds; as are the other moments."""
    address_at: float | None
    """None when it never gets an address."""
    home_at: float | None
    """When it calls home; None when it never does."""
    lines: tuple[tuple[float, str], ...]

    def console(self, now: float, notes: list[tuple[float, str]]) -> bytes:
        """All that the console has shown by `now`, notes of the running guest last."""
        shown = [line for at, line in (*self.lines, *notes) if at <= now]
        return "".join(f"{line}\r\n" for line in shown).encode("ascii", "replace")


def boot_of(settings: HostSettings, row: sqlite3.Row) -> Boot:
    """The boot that a row of `machines` is in."""
    guest = json.loads(row["guest"])
    hostname = guest.get("hostname") or "localhost"
    draw = random.Random(f"{settings.fleet}/{settings.host}/{settings.seed}/{row['machine_id']}/{row['boots']}")
    bare = settings.kind is Kind.BARE_METAL
    post = draw.uniform(15, 40) if bare else draw.uniform(0.3, 1.0)
    post *= 8 if settings.has(Personality.SLOW_POST) else 1
    system, lease, home = draw.uniform(2, 5), draw.uniform(0.2, 1.0), draw.uniform(0.5, 2.0)
    start = row["powered_at"] + post * settings.speed
    up = start + system * settings.speed
    address_at = up + lease * settings.speed
    silent = settings.has(Personality.NEVER_BOOTS) or guest.get("base") in settings.broken
    lost = silent or settings.has(Personality.BOOTS_THEN_SILENT)
    mute = lost or settings.has(Personality.NO_CALL_HOME)
    firmware = (row["powered_at"], f"Simulated firmware {settings.fleet}/{settings.host}: power-on self test")
    script = [(start + share * (up - start), line.format(hostname=hostname)) for share, line in _SCRIPT]
    return Boot(
        machine_id=row["machine_id"],
        boot_id=row["boot_id"],
        hostname=hostname,
        address=address_of(settings, row["number"]),
        powered_at=row["powered_at"],
        address_at=None if lost else address_at,
        home_at=None if mute else address_at + home * settings.speed,
        lines=() if silent else (firmware, *script),
    )


def go_off(db: sqlite3.Connection, settings: HostSettings) -> None:
    """Write down that machines of the host went off by themselves, at the moment at which each did."""
    if settings.off_after:
        db.execute(
            "UPDATE machines SET state='off', off_at=powered_at+? WHERE host=? AND state='on' AND powered_at+?<=?",
            (settings.off_after, settings.host, settings.off_after, time.time()),
        )


def address_of(settings: HostSettings, number: int) -> str:
    """A loopback address, 127.64.0.0/10, so that a guest can really listen on it.

    Machines of one fleet share an address only when 65,024 others were defined between them.
    """
    second = 64 + random.Random(settings.fleet).randrange(64)
    return f"127.{second}.{number // 254 % 256}.{number % 254 + 1}"


def mac_of(number: int) -> str:
    """A locally administered hardware address, the one QEMU's guests have by custom."""
    return "52:54:00:" + ":".join(f"{number >> shift & 255:02x}" for shift in (16, 8, 0))
