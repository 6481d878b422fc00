"""Asking for machines through the API: one run per machine, joined by whoever asks for the same."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import grpc
import pytest

from mulligan.activities.inventory import RunRecord
from mulligan.v1 import machine_pb2, provisioning_pb2, run_pb2
from tests.api.serving import Api, events, everything, first, info, refusal, spec
from tests.workflows.stack import Stack


async def test_a_request_is_streamed_from_its_run_to_its_machine(api: Api, stack: Stack) -> None:
    """The first message names the run, then come events, then the run's outcome, then the machine."""
    project, _ = await stack.hosts()
    responses = await api.made(project)
    run, last_run, machine = responses[0].update.run, responses[-2].update.run, responses[-1].update.machine
    assert run.workflow_id == f"provision:{project}:m"
    assert run.run_id
    assert run.outcome == run_pb2.RUN_OUTCOME_OPEN
    assert not responses[0].joined
    assert last_run.outcome == run_pb2.RUN_OUTCOME_READY
    assert last_run.HasField("ended_at")
    assert machine.state == machine_pb2.MACHINE_STATE_READY
    assert machine.id == run.machine_id
    assert machine.spec.requires == [f"fleet.{project}"]
    told = events(responses)
    assert told[0].kind == run_pb2.RUN_EVENT_KIND_RUN_STARTED
    assert told[-1].kind == run_pb2.RUN_EVENT_KIND_RUN_FINISHED
    assert [event.cursor.rpartition(".")[0] for event in told] == [run.run_id] * len(told)


async def test_detaching_ends_the_stream_after_the_run_was_named(api: Api, stack: Stack) -> None:
    """The run goes on and can be watched by its id."""
    project, _ = await stack.hosts()
    (only,) = await everything(api.provision(spec(project), detach=True))
    watched = await everything(api.watch(only.update.run.workflow_id))
    assert watched[-1].update.machine.state == machine_pb2.MACHINE_STATE_READY


async def test_the_same_request_for_a_machine_that_is_there_gives_that_machine(api: Api, stack: Stack) -> None:
    """Nothing is started; the finished run and the machine are sent."""
    project, _ = await stack.hosts()
    made = await api.made(project, user_data="#cloud-config\n{}")
    again = await api.made(project, user_data="#cloud-config\n{}")
    assert again[0].joined
    assert again[0].update.run == made[-2].update.run
    assert again[1].update.machine == made[-1].update.machine
    assert len(again) == 2


async def test_a_more_urgent_request_for_the_same_machine_joins_its_run(api: Api, stack: Stack) -> None:
    """Urgency says how soon, not which machine; the run that is there keeps its own."""
    project, _ = await stack.hosts()
    made = await api.made(project, priority=4)
    again = await api.made(project, priority=1)
    assert again[0].joined
    assert again[-1].update.machine == made[-1].update.machine
    described = await stack.client.get_workflow_handle(f"provision:{project}:m").describe()
    turn = described.raw_description.workflow_execution_info.priority
    assert (turn.priority_key, turn.fairness_key) == (4, project)


async def test_another_request_for_a_live_name_is_told_what_differs(api: Api, stack: Stack) -> None:
    """ALREADY_EXISTS lists the fields by their names in the message."""
    project, _ = await stack.hosts()
    await api.made(project, user_data="#!/bin/sh\n")
    resources = machine_pb2.Resources(vcpu=2, memory_mib=512, disk_gib=2)
    error = await refusal(api.provision(spec(project, resources=resources, user_data="#!/bin/dash\n")))
    assert error.code() is grpc.StatusCode.ALREADY_EXISTS
    assert info(error).metadata["differing"] == "resources.vcpu,user_data"


async def test_fifty_identical_requests_at_once_give_one_run(api: Api, stack: Stack) -> None:
    """Every caller sees the same run and the same machine; exactly one of them started it."""
    project, _ = await stack.hosts()
    streams = await asyncio.gather(*(api.made(project) for _ in range(50)))
    assert len({responses[0].update.run.run_id for responses in streams}) == 1
    assert len({responses[-1].update.machine.id for responses in streams}) == 1
    assert sum(not responses[0].joined for responses in streams) == 1
    assert len(stack.inventory.claims(project=project)) == 1


async def test_another_request_while_the_run_is_open_is_told_what_differs(api: Api, stack: Stack) -> None:
    """The run's own request is compared, from its memo."""
    project, _ = await stack.hosts(personality="never-boots")
    holding = api.provision(spec(project, on_failure=machine_pb2.ON_FAILURE_HOLD))
    run = (await first(holding)).update.run
    error = await refusal(api.provision(spec(project, hostname="other")))
    assert error.code() is grpc.StatusCode.ALREADY_EXISTS
    assert info(error).metadata["differing"] == "hostname,on_failure"
    assert info(error).metadata["remedy"] == f"mulligan run watch {run.workflow_id}"
    holding.cancel()
    await api.provisioning.CancelRun(provisioning_pb2.CancelRunRequest(workflow_id=run.workflow_id, reason="enough"))
    ended = (await everything(api.watch(run.workflow_id)))[-2].update.run
    assert ended.outcome == run_pb2.RUN_OUTCOME_CANCELLED


async def test_a_run_that_failed_is_started_afresh_by_the_same_request(api: Api, stack: Stack) -> None:
    """A failure ends the stream normally, with its outcome and reason; the name is free again."""
    project, _ = await stack.hosts()
    huge = machine_pb2.Resources(vcpu=100_000, memory_mib=512, disk_gib=2)
    failed = await api.made(project, resources=huge)
    again = await api.made(project, resources=huge)
    assert failed[-2].update.run.outcome == run_pb2.RUN_OUTCOME_FAILED
    assert "100000 vcpu" in failed[-2].update.run.reason
    assert events(failed)[-1].reason == "NEVER_FITS"
    assert again[0].update.run.run_id != failed[0].update.run.run_id
    assert not again[0].joined


async def test_releasing_gives_the_machine_back_and_frees_its_name(api: Api, stack: Stack) -> None:
    """Release streams its own run; released again, it says so; the name can be had again."""
    project, _ = await stack.hosts()
    made = await api.made(project)
    released = await everything(api.release(project))
    assert released[0].update.run.workflow_id == f"release:{project}:m"
    assert released[-2].update.run.outcome == run_pb2.RUN_OUTCOME_RELEASED
    assert released[-1].update.machine.state == machine_pb2.MACHINE_STATE_RELEASED
    again = await everything(api.release(project))
    assert again[0].joined
    assert again[0].update.run.run_id == released[0].update.run.run_id
    assert again[-1].update.machine.id == made[-1].update.machine.id
    anew = await api.made(project)
    assert anew[-1].update.machine.id != made[-1].update.machine.id
    assert not stack.inventory.claims(project=project)[1:]


async def test_a_machine_that_is_gone_is_not_handed_over_by_the_run_that_is_just_ending(
    api: Api, stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was released while its run still kept its story: whoever asks again is told to wait, then gets a new one."""
    keep_run, reached, go = stack.inventory.keep_run, threading.Event(), threading.Event()

    def slowly(record: RunRecord, *more: Any) -> None:
        if record.kind == "provision" and not reached.is_set():
            reached.set()
            go.wait(30)
        keep_run(record, *more)

    monkeypatch.setattr(stack.inventory, "keep_run", slowly)
    project, _ = await stack.hosts()
    run = (await first(api.provision(spec(project), detach=True))).update.run
    try:
        assert await asyncio.to_thread(reached.wait, 30)
        released = (await everything(api.release(project)))[-1].update.machine
        assert (released.id, released.state) == (run.machine_id, machine_pb2.MACHINE_STATE_RELEASED)
        for asked in (api.provision(spec(project)), api.provision(spec(project, name="m", verify=1))):
            error = await refusal(asked)
            assert (error.code(), info(error).reason) == (grpc.StatusCode.UNAVAILABLE, "BUSY")
            assert info(error).metadata["workflow_id"] == run.workflow_id
    finally:
        go.set()
    await everything(api.watch(run.workflow_id))
    again = (await api.made(project))[-1].update.machine
    assert (again.id != run.machine_id, again.state) == (True, machine_pb2.MACHINE_STATE_READY)


async def test_releasing_a_machine_that_is_held_ends_the_run_that_holds_it(api: Api, stack: Stack) -> None:
    """The provision run is cancelled, and its undo is streamed."""
    project, _ = await stack.hosts(personality="never-boots")
    deadlines = machine_pb2.Deadlines(verify_seconds=3)
    held = api.provision(spec(project, on_failure=machine_pb2.ON_FAILURE_HOLD, deadlines=deadlines, mulligans=0))
    async for response in held:
        if response.update.event.kind == run_pb2.RUN_EVENT_KIND_HELD:
            break
    held.cancel()
    released = await everything(api.release(project))
    assert released[0].update.run.workflow_id == f"provision:{project}:m"
    assert released[-2].update.run.outcome == run_pb2.RUN_OUTCOME_CANCELLED
    assert stack.inventory.claims(project=project) == []


async def test_what_a_terminated_run_left_is_told_and_can_be_released(api: Api, stack: Stack) -> None:
    """Nothing is started beside it; releasing takes it down at once."""
    project, _ = await stack.hosts(personality="never-boots")
    deadlines = machine_pb2.Deadlines(verify_seconds=2)
    stream = api.provision(spec(project, on_failure=machine_pb2.ON_FAILURE_HOLD, deadlines=deadlines, mulligans=0))
    async for response in stream:
        if response.update.event.kind == run_pb2.RUN_EVENT_KIND_HELD:
            await stack.client.get_workflow_handle(f"provision:{project}:m").terminate("by hand")
    assert response.update.machine.state == machine_pb2.MACHINE_STATE_HELD
    run = (await api.provisioning.GetRun(provisioning_pb2.GetRunRequest(workflow_id=f"provision:{project}:m"))).run
    assert run.outcome == run_pb2.RUN_OUTCOME_TERMINATED
    error = await refusal(api.provision(spec(project)))
    assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert info(error).metadata["remedy"] == f"mulligan machine release m --project {project}"
    released = await everything(api.release(project))
    assert released[-2].update.run.outcome == run_pb2.RUN_OUTCOME_RELEASED
    assert stack.inventory.claims(project=project) == []


async def test_a_machine_that_is_being_made_cannot_be_released(api: Api, stack: Stack) -> None:
    """FAILED_PRECONDITION says how to cancel the run instead."""
    project, _ = await stack.hosts(personality="never-boots")
    making = api.provision(spec(project))
    async for response in making:
        if response.update.event.action == "boot":
            break
    error = await refusal(api.release(project))
    assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert f"mulligan run cancel provision:{project}:m" in error.details()
    assert info(error).metadata["remedy"] == f"mulligan run cancel provision:{project}:m"
    making.cancel()
    await api.provisioning.CancelRun(provisioning_pb2.CancelRunRequest(workflow_id=f"provision:{project}:m"))
    await everything(api.watch(f"provision:{project}:m"))


async def test_unknown_names_are_told_with_the_nearest(api: Api, stack: Stack) -> None:
    """Image, provider, partition and machine are NOT_FOUND; a capability is a bad field."""
    project, (host,) = await stack.hosts()
    for values, nearest in (
        ({"image": "demmo"}, "demo"),
        ({"partition": "defaul"}, "default"),
        ({"provider": f"{host.name}x"}, host.name),
    ):
        error = await refusal(api.provision(spec(project, **values)))
        assert error.code() is grpc.StatusCode.NOT_FOUND
        assert nearest in info(error).metadata["nearest"].split(",")
        assert nearest in error.details()
    error = await refusal(api.provision(spec(project, requires=["firmware.uefii"])))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert (await refusal(api.release(project, "nobody"))).code() is grpc.StatusCode.NOT_FOUND
