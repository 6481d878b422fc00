"""Heartbeats: how an activity in progress says what it does, and how a cancel reaches it.

The last heartbeat is one JSON object, `{"message", "done", "total", "at"}`: what is being done or awaited, how much of
it is done, how much there is (bytes; 0 where not known), and when that was said (seconds since 1970). That the same is
sent again says only that the worker lives.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from temporalio import activity

FIRST_SECONDS = 1.0
"""Most activities take milliseconds, and end before anybody could read what they say: a heartbeat would only cost
Temporal a call. Those that move bytes speak at once."""
EVERY_SECONDS = 2.0
"""Often enough that a cancel is delivered quickly and that a silent wait is not taken for death."""
_APART_SECONDS = 1.0
"""Temporal is told no more often than this; what is said in between is not even encoded."""


class Beat:
    """What the activity is doing. A `Progress` for the rooms below; safe to call from any thread."""

    def __init__(self, message: str) -> None:
        self._loop = asyncio.get_running_loop()
        self._said: dict[str, str | int | float] = {"message": message, "done": 0, "total": 0, "at": time.time()}
        self._due = time.monotonic() + FIRST_SECONDS
        self._first, self._changed = True, False

    def __call__(self, message: str, done: int = 0, total: int = 0) -> None:
        """Say what is being done or awaited."""
        self._said, self._changed = {"message": message, "done": done, "total": total, "at": time.time()}, True
        if (total > 0 and self._first) or time.monotonic() >= self._due:
            # Asked for now: what comes at once after it need not ask again.
            self._first, self._due = False, time.monotonic() + _APART_SECONDS
            self._loop.call_soon_threadsafe(self.send)

    def send(self) -> None:
        """Send the newest state to Temporal."""
        self._first, self._changed = False, False
        self._due = time.monotonic() + _APART_SECONDS
        activity.heartbeat(self._said)

    async def tick(self) -> None:
        """Send what was said, as soon as it may be; the same again when nothing new was."""
        await asyncio.sleep(FIRST_SECONDS)
        while True:
            self.send()
            await asyncio.sleep(_APART_SECONDS)
            if not self._changed:
                await asyncio.sleep(EVERY_SECONDS - _APART_SECONDS)


@asynccontextmanager
async def beating(message: str) -> AsyncIterator[Beat]:
    """Heartbeat for as long as the block runs."""
    beat = Beat(message)
    ticker = asyncio.create_task(beat.tick())
    try:
        yield beat
    finally:
        ticker.cancel()
