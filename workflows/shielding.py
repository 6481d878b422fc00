"""Cancellation inside a run: found where an activity swallowed it, kept out where something must come to its end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from temporalio import workflow

T = TypeVar("T")


def raise_if_cancelled() -> None:
    """Look for a cancel that an activity swallowed by finishing. An empty reason counts; None means never cancelled."""
    if workflow.cancellation_reason() is not None:
        raise asyncio.CancelledError("cancelled between steps")


async def shielded(body: Coroutine[Any, Any, T]) -> T:
    """Run to the end whatever is cancelled meanwhile."""
    task = asyncio.create_task(body)
    await shielded_until(task.done)
    return task.result()


async def shielded_until(done: Callable[[], bool]) -> None:
    """Wait for a condition; a cancel meanwhile is left to be found by `raise_if_cancelled`."""
    while not done():
        try:
            await workflow.wait_condition(done)
        except asyncio.CancelledError:
            continue
