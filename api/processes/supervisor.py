"""Runs a list of children in order, keeps them running, and ends them in reverse."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from mulligan.api.processes.child import Child, ChildSpec

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Supervisor:
    """One process tree. `on_change` is told whenever a child starts, ends or becomes healthy."""

    def __init__(
        self,
        specs: Sequence[ChildSpec],
        log_dir: Path,
        *,
        say: Callable[[str], None],
        on_change: Callable[[Supervisor], None] = lambda _: None,
    ) -> None:
        self.children = [Child(spec, log_dir, say, lambda: on_change(self)) for spec in specs]
        self._say = say
        self._keepers: list[asyncio.Task[None]] = []

    @property
    def healthy(self) -> bool:
        """Whether every child is."""
        return all(child.healthy.is_set() for child in self.children)

    async def run(self, when_healthy: Callable[[], Awaitable[None]]) -> None:
        """Start the children one after another, call `when_healthy` once, then run until a signal asks to stop.

        A first SIGTERM, SIGINT or SIGHUP stops everything in peace, a second one at once. Raises what kept a child
        from starting; whatever happens, no child is left.
        """
        asked, hurry = asyncio.Event(), asyncio.Event()

        def on_signal() -> None:
            for child in self.children:
                child.let_go()
            (hurry if asked.is_set() else asked).set()

        loop = asyncio.get_running_loop()
        for sign in _SIGNALS:
            loop.add_signal_handler(sign, on_signal)
        work = asyncio.create_task(self._work(when_healthy))
        stop = asyncio.create_task(asked.wait())
        try:
            await asyncio.wait({work, stop}, return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                work.result()
        finally:
            stop.cancel()
            asked.set()
            await self._stop(work, hurry)
            for sign in _SIGNALS:
                loop.remove_signal_handler(sign)

    async def _work(self, when_healthy: Callable[[], Awaitable[None]]) -> None:
        """Start everything and run until a child cannot be kept."""
        try:
            for child in self.children:
                keeper = asyncio.create_task(child.keep())
                self._keepers.append(keeper)
                await _first(keeper, asyncio.create_task(child.wait_healthy()))
            await when_healthy()
            await asyncio.gather(*self._keepers)
        finally:
            for keeper in self._keepers:
                keeper.cancel()

    async def _stop(self, work: asyncio.Task[None], hurry: asyncio.Event) -> None:
        for child in self.children:
            child.let_go()
        work.cancel()
        await asyncio.gather(work, *self._keepers, return_exceptions=True)
        for child in reversed(self.children):
            await child.stop(at_once=hurry)


async def _first(keeper: asyncio.Task[None], waiter: asyncio.Task[None]) -> None:
    """Wait for the waiter, or for the keeper's failure if that comes first."""
    try:
        await asyncio.wait({keeper, waiter}, return_when=asyncio.FIRST_COMPLETED)
        for task in (waiter, keeper):
            if task.done():
                task.result()
    finally:
        waiter.cancel()
