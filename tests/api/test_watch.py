"""Watching runs: cursors that miss and repeat nothing, one long-poll for all, and watchers that do not matter."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from pathlib import Path
from typing import Any

import grpc
import pytest
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.enums.v1 import EventType
from temporalio.api.workflowservice.v1 import ResetWorkflowExecutionRequest
from temporalio.client import (
    DescribeWorkflowInput,
    FetchWorkflowHistoryEventsInput,
    Interceptor,
    OutboundInterceptor,
)

from mulligan.activities.events import EventKind, RunEvent
from mulligan.api.config import Settings
from mulligan.api.convert_runs import Progress, cursor_of
from mulligan.api.errors import Laggard
from mulligan.api.runs import Runs
from mulligan.api.search import register
from mulligan.api.temporal import connect
from mulligan.api.watch import Hub
from mulligan.v1 import machine_pb2, provisioning_pb2, run_pb2
from tests.api.serving import Api, events, everything, first, info, refusal, spec, violations
from tests.services.temporal import TemporalServer, running_temporal
from tests.workflows.stack import IMAGE, Stack, running_stack


async def held(api: Api, stack: Stack) -> run_pb2.Run:
    """A run that failed and is held, so that it is open until someone cancels it."""
    project, _ = await stack.hosts(personality="never-boots")
    deadlines = machine_pb2.Deadlines(verify_seconds=2, undo_seconds=10)
    options = {"on_failure": machine_pb2.ON_FAILURE_HOLD, "mulligans": 0, "deadlines": deadlines}
    stream = api.provision(spec(project, **options))
    run = (await first(stream)).update.run
    async for response in stream:
        if response.update.event.kind == run_pb2.RUN_EVENT_KIND_HELD:
            stream.cancel()
            return run
    raise AssertionError("the run ended before it was held")


async def cancelled(api: Api, run: run_pb2.Run) -> list[Any]:
    """Cancel it and watch it from the beginning to its end."""
    await api.provisioning.CancelRun(provisioning_pb2.CancelRunRequest(workflow_id=run.workflow_id))
    return await everything(api.watch(run.workflow_id))


async def test_a_finished_run_resumes_at_every_cursor_without_gap_or_repeat(api: Api, stack: Stack) -> None:
    """From each event's cursor come exactly the events after it."""
    project, _ = await stack.hosts()
    told = events(await api.made(project))
    for place, event in enumerate(told):
        resumed = await everything(api.watch(f"provision:{project}:m", cursor=event.cursor))
        assert events(resumed) == told[place + 1 :]


async def test_an_open_run_resumes_by_cursor_after_the_server_was_restarted(own_api: Api, stack: Stack) -> None:
    """A watcher that comes back after every restart has each event once, in order."""
    run = await held(own_api, stack)
    seen: list[run_pb2.RunEvent] = []
    count = len((await own_api.provisioning.GetRun(provisioning_pb2.GetRunRequest(workflow_id=run.workflow_id))).events)
    for place in range(1, count + 1):
        stream = own_api.watch(run.workflow_id, run_id=run.run_id, cursor=seen[-1].cursor if seen else "")
        async for response in stream:
            if response.update.HasField("event"):
                seen.append(response.update.event)
            if len(seen) == place:
                break
        await own_api.stop()
        await own_api.start()
    rest = asyncio.create_task(everything(own_api.watch(run.workflow_id, cursor=seen[-1].cursor)))
    whole = events(await cancelled(own_api, run))
    assert seen + events(await rest) == whole
    assert len({event.cursor for event in whole}) == len(whole)


async def test_a_stopping_server_tells_its_watchers_to_come_back(own_api: Api, stack: Stack) -> None:
    """The stream ends UNAVAILABLE and soon, and the run goes on."""
    run = await held(own_api, stack)
    stream = own_api.watch(run.workflow_id)
    await first(stream)
    watching = asyncio.create_task(refusal(stream))
    async with asyncio.timeout(60):
        await own_api.stop_serving()
        error = await watching
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    await own_api.channel.close()
    await own_api.start()
    await cancelled(own_api, run)


async def test_a_run_is_told_the_same_after_temporal_has_forgotten_it(api: Api, stack: Stack, tmp_path: Path) -> None:
    """The kept story has the same events under the same cursors; the same request still finds its machine."""
    project, _ = await stack.hosts()
    made = await api.made(project)
    run = made[0].update.run
    with running_temporal(tmp_path) as address:
        client = await connect(Settings(temporal=address, state_dir=tmp_path))
        await register(client)
        async with Api(stack, client) as later:
            kept = await everything(later.watch(run.workflow_id))
            assert events(kept)[:-1] == events(made)[:-1]
            assert events(kept)[-1].cursor == events(made)[-1].cursor
            assert events(kept)[-1].outcome == events(made)[-1].outcome
            assert kept[-1].update.machine == made[-1].update.machine
            for place, event in enumerate(events(made)):
                resumed = await everything(later.watch(run.workflow_id, cursor=event.cursor))
                assert events(resumed) == events(kept)[place + 1 :]
            again = await later.made(project)
            assert again[0].joined
            assert again[0].update.run.run_id == run.run_id
            listed = await everything(later.provisioning.ListRuns(provisioning_pb2.ListRunsRequest(project=project)))
            assert [response.run.run_id for response in listed] == [run.run_id]
            assert [response.run.provider for response in listed] == [made[-1].update.machine.provider]


async def test_cursors_that_are_none_or_another_runs_are_refused(api: Api, stack: Stack) -> None:
    """INVALID_ARGUMENT names the field; an unknown run is NOT_FOUND with the nearest."""
    (project, _), (other, _) = await stack.hosts(), await stack.hosts()
    made, second = await api.made(project), await api.made(other)
    mine, foreign = events(made)[2].cursor, events(second)[2].cursor
    workflow_id, run_id = f"provision:{project}:m", made[0].update.run.run_id
    for options in (
        {"cursor": "no-cursor"},
        {"cursor": f"{run_id}.x"},
        {"cursor": foreign},
        {"cursor": foreign, "run_id": run_id},
    ):
        error = await refusal(api.watch(workflow_id, **options))
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT, options
        assert "cursor" in violations(error)
    assert events(await everything(api.watch(workflow_id, cursor=mine))) == events(made)[3:]
    unknown = await refusal(api.watch(f"provision:{project}:mm"))
    assert unknown.code() is grpc.StatusCode.NOT_FOUND
    assert workflow_id in info(unknown).metadata["nearest"].split(",")
    assert (await refusal(api.watch(workflow_id, run_id="nonsense"))).code() is grpc.StatusCode.NOT_FOUND
    assert (await refusal(api.watch(""))).code() is grpc.StatusCode.INVALID_ARGUMENT


class Counting(Interceptor):
    """Counts the calls that an API server makes to Temporal."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()

    def intercept_client(self, next: OutboundInterceptor) -> OutboundInterceptor:  # noqa: A002
        """Stand in the way of every call."""
        calls = self.calls

        class Outbound(OutboundInterceptor):
            async def describe_workflow(self, input: DescribeWorkflowInput) -> Any:  # noqa: A002
                calls["describe"] += 1
                return await super().describe_workflow(input)

            def fetch_workflow_history_events(self, input: FetchWorkflowHistoryEventsInput) -> Any:  # noqa: A002
                calls["history"] += 1
                return super().fetch_workflow_history_events(input)

        return Outbound(next)


async def test_a_hundred_watchers_cost_no_more_calls_than_one(api: Api, stack: Stack) -> None:
    """All share one long-poll and one description; all see the same."""
    counting = Counting()
    config = stack.client.config()
    config["interceptors"] = [counting]
    async with Api(stack, type(stack.client)(**config)) as counted:
        run = await held(api, stack)
        streams = [counted.watch(run.workflow_id) for _ in range(100)]
        await asyncio.gather(*(first(stream) for stream in streams))  # all watch before the run ends
        tasks = [asyncio.create_task(everything(stream)) for stream in streams]
        async for response in counted.watch(run.workflow_id):
            if response.update.event.kind == run_pb2.RUN_EVENT_KIND_HELD:
                break
        assert counting.calls["history"] == 1
        assert counting.calls["describe"] <= 2
        whole = await cancelled(api, run)
        for seen in await asyncio.gather(*tasks):
            assert events(seen) == events(whole)
        assert counting.calls["history"] == 1


async def test_a_laggard_is_dropped_with_the_cursor_to_come_back_with(api: Api, stack: Stack) -> None:
    """A watcher that falls behind by more than the bound is refused, and loses nothing by coming back."""
    run = await held(api, stack)
    hub = Hub(Runs(stack.client, stack.inventory), backlog=2)
    slow, fast = hub.watch(run.workflow_id), hub.watch(run.workflow_id)
    seen = [update for _, update in [await anext(slow), await anext(slow)]]
    await cancelled(api, run)
    whole = [update async for _, update in fast if isinstance(update, RunEvent)]
    with pytest.raises(Laggard) as dropped:
        async for _, update in slow:
            seen.append(update)
    mine = [update for update in seen if isinstance(update, RunEvent)]
    assert dropped.value.metadata["cursor"] == cursor_of(run.run_id, mine[-1].id)
    resumed = hub.watch(run.workflow_id, cursor=dropped.value.metadata["cursor"])
    assert mine + [update async for _, update in resumed if isinstance(update, RunEvent)] == whole
    assert hub.watched == 0


async def test_a_watcher_that_vanishes_changes_nothing(api: Api, stack: Stack) -> None:
    """Neither cancelling a call nor its deadline ends the run, and the last watcher to go ends the long-poll."""
    project, _ = await stack.hosts(personality="never-boots")
    request = provisioning_pb2.ProvisionMachineRequest(spec=spec(project, on_failure=machine_pb2.ON_FAILURE_HOLD))
    error = await refusal(api.provisioning.ProvisionMachine(request, timeout=1.0))
    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    hub = Hub(Runs(stack.client, stack.inventory))
    watching = hub.watch(f"provision:{project}:m")
    await anext(watching)
    assert hub.watched == 1
    await watching.aclose()
    assert hub.watched == 0
    run = (await api.provisioning.GetRun(provisioning_pb2.GetRunRequest(workflow_id=f"provision:{project}:m"))).run
    assert run.outcome == run_pb2.RUN_OUTCOME_OPEN
    assert (await cancelled(api, run))[-2].update.run.outcome == run_pb2.RUN_OUTCOME_CANCELLED


async def test_progress_is_sent_only_when_it_changed(api: Api, stack: Stack) -> None:
    """While a machine does not come up, watchers are told what is awaited and what was last seen."""
    project, _ = await stack.hosts(personality="never-boots")
    stream = api.provision(spec(project, mulligans=0, deadlines=machine_pb2.Deadlines(verify_seconds=5)))
    told = [response.update.progress async for response in stream if response.update.HasField("progress")]
    observing = [progress for progress in told if progress.action == "observe"]
    assert observing
    assert observing[-1].message
    assert observing[-1].attempt == 1
    assert all(one != other for one, other in itertools.pairwise(told))


async def test_who_waits_for_a_guest_is_told_what_is_seen_of_its_machine(api: Api, stack: Stack) -> None:
    """In the same line of progress as the wait, whichever way it is asked for."""
    project, _ = await stack.hosts(personality="no-call-home")
    asked = spec(project, verify=machine_pb2.VERIFY_LEVEL_GUEST, deadlines=machine_pb2.Deadlines(verify_seconds=120))
    async for response in api.provision(asked):
        if response.update.HasField("progress") and "its power is on" in response.update.progress.message:
            break
    said = response.update.progress
    assert (said.step, said.action, said.attempt, said.last_failure) == ("verify", "await", 1, "")
    assert said.message == "awaits the guest's call home; its power is on; its console last said 'm login:'"
    assert said.observed_at.ToSeconds() > 0 and said.deadline.ToSeconds() > said.observed_at.ToSeconds()
    about = provisioning_pb2.GetRunRequest(workflow_id=f"provision:{project}:m")
    (shown,) = (await api.provisioning.GetRun(about)).progress
    assert (shown.action, shown.message) == (said.action, said.message)
    run = (await api.provisioning.GetRun(about)).run
    assert (await cancelled(api, run))[-2].update.run.outcome == run_pb2.RUN_OUTCOME_CANCELLED


async def test_a_reset_run_is_followed_into_its_new_execution(api: Api, stack: Stack) -> None:
    """What both executions share is told once."""
    run = await held(api, stack)
    stream = api.watch(run.workflow_id)
    head = await first(stream)
    watching = asyncio.create_task(everything(stream))
    handle = stack.client.get_workflow_handle(run.workflow_id, run_id=run.run_id)
    completed = [
        event.event_id
        async for event in handle.fetch_history_events()
        if event.event_type == EventType.EVENT_TYPE_WORKFLOW_TASK_COMPLETED
    ]
    reset = await stack.client.workflow_service.reset_workflow_execution(
        ResetWorkflowExecutionRequest(
            namespace="default",
            workflow_execution=WorkflowExecution(workflow_id=run.workflow_id, run_id=run.run_id),
            reason="look again",
            workflow_task_finish_event_id=completed[-1],
            request_id=run.run_id,
        )
    )
    again = api.watch(run.workflow_id, run_id=reset.run_id)
    await first(again)
    again.cancel()
    await api.provisioning.CancelRun(provisioning_pb2.CancelRunRequest(workflow_id=run.workflow_id))
    seen = [head, *await watching]
    assert [r.update.run.run_id for r in seen if r.update.HasField("run")] == [run.run_id, reset.run_id, reset.run_id]
    kinds = Counter(event.kind for event in events(seen))
    assert kinds[run_pb2.RUN_EVENT_KIND_RUN_STARTED] == 1
    assert kinds[run_pb2.RUN_EVENT_KIND_RUN_FINISHED] == 1
    assert events(seen)[-1].outcome == run_pb2.RUN_OUTCOME_CANCELLED


async def test_events_come_again_after_temporal_was_killed(tmp_path: Path) -> None:
    """A watcher sees neither the outage nor an event twice."""
    with TemporalServer(tmp_path / "temporal") as temporal:
        async with running_stack(temporal.address, tmp_path) as own, Api(own) as api:
            own.inventory.add_image(IMAGE)
            run = await held(api, own)
            hub = Hub(Runs(await connect(Settings(temporal=temporal.address, state_dir=tmp_path)), own.inventory))
            watching = hub.watch(run.workflow_id)
            seen: list[RunEvent | Progress | Any] = []
            async for _, update in watching:
                seen.append(update)
                if isinstance(update, RunEvent) and update.kind is EventKind.HELD:
                    break
            rest = asyncio.create_task(everything(watching))
            await asyncio.to_thread(temporal.kill)
            await asyncio.to_thread(temporal.start)
            whole = events(await cancelled(api, run))
            mine = [u for u in [*seen, *(update for _, update in await rest)] if isinstance(u, RunEvent)]
            assert [cursor_of(run.run_id, event.id) for event in mine] == [event.cursor for event in whole]
