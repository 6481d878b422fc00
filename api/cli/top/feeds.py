"""What keeps the model up to date: lists every second or two, and a stream for each run that is looked at."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

import grpc

from mulligan.api.cli.errors import of_rpc, status_of
from mulligan.api.cli.top.api import Api
from mulligan.api.cli.top.model import Model
from mulligan.api.cli.top.row import Key

RUNS_SECONDS = 1.5
PROVIDERS_SECONDS = 3.0
ENDED_SECONDS = 5.0
LONGEST_PAUSE = 5.0
"""Seconds between two tries of a stream that breaks off."""

AWAY = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED})

READ_AT_ONCE = 5
"""Runs without a stream whose story is read in one round."""


class Feeds:
    """Runs until it is cancelled. An API that goes away is asked again and again; the model says so meanwhile."""

    def __init__(self, api: Api, model: Model) -> None:
        self._api = api
        self._model = model
        self._streams: dict[Key, asyncio.Task[None]] = {}
        self._hurries: list[asyncio.Event] = []

    def hurry(self) -> None:
        """Have everything read at once."""
        for hurried in self._hurries:
            hurried.set()

    async def run(self) -> None:
        """Keep the model up to date."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._every(RUNS_SECONDS, "runs", self._read_runs))
                group.create_task(self._every(PROVIDERS_SECONDS, "providers", self._read_providers))
                group.create_task(self._every(ENDED_SECONDS, "ended runs", self._read_ended))
        finally:
            await self._stop(list(self._streams))

    async def _every(self, pause: float, what: str, read: Callable[[], Awaitable[None]]) -> None:
        hurried = asyncio.Event()
        self._hurries.append(hurried)
        while True:
            try:
                await read()
                self._model.answered(what)
            except grpc.RpcError as error:
                await self._lost(what, error)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(hurried.wait(), pause)
            hurried.clear()

    async def _lost(self, what: str, error: grpc.RpcError) -> None:
        self._model.lost(what, of_rpc(error, api=self._api.session.api).message)
        if status_of(error) in AWAY:
            await self._stop(list(self._streams))  # they may hang on a connection of which nobody heard again

    async def _read_runs(self) -> None:
        self._model.listed_open(await self._api.open_runs())
        self._model.answered("runs")  # before the rest, which may be slow
        wanted = self._model.to_stream()
        await self._stop([key for key in self._streams if key not in set(wanted)])
        for key in wanted:
            if key not in self._streams:
                self._streams[key] = asyncio.create_task(self._stream(key))
        for key in self._model.to_read(self._streams, READ_AT_ONCE):
            await self._read_story(key)

    async def _read_providers(self) -> None:
        self._model.listed_providers(await self._api.providers())

    async def _read_ended(self) -> None:
        if self._model.shows_ended:
            self._model.listed_ended(await self._api.newest_runs())

    async def _read_story(self, key: Key) -> None:
        try:
            self._model.story(key, await self._api.story(key))
        except grpc.RpcError as error:
            if status_of(error) is not grpc.StatusCode.NOT_FOUND:
                raise
            self._model.forget(key)

    async def _stream(self, key: Key) -> None:
        """One run's stream, opened again from its cursor when it breaks off."""
        pause = 0.2
        while (row := self._model.row(key)) is not None and not row.is_over:
            try:
                async with contextlib.aclosing(self._api.watch(key, row.view.cursor)) as updates:
                    async for update in updates:
                        if update.HasField("run") and update.run.run_id != key.run_id:
                            return  # it was reset, and goes on in a row of its own
                        self._model.feed(key, update)
                        pause = 0.2
            except grpc.RpcError as error:
                if status_of(error) is grpc.StatusCode.NOT_FOUND:
                    self._model.forget(key)
            await asyncio.sleep(pause)
            pause = min(LONGEST_PAUSE, pause * 2)

    async def _stop(self, keys: list[Key]) -> None:
        stopped = [self._streams.pop(key) for key in keys]
        for task in stopped:
            task.cancel()
        await asyncio.gather(*stopped, return_exceptions=True)
