"""How far a server came with its boot, as its BMC says: told to those who wait, and kept as evidence. Not all BMCs say.

It is information, never a condition: a BMC that is busy, or is away, is asked again later, and fails nothing. Only a
server that is off, and stays so, has nothing more to say: that ends the wait.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from datetime import datetime, timedelta

from temporalio import activity

from mulligan.activities import calls
from mulligan.activities.beat import Beat, beating
from mulligan.activities.drivers.base import BootProgress, Deadline, Driver, ProgressReading
from mulligan.activities.errors import Transient
from mulligan.activities.powered import Powered
from mulligan.activities.site import Site
from mulligan.activities.values import Evidence, Mark

EVERY_SECONDS = 5.0
"""Between two questions: a boot takes minutes, and a BMC has little time to spare."""
READ_SECONDS = 10.0
POWER_SECONDS = 15.0
"""Between two questions for its power, and how long it is off until that is believed: one that restarts is on again."""
CLOCK_TOLERANCE = timedelta(seconds=2)
"""How far a BMC's clock may be behind the clock by which the boot is dated."""
SOURCE = "boot-progress"
NOT_SAID = "its BMC does not say how far it came with its boot"


class Watched:
    """One server's boot, as its BMC told it last."""

    def __init__(self, mark: Mark, every_seconds: float = EVERY_SECONDS, *, at_once: bool = True) -> None:
        self._mark = mark
        self._every = every_seconds
        self._next = 0.0 if at_once else time.monotonic() + every_seconds
        self._last: ProgressReading | None = None

    async def look(self, driver: Driver) -> None:
        """Ask, if it is time again, where the BMC can be asked. Raises what the driver raises."""
        if not isinstance(driver, BootProgress) or time.monotonic() < self._next:
            return
        self._next = time.monotonic() + self._every
        self._last = await driver.boot_progress(self._mark, Deadline.after(READ_SECONDS)) or self._last

    @property
    def said(self) -> str:
        """What it said last, for people; empty where it said nothing."""
        return self._last.said if self._last is not None else ""

    def proved(self, booted_at: datetime) -> tuple[Evidence, ...]:
        """What it said last, if that is newer than the boot."""
        if self._last is None or self._last.at is None or self._last.at < booted_at - CLOCK_TOLERANCE:
            return ()
        return (Evidence(None, SOURCE, self._last.said, self._last.at),)


class WatchActivities:
    """Boots watched."""

    def __init__(self, site: Site, every_seconds: float = EVERY_SECONDS, power_seconds: float = POWER_SECONDS) -> None:
        self._site = site
        self._every = every_seconds
        self._power = power_seconds

    @activity.defn(name=calls.WATCH_BOOT.name)
    async def watch_boot(self, asked: calls.WatchBootIn) -> calls.Observed:
        """Say how far the boot came until cancelled, which is how it ends well; what was said last is the result.

        Raises `VerifyFailed` when the server is off and stays so.
        """
        watched = Watched(asked.mark, self._every)
        powered = Powered(asked.target, asked.mark, self._power)
        try:
            async with beating(f"awaiting {asked.awaiting}") as beat:
                while True:
                    with suppress(Transient):
                        async with self._site.driver(asked.target) as driver:
                            await self._follow(driver, watched, powered, asked, beat)
                    await asyncio.sleep(self._every)
        except asyncio.CancelledError:
            why = activity.cancellation_details()
            if why is None or not why.cancel_requested:
                raise  # this worker ends; another one goes on
        return calls.Observed(watched.said or NOT_SAID, watched.proved(asked.booted_at))

    async def _follow(
        self, driver: Driver, watched: Watched, powered: Powered, asked: calls.WatchBootIn, beat: Beat
    ) -> None:
        """Ask and tell for as long as the BMC answers."""
        power_due = time.monotonic() + self._power
        while True:
            await watched.look(driver)
            if powered.in_doubt or time.monotonic() >= power_due:
                power_due = time.monotonic() + self._power
                await powered.look(driver, watched.said)
            beat(f"awaiting {asked.awaiting}; {watched.said or NOT_SAID}")
            await asyncio.sleep(self._every)
