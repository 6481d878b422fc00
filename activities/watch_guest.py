"""A look at a machine whose guest is awaited: is it still on, and what does its console say.

One look is one attempt, which fails with what was seen, and is repeated by Temporal: between two looks no worker is
kept busy, however many guests are awaited, and everybody who asks Temporal reads what was last seen.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime

from temporalio import activity

from mulligan.activities import calls
from mulligan.activities.beat import beating
from mulligan.activities.drivers.base import Console, Deadline, Driver
from mulligan.activities.errors import MulliganError, VerifyFailed
from mulligan.activities.powered import Powered
from mulligan.activities.site import Site
from mulligan.activities.translate import ask_again
from mulligan.activities.values import Mark

AGAIN_SECONDS = 15.0
"""Between two looks."""
NOT_SEEN_SECONDS = 60.0
"""Until the next look where one was not possible: a BMC that is away, or refuses a password, is given time."""
OFF_SECONDS = 15.0
"""A machine that restarts is off for less; one that is off for so long has nothing more to say."""
OFF_AGAIN_SECONDS = 5.0
"""Between two readings of a machine that is off."""
READ_SECONDS = 10.0
MOST_CHUNKS = 64
"""Of a console: what an operator's hypervisor keeps of it by default, and more."""


class GuestActivities:
    """Guests that are awaited, looked at from outside."""

    def __init__(self, site: Site, off_seconds: float = OFF_SECONDS, off_again: float = OFF_AGAIN_SECONDS) -> None:
        self._site = site
        self._off_seconds = off_seconds
        self._off_again = off_again

    @activity.defn(name=calls.WATCH_GUEST.name)
    async def watch_guest(self, asked: calls.WatchGuestIn) -> calls.Done:
        """Look once. Raises `VerifyFailed` when the machine is off and stays so, else that it is to be asked again."""
        waits, after = f"awaits {asked.awaiting}", AGAIN_SECONDS
        try:
            async with beating(waits) as beat, self._site.driver(asked.target) as driver:
                seen = await self._look(driver, asked, lambda said: beat(f"{waits}; {said}"))
        except VerifyFailed:
            raise
        except MulliganError as error:  # it may call all the same
            seen, after = f"its machine cannot be looked at: {error.message}", NOT_SEEN_SECONDS
        raise ask_again(f"{waits}; {seen}", after, datetime.now(UTC))

    async def _look(self, driver: Driver, asked: calls.WatchGuestIn, say: Callable[[str], None]) -> str:
        powered = Powered(asked.target, asked.mark, self._off_seconds)
        console = await _console(driver, asked.mark)
        reading = await powered.look(driver, console)
        while powered.in_doubt:
            say("its power is off, which is asked again")
            await asyncio.sleep(self._off_again)
            reading = await powered.look(driver, console)
        doubt = f"its power is {reading.state}, says a BMC that may have restarted since it was on: it is not believed"
        return "; ".join(filter(None, (doubt if reading.doubtful else "its power is on", console)))


async def _console(driver: Driver, mark: Mark) -> str:
    """What the console last said, for people. One that cannot be read says nothing of the power, which is read too."""
    try:
        line = await last_line(driver, mark)
    except MulliganError as error:
        return f"its console cannot be read: {error.message}"
    return f"its console last said {line[:120]!r}" if line else ""


async def last_line(driver: Driver, mark: Mark) -> str:
    """What the console last said; empty where it said nothing, or where the driver has none."""
    line, offset = "", 0
    if not isinstance(driver, Console):
        return line
    for _ in range(MOST_CHUNKS):
        chunk = await driver.console(mark, offset, Deadline.after(READ_SECONDS))
        if chunk.next_offset <= offset:
            break
        line, offset = chunk.last_line or line, chunk.next_offset
    return line
