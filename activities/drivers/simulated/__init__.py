"""Simulated hosts, for trying Mulligan without hardware, for benchmarks and for the fault matrix."""

from __future__ import annotations

from pathlib import Path

from mulligan.activities.drivers.simulated.driver import SimulatedDriver
from mulligan.activities.drivers.simulated.fleet import FleetHost, fleet
from mulligan.activities.drivers.simulated.guest import ensure_guest, stop_guests
from mulligan.activities.drivers.simulated.personalities import Personality, personalities
from mulligan.activities.drivers.simulated.settings import read_settings
from mulligan.activities.drivers.simulated.state import open_state, opened
from mulligan.activities.drivers.simulated.view import Entry, SimulatedObject, Snapshot, journal, mend, plant, snapshot
from mulligan.activities.threads import run_blocking
from mulligan.activities.values import Target

__all__ = [
    "Entry",
    "FleetHost",
    "Personality",
    "SimulatedDriver",
    "SimulatedObject",
    "Snapshot",
    "fleet",
    "journal",
    "mend",
    "open_simulated",
    "personalities",
    "plant",
    "snapshot",
    "stop_guests",
]


async def open_simulated(target: Target, state_dir: Path) -> SimulatedDriver:
    """Open a simulated host; its fleet's state is one file in `state_dir`, shared by all processes that use it.

    Guests of the host that a process left behind when it ended go on running in this one. Raises `InvalidRequest` for
    an address that is not one of a simulated host (see `settings`), `HostNotReady` when the file cannot be opened, and
    `Unreachable` when it cannot be used now.
    """
    settings = read_settings(target)
    state = opened(state_dir, settings.fleet)
    if state is None:
        state = await run_blocking(open_state, state_dir, settings.fleet)
    unfinished = await state.read(
        lambda db: db.execute(
            "SELECT * FROM machines WHERE host=? AND state='on' AND (home='' OR ?)", (settings.host, settings.service)
        ).fetchall()
    )
    for row in unfinished:
        ensure_guest(state, settings, row)
    return SimulatedDriver(state, settings)
