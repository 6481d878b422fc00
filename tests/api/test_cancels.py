"""Cancelling through the API: everybody who asks is answered at once, and kept in the history."""

from __future__ import annotations

import asyncio

import pytest
from temporalio.client import WorkflowHandle
from temporalio.service import RPCError, RPCStatusCode

from mulligan.activities.levers import NOTE_CANCEL, LeverIn
from mulligan.v1 import provisioning_pb2 as pb
from mulligan.v1 import run_pb2
from mulligan.workflows import runs as workflow_runs
from tests.api.serving import Api, events, everything
from tests.api.test_levers import cancelled, failed_and_held, get, waiting
from tests.workflows.stack import IMAGE, Stack, is_clean, until


async def test_a_cancel_answers_with_what_it_undoes_and_keeps_who_asked(api: Api, stack: Stack) -> None:
    """A second one, also of another operator, changes nothing, and is told apart and kept."""
    project, run_id = await waiting(api, stack, hold="power_off:1:2")
    request = pb.CancelRunRequest(workflow_id=run_id, reason="not needed", actor="carol")
    answer = await api.provisioning.CancelRun(request)
    assert answer.run.cancel_requested
    assert answer.said == "cancel requested"
    assert [undo.action for undo in answer.undo] == ["tear-down", "remove-disks", "release-claim"]
    request.actor = "dave"
    for _ in range(2):
        second = await api.provisioning.CancelRun(request)
        assert second.run.cancel_requested
        assert second.said.startswith("it is being cancelled already, since 20")
        assert second.said.endswith("Z by carol: not needed")

    async def is_undoing() -> bool:
        run = (await get(api, run_id)).run
        return run.undoing and bool(run.provider)

    await until(is_undoing)
    stream = await everything(api.watch(run_id))
    asked = [event for event in events(stream) if event.kind == run_pb2.RUN_EVENT_KIND_CANCEL_REQUESTED]
    again = "cancel requested again: by dave: not needed; it was being cancelled already"
    assert [event.message for event in asked] == [
        "cancel requested: by carol: not needed; what was done will be undone",
        *(again, again),
    ]
    (recorded,) = [each.message for each in events(stream) if (each.action, bool(each.attempts)) == ("ended", True)]
    assert recorded == "recorded: cancelled by carol: not needed"
    assert stream[-2].update.run.outcome == run_pb2.RUN_OUTCOME_CANCELLED
    late = await api.provisioning.CancelRun(request)
    assert not late.undo
    assert late.said == "had ended before: cancelled by carol: not needed"
    assert is_clean(stack, project)


async def test_of_two_cancels_at_once_both_are_kept(api: Api, stack: Stack) -> None:
    """One cancels the run, whichever it is, and the other one is told so; neither needs a worker's answer."""
    project, run_id = await waiting(api, stack, hold="power_off:1:2")
    asked = {f"by {actor}: now" for actor in ("carol", "dave")}
    requests = [pb.CancelRunRequest(workflow_id=run_id, reason="now", actor=actor) for actor in ("carol", "dave")]
    answers = await asyncio.gather(*(api.provisioning.CancelRun(request) for request in requests))
    assert sorted(answer.said.partition(",")[0] for answer in answers) == [
        "cancel requested",
        "it is being cancelled already",
    ]
    stream = await everything(api.watch(run_id))
    told = [event.message for event in events(stream) if event.kind == run_pb2.RUN_EVENT_KIND_CANCEL_REQUESTED]
    assert len(told) == len(asked)
    assert {cause for cause in asked if any(cause in message for message in told)} == asked
    assert is_clean(stack, project)


async def test_a_cancel_whose_note_is_not_taken_is_answered_all_the_same(
    api: Api, stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run is being cancelled: that is what matters; what was not kept is said."""
    project, run_id = await waiting(api, stack, hold="power_off:1:2")
    request = pb.CancelRunRequest(workflow_id=run_id, reason="now", actor="carol")
    await api.provisioning.CancelRun(request)

    async def refuses(*_: object, **__: object) -> None:
        raise RPCError("no more signals", RPCStatusCode.RESOURCE_EXHAUSTED, b"")

    with monkeypatch.context() as patch:
        patch.setattr(WorkflowHandle, "signal", refuses)
        said = (await api.provisioning.CancelRun(request)).said
    assert "being cancelled already" in said
    assert said.endswith("by carol: now; that you asked too could not be kept: no more signals")
    assert (await everything(api.watch(run_id)))[-2].update.run.outcome == run_pb2.RUN_OUTCOME_CANCELLED
    assert is_clean(stack, project)


async def test_the_note_of_a_cancel_alone_cancels_nothing(api: Api, stack: Stack) -> None:
    """A run that is reset is sent it again, without the cancel: its story does not tell of one."""
    project, run_id = await waiting(api, stack)
    handle = stack.client.get_workflow_handle(run_id)
    await handle.signal(NOTE_CANCEL, LeverIn("alice", "no"))
    assert not (await get(api, run_id)).run.cancel_requested
    told = [event.kind for event in (await get(api, run_id)).events]
    assert run_pb2.RUN_EVENT_KIND_CANCEL_REQUESTED not in told
    await cancelled(api, run_id)
    assert is_clean(stack, project)


async def _cancel(api: Api, run_id: str, actor: str) -> str:
    request = pb.CancelRunRequest(workflow_id=run_id, reason="now", actor=actor)
    return (await api.provisioning.CancelRun(request)).said


async def _causes(api: Api, run_id: str) -> list[str]:
    """Who cancelled it, as its story tells them, in order."""
    told = (await get(api, run_id)).events
    asked = [each.message for each in told if each.kind == run_pb2.RUN_EVENT_KIND_CANCEL_REQUESTED]
    return [message.partition("by ")[2].partition(":")[0] for message in asked]


async def test_of_two_cancels_of_a_held_run_both_are_kept(api: Api, stack: Stack) -> None:
    """It is undone once, for whoever was the first."""
    run_id = await failed_and_held(api, stack)
    project = (await get(api, run_id)).run.project
    said = await asyncio.gather(*(_cancel(api, run_id, actor) for actor in ("carol", "dave")))
    assert sorted(each.partition(",")[0] for each in said) == ["cancel requested", "it is being cancelled already"]
    stream = await everything(api.watch(run_id))
    assert stream[-2].update.run.outcome == run_pb2.RUN_OUTCOME_CANCELLED
    assert sorted(await _causes(api, run_id)) == ["carol", "dave"]
    assert is_clean(stack, project)


async def test_cancels_of_a_run_that_no_worker_serves_are_kept(api: Api, stack: Stack) -> None:
    """They are answered at once, and in the history before anybody works on it."""
    project, _ = await stack.hosts()
    workflow_id = workflow_runs.provision_id(project, "m")
    asked = workflow_runs.ProvisionIn("an-id", stack.request(project), IMAGE, "f")
    handle = await stack.client.start_workflow(
        workflow_runs.PROVISION, asked, id=workflow_id, task_queue="nobody-serves-this"
    )
    assert await _cancel(api, workflow_id, "carol") == "cancel requested"
    assert (await _cancel(api, workflow_id, "dave")).endswith("Z by carol: now")
    assert await _causes(api, workflow_id) == ["carol", "dave"]
    await handle.terminate()
