"""Watchers of runs through the gRPC API, as many as it takes, which note when each event came."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import grpc

from mulligan.v1 import provisioning_pb2
from mulligan.v1.provisioning_pb2_grpc import ProvisioningServiceStub
from mulligan.workflows.runs import provision_id
from tests.bench.embedded import PROJECT

if TYPE_CHECKING:
    from mulligan.v1.provisioning_pb2_grpc import ProvisioningServiceAsyncStub

_STREAMS_PER_CHANNEL = 50
_WATCH_SECONDS = 300.0
_AGAIN_SECONDS = 0.05
_OPTIONS = [
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 500),
]


class Watcher:
    """One stream of a run, to its end; begun again at its cursor when the server goes away."""

    def __init__(self, api: ProvisioningServiceAsyncStub, name: str) -> None:
        self._api, self._workflow_id = api, provision_id(PROJECT, name)
        self.joined = asyncio.Event()
        self.seen: list[tuple[float, Any]] = []
        self.joins: list[float] = []
        """When each stream gave its first message, in seconds since 1970."""

    async def watch(self) -> None:
        """Note every event with the time at which it came."""
        while True:
            try:
                await self._stream()
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.UNAVAILABLE or not self.joins:
                    raise
                await asyncio.sleep(_AGAIN_SECONDS)
            else:
                return

    async def _stream(self) -> None:
        cursor, fresh = self.seen[-1][1].cursor if self.seen else "", True
        request = provisioning_pb2.WatchRunRequest(workflow_id=self._workflow_id, cursor=cursor)
        async for response in self._api.WatchRun(request, timeout=_WATCH_SECONDS):
            now = time.time()
            if fresh:
                self.joins.append(now)
                self.joined.set()
                fresh = False
            if response.update.HasField("event"):
                self.seen.append((now, response.update.event))

    @property
    def times(self) -> list[tuple[float, float]]:
        """(when it came, when it happened) of each event, in seconds since 1970."""
        return [(came, event.at.ToNanoseconds() / 1e9) for came, event in self.seen]

    @property
    def cursors(self) -> list[str]:
        """The cursors of the events that it saw, in the order in which it did."""
        return [event.cursor for _, event in self.seen]


@asynccontextmanager
async def watchers_of(address: str, names: Sequence[str]) -> AsyncIterator[list[Watcher]]:
    """A watcher for each name, on as many connections as it takes."""
    channels = [
        grpc.aio.insecure_channel(address, options=_OPTIONS) for _ in range(0, len(names), _STREAMS_PER_CHANNEL)
    ]
    try:
        stubs = [ProvisioningServiceStub(channel) for channel in channels]
        yield [Watcher(stubs[number // _STREAMS_PER_CHANNEL], name) for number, name in enumerate(names)]
    finally:
        for channel in channels:
            await channel.close()
