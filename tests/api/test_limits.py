"""What Temporal allows one run: so many updates at once, and so many in all. Both are small here."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from temporalio.client import Client, WorkflowHandle
from temporalio.service import RetryConfig, RPCError, RPCStatusCode

from mulligan.activities.bootserver.tokens import Permit
from mulligan.activities.call_home import RunListener
from mulligan.activities.errors import Busy, Conflict, Unreachable
from mulligan.activities.levers import LeverIn, LeverKind
from mulligan.activities.values import CallHome, Outcome
from mulligan.api.levers import Levers
from mulligan.api.runs import Runs
from tests.services.temporal import TemporalServer
from tests.workflows.stack import Stack, running_stack, until
from tests.workflows.steer import HELD, last_of

IN_ALL = 3


@pytest.fixture(scope="module")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    """A Temporal that takes one update of a run at a time, and three in all."""
    directory = tmp_path_factory.mktemp("limits")
    with TemporalServer(directory / "temporal", maxInFlightUpdates=1, maxTotalUpdates=IN_ALL) as temporal:
        async with running_stack(temporal.address, directory) as running:
            yield running


async def waiting(stack: Stack) -> tuple[WorkflowHandle[Any, Any], Permit]:
    """A run that waits for its guest's call home, and what that guest may call with."""
    project, _ = await stack.hosts(2, personality="no-call-home")
    handle = await stack.start(stack.request(project, deadlines=HELD))
    await until(lambda: stack.has_finished(handle, "observe"))
    machine, ends = stack.inventory.machine(project, "m"), datetime.now(UTC) + timedelta(minutes=5)
    return handle, Permit(handle.id, handle.first_execution_run_id or "", machine.id, "1", ends)


def call() -> CallHome:
    """The guest is up."""
    return CallHome(datetime.now(UTC), "m", status="done", addresses=("127.0.0.1",), peer="127.0.0.1")


async def test_a_run_whose_code_fails_is_not_told_as_one_that_took_too_much(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It goes on once its code is mended: the guest is asked to call again, and the operator told what to look at."""
    handle, permit = await waiting(stack)
    why = "Unable to perform workflow execution update due to Workflow Task in failed state."

    async def fails(*_: Any, **__: Any) -> None:
        raise RPCError(why, RPCStatusCode.FAILED_PRECONDITION, b"")

    monkeypatch.setattr(WorkflowHandle, "execute_update", fails)
    with pytest.raises(Unreachable, match="does not answer now"):
        await RunListener(stack.client).on_call_home(permit, call())
    with pytest.raises(Unreachable, match="its workflow's code fails"):
        await Levers(Runs(stack.client, stack.inventory)).pull(
            handle.id, "", LeverKind.EXTEND, LeverIn("a", seconds=60)
        )
    await handle.cancel()
    assert (await last_of(stack, handle)).outcome is Outcome.CANCELLED


async def test_who_asks_while_too_much_is_asked_is_told_to_ask_again(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Temporal is there, and says so: neither the operator nor the guest is told that it is away."""
    soon = RetryConfig(max_retries=1)  # Temporal's client tries again by itself, for a quarter of a minute
    client = await Client.connect(
        stack.client.service_client.config.target_host, data_converter=stack.client.data_converter, retry_config=soon
    )
    levers = Levers(Runs(client, stack.inventory))
    handle, permit = await waiting(stack)
    explain, asked, go = stack.inventory.explain, threading.Event(), threading.Event()

    def slowly(request: Any) -> Any:
        asked.set()
        go.wait(30)
        return explain(request)

    monkeypatch.setattr(stack.inventory, "explain", slowly)
    first = asyncio.create_task(levers.pull(handle.id, "", LeverKind.MULLIGAN, LeverIn("alice")))
    try:
        assert await asyncio.to_thread(asked.wait, 30)
        with pytest.raises(Busy, match="pull it again in a moment"):
            await levers.pull(handle.id, "", LeverKind.EXTEND, LeverIn("bob", seconds=60))
        with pytest.raises(Busy, match="call again"):
            await RunListener(client).on_call_home(permit, call())
    finally:
        go.set()
    assert (await first).said
    await handle.cancel()
    assert (await last_of(stack, handle)).outcome is Outcome.CANCELLED


async def test_a_run_that_took_all_levers_that_temporal_allows_can_still_be_cancelled(stack: Stack) -> None:
    """A cancel is no update; the guest that calls home then is refused with the reason, once and for all."""
    levers = Levers(Runs(stack.client, stack.inventory))
    handle, permit = await waiting(stack)
    for _ in range(IN_ALL):
        await levers.pull(handle.id, "", LeverKind.EXTEND, LeverIn("alice", seconds=1))
    with pytest.raises(Conflict, match="all the levers that Temporal allows one run") as caught:
        await levers.pull(handle.id, "", LeverKind.EXTEND, LeverIn("alice", seconds=1))
    assert caught.value.metadata["remedy"] == f"mulligan run cancel {handle.id}"
    with pytest.raises(Conflict, match="can be told nothing any more"):
        await RunListener(stack.client).on_call_home(permit, call())
    await handle.cancel()
    assert (await last_of(stack, handle)).outcome is Outcome.CANCELLED
