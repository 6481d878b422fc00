"""The orders that were given to a BMC, and that it has not shown yet: they are not given again.

An answer may be lost, and a BMC may tell of a change long after it was made. So what was asked is remembered until
it is seen, or until it can no more be expected; it is kept by the worker, for all drivers of one BMC.
"""

from __future__ import annotations

import time
from typing import Generic, TypeVar

from mulligan.activities.values import PowerState

Wanted = TypeVar("Wanted")

PATIENCE_SECONDS = 45.0
"""How long an order may yet show, whether its answer came or not."""
_UNCERTAIN = frozenset({500, 502, 504})


def refuses(status: int | None) -> bool:
    """Whether this HTTP status says that nothing was done. A server that failed, or a gateway that gave up waiting for
    what acts, does not."""
    return status not in _UNCERTAIN


class Awaited(Generic[Wanted]):
    """What was ordered of the parts of one BMC, by part."""

    def __init__(self) -> None:
        self._given: dict[str, tuple[Wanted, float]] = {}

    def give(self, part: str, wanted: Wanted) -> None:
        """The order is about to be sent."""
        self._given[part] = wanted, time.monotonic()

    def end(self, part: str) -> None:
        """What was ordered was seen, or was refused."""
        self._given.pop(part, None)

    def awaited(self, part: str) -> Wanted | None:
        """What was ordered and may yet show; None when nothing was, or too long ago."""
        wanted, at = self._given.get(part, (None, 0.0))
        return wanted if wanted is not None and time.monotonic() - at < PATIENCE_SECONDS else None


class Orders(Awaited[PowerState]):
    """Of power, by system."""
