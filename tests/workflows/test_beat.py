"""Heartbeats: none of what ends at once, at once of what moves bytes, and regularly of what lasts."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

from temporalio.testing import ActivityEnvironment

from mulligan.activities.beat import FIRST_SECONDS, Beat, beating


async def heartbeats(doing: Callable[[Beat, asyncio.Event], Awaitable[None]]) -> list[tuple[float, Any]]:
    """(seconds after the beginning, what was said) of each heartbeat; the event is set by each."""
    environment, said, told, began = ActivityEnvironment(), list[tuple[float, Any]](), asyncio.Event(), time.monotonic()

    def note(*details: Any) -> None:
        said.append((time.monotonic() - began, details[0]))
        told.set()

    async def run() -> None:
        async with beating("beginning") as beat:
            await doing(beat, told)

    environment.on_heartbeat = note
    await environment.run(run)
    return said


async def test_what_ends_within_a_moment_costs_no_call() -> None:
    """Not even when it says something."""

    async def quick(beat: Beat, _told: asyncio.Event) -> None:
        beat("looking")
        await asyncio.sleep(0)

    assert await heartbeats(quick) == []


async def test_what_moves_bytes_says_so_at_once_and_then_from_time_to_time() -> None:
    """However often it speaks; the newest is not lost."""

    async def moving(beat: Beat, told: asyncio.Event) -> None:
        for done in range(1, 1001):
            beat("download", done, 1000)
        await told.wait()
        told.clear()
        await told.wait()

    said = await heartbeats(moving)
    assert len(said) == 2
    assert {**said[1][1], "at": 0} == {"message": "download", "done": 1000, "total": 1000, "at": 0}


async def test_what_lasts_is_heard_of_again_and_again() -> None:
    """The first time after a second; a change as soon as it may be, silence as the same again."""

    async def lasting(beat: Beat, told: asyncio.Event) -> None:
        await told.wait()
        told.clear()
        await asyncio.to_thread(beat, "awaiting an address")
        await told.wait()
        told.clear()
        await told.wait()

    said = await heartbeats(lasting)
    assert [words["message"] for _, words in said] == ["beginning", "awaiting an address", "awaiting an address"]
    assert said[0][0] >= FIRST_SECONDS
    at = [words["at"] for _, words in said]
    assert at[0] < at[1] == at[2]  # nothing was observed between the last two
