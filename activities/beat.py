"""Heartbeats: how an activity in progress says what it does, and how a cancel reaches it.

The last heartbeat is one JSON object, `{"message", "done", "total"}`: what is being done or awaited, how much of it is
done, and how much there is (bytes; 0 where not known).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from temporalio import activity

EVERY_SECONDS = 2.0
"""Often enough that a cancel is delivered quickly and that a silent wait is not taken for death."""


class Beat:
    """What the activity is doing. A `Progress` for the rooms below; safe to call from any thread."""

    def __init__(self, message: str) -> None:
        self._loop = asyncio.get_running_loop()
        self._said: dict[str, str | int] = {}
        self(message, 0, 0)

    def __call__(self, message: str, done: int = 0, total: int = 0) -> None:
        """Say what is being done or awaited."""
        self._said = {"message": message, "done": done, "total": total}
        self._loop.call_soon_threadsafe(self.send)

    def send(self) -> None:
        """Send the newest state to Temporal, which is told at most once a second."""
        activity.heartbeat(self._said)


@asynccontextmanager
async def beating(message: str) -> AsyncIterator[Beat]:
    """Heartbeat for as long as the block runs."""
    beat = Beat(message)
    ticker = asyncio.create_task(_tick(beat))
    try:
        yield beat
    finally:
        ticker.cancel()


async def _tick(beat: Beat) -> None:
    while True:
        await asyncio.sleep(EVERY_SECONDS)
        beat.send()
