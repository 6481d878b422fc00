"""When a BMC is believed that it has not what it had: one that restarts says so, and has one part after the other."""

from __future__ import annotations

import time
from collections.abc import Callable

BELIEVED_SECONDS = 300.0
"""How long it must say so: BMCs take one to five minutes to start. To wait so long for what is really gone costs less
than a run that is undone, and a server that is quarantined, for what was on its way."""
FORGOTTEN_SECONDS = 600.0
"""What was missing so long ago, and was not asked for since, tells nothing of now: a run asks every half minute."""


class Absences:
    """For one BMC, in one process: since when each provider was not given what it asked for."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._missed: dict[tuple[str, str], tuple[float, float]] = {}
        """When it was missed first, and last, by the provider and what was being done."""

    def believed(self, provider: str, doing: str, *, starting: bool) -> bool:
        """Note that something was not there, and say whether that was so long enough. `starting` says that the BMC has
        nothing yet: the time begins when it has."""
        now = self._clock()
        self._missed = {key: seen for key, seen in self._missed.items() if now - seen[1] < FORGOTTEN_SECONDS}
        first = now if starting else self._missed.get((provider, doing), (now, now))[0]
        self._missed[provider, doing] = (first, now)
        return now - first >= BELIEVED_SECONDS

    def ended(self, provider: str, doing: str) -> None:
        """It was there, or something else was wrong: the BMC is not what it was."""
        self._missed.pop((provider, doing), None)
