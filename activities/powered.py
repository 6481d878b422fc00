"""Whether a machine that was switched on stays so: what makes a reading of "off" one that is believed.

A server that restarts is off for some seconds, and a provider may tell the old state for a moment. "Off" that the
driver itself doubts does not count: the machine may run, and what is awaited of it may come.
"""

from __future__ import annotations

import time

from mulligan.activities.drivers.base import Deadline, Driver, Power, PowerReading
from mulligan.activities.errors import VerifyFailed
from mulligan.activities.site import able
from mulligan.activities.values import Mark, PowerState, Target

READINGS = 3
"""So many in a row that say off are believed, when the first and the last are as far apart as the caller says."""
READ_SECONDS = 10.0


class Powered:
    """One machine's power, read again and again."""

    def __init__(self, target: Target, mark: Mark, seconds: float) -> None:
        self._target = target
        self._mark = mark
        self._seconds = seconds
        self._readings = 0
        self._since = 0.0
        """When the first reading of off was made, on the monotonic clock."""

    @property
    def in_doubt(self) -> bool:
        """Whether it was last read as off, and that is not believed yet. One that is doubtful does not count."""
        return self._readings > 0

    async def look(self, driver: Driver, last_seen: str = "") -> PowerReading:
        """Read it. Raises `VerifyFailed` once off is believed, with what was last seen; and what the driver raises."""
        reading = await able(driver, Power, self._target).power(self._mark, Deadline.after(READ_SECONDS))
        if reading.state is PowerState.ON or reading.doubtful:
            self._readings = 0
            return reading
        self._since = self._since if self._readings else time.monotonic()
        self._readings += 1
        if self._readings >= READINGS and time.monotonic() - self._since >= self._seconds:
            said = f"{self._mark.machine} was switched on, but {self._target.name} says {reading.state}"
            raise VerifyFailed(f"{said}{f'; {last_seen}' if last_seen else ''}", power=reading.state)
        return reading
