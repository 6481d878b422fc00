"""The orders for power that were given to a BMC, and that it has not shown yet: they are not given again.

An answer may be lost, and a BMC may tell of the power long after it was changed. So what was asked is remembered until
it is seen, or until it can no more be expected; it is kept by the worker, for all drivers of one BMC.
"""

from __future__ import annotations

import time

from mulligan.activities.values import PowerState

PATIENCE_SECONDS = 45.0
"""How long an order may yet show, whether its answer came or not."""
_UNCERTAIN = frozenset({500, 502, 504})


def refuses(status: int | None) -> bool:
    """Whether this HTTP status says that nothing was done. A server that failed, or a gateway that gave up waiting for
    what acts, does not."""
    return status not in _UNCERTAIN


class Orders:
    """Of one BMC, by system."""

    def __init__(self) -> None:
        self._given: dict[str, tuple[PowerState, float]] = {}

    def give(self, system: str, wanted: PowerState) -> None:
        """The order is about to be sent."""
        self._given[system] = wanted, time.monotonic()

    def end(self, system: str) -> None:
        """What was ordered was seen, or was refused."""
        self._given.pop(system, None)

    def awaited(self, system: str) -> PowerState | None:
        """What was ordered and may yet show; None when nothing was, or too long ago."""
        wanted, at = self._given.get(system, (None, 0.0))
        return wanted if wanted is not None and time.monotonic() - at < PATIENCE_SECONDS else None
