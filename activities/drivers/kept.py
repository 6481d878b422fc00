"""What the drivers of one worker share between openings, e.g. a BMC's session: made once per key, closed at the end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable
from typing import Protocol, TypeVar

from mulligan.activities.drivers.logins import LoginGates


class Closable(Protocol):
    """Something that holds on to a thing outside of this process."""

    async def close(self) -> None:
        """Give it back; safe to call twice. Never raises: it is the end of a worker."""


Thing = TypeVar("Thing", bound=Closable)


class Kept:
    """Things by key, for one event loop. A key names everything that makes two things differ."""

    def __init__(self) -> None:
        self._things: dict[Hashable, Closable] = {}
        self.gates = LoginGates()
        """When BMCs may be asked for sessions: by BMC, however many things speak with it."""

    def get(self, key: Hashable, make: Callable[[], Thing]) -> Thing:
        """The thing of that key, made now if there is none. The same key always stands for the same type."""
        if key not in self._things:
            self._things[key] = make()
        return self._things[key]  # type: ignore[return-value]  # a key is used by one caller, with one type

    async def close(self) -> None:
        """Close all of them, at once; safe to call twice."""
        things, self._things = tuple(self._things.values()), {}
        ends = (thing.close() for thing in things)
        await asyncio.gather(*ends, return_exceptions=True)  # whatever one raises all the same, the others are ended
