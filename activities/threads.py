"""Blocking calls from asynchronous code, without losing track of the thread when the caller is cancelled."""

from __future__ import annotations

import asyncio
import contextvars
import functools
from collections.abc import Callable
from concurrent.futures import Executor
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


async def run_blocking(function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Run `function` in the default thread pool.

    When the caller is cancelled meanwhile, the cancellation is raised only after the thread has ended, so that no undo
    starts while the work that it undoes still runs.
    """
    return await run_in(None, functools.partial(function, *args, **kwargs))


async def run_in(executor: Executor | None, function: Callable[[], T]) -> T:
    """Like `run_blocking`, in the given executor (None for the default one)."""
    context = contextvars.copy_context()
    future = asyncio.get_running_loop().run_in_executor(executor, lambda: context.run(function))
    cancelled: asyncio.CancelledError | None = None
    while not future.done():
        try:
            await asyncio.shield(future)
        except asyncio.CancelledError as error:
            if future.cancelled():
                raise
            cancelled = error
        except BaseException:  # noqa: BLE001 - the thread's own outcome is looked at below
            break
    if cancelled is not None:
        if not future.cancelled():
            future.exception()  # looked at, so that it is not reported as never retrieved
        raise cancelled
    return future.result()
