"""The API as this view calls it: without waiting in line, so that the screen never stands still."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from types import TracebackType
from typing import Self

import grpc.aio

from mulligan.api.cli.client import Session, channel_options
from mulligan.api.cli.top.row import Key
from mulligan.v1 import inventory_pb2, inventory_pb2_grpc, provisioning_pb2, provisioning_pb2_grpc, run_pb2

MOST_RUNS = 1000
"""Runs in flight that are listed; the newest so many."""

MOST_ENDED = 200
"""Runs that are looked through for those that have ended."""

LIST_SECONDS = 10
"""How long a list may take before the API counts as away."""


class Api:
    """The session's API over an asynchronous channel. Use it as a context, inside the event loop."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self._channel = grpc.aio.insecure_channel(session.api, options=channel_options(session.api))
        self.provisioning = provisioning_pb2_grpc.ProvisioningServiceStub(self._channel)
        self.inventory = inventory_pb2_grpc.InventoryServiceStub(self._channel)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._channel.close()

    async def open_runs(self) -> list[run_pb2.Run]:
        """Every run in flight, at most MOST_RUNS."""
        return await self._runs(run_pb2.RUN_OUTCOME_OPEN, MOST_RUNS)

    async def newest_runs(self) -> list[run_pb2.Run]:
        """The newest runs, whether open or over, at most MOST_ENDED."""
        return await self._runs(run_pb2.RUN_OUTCOME_UNSPECIFIED, MOST_ENDED)

    async def _runs(self, outcome: run_pb2.RunOutcome.ValueType, limit: int) -> list[run_pb2.Run]:
        request = provisioning_pb2.ListRunsRequest(outcome=outcome, limit=limit)
        stream = self.provisioning.ListRuns(request, timeout=self.session.deadline(LIST_SECONDS))
        return [response.run async for response in stream]

    async def providers(self) -> list[inventory_pb2.Provider]:
        """Every provider."""
        request = inventory_pb2.ListProvidersRequest()
        stream = self.inventory.ListProviders(request, timeout=self.session.deadline(LIST_SECONDS))
        return [response.provider async for response in stream]

    async def story(self, key: Key) -> provisioning_pb2.GetRunResponse:
        """A run and its events so far."""
        request = provisioning_pb2.GetRunRequest(workflow_id=key.workflow_id, run_id=key.run_id)
        return await self.provisioning.GetRun(request, timeout=self.session.deadline(LIST_SECONDS))

    async def watch(self, key: Key, cursor: str) -> AsyncGenerator[run_pb2.RunUpdate, None]:
        """A run's updates after the cursor, to its end."""
        request = provisioning_pb2.WatchRunRequest(workflow_id=key.workflow_id, run_id=key.run_id, cursor=cursor)
        call = self.provisioning.WatchRun(request)
        try:
            async for response in call:
                yield response.update
        finally:
            call.cancel()  # also when nobody wants what it tells next
