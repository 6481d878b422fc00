"""Steering runs through the API: each lever is answered by the run, told in its stream, and refused with a reason."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest
from structlog.testing import capture_logs

from mulligan.activities.drivers.simulated import mend
from mulligan.activities.errors import Unreachable
from mulligan.activities.levers import LeverIn, LeverKind
from mulligan.activities.values import MachineState
from mulligan.api.levers import Levers
from mulligan.api.runs import Runs
from mulligan.v1 import inventory_pb2, machine_pb2, run_pb2
from mulligan.v1 import provisioning_pb2 as pb
from mulligan.workflows import runs as workflow_runs
from tests.api.serving import Api, events, everything, first, info, refusal, spec, violations
from tests.workflows.stack import IMAGE, Stack, is_clean, until

GUEST = machine_pb2.VERIFY_LEVEL_GUEST
HOLD = machine_pb2.ON_FAILURE_HOLD
LONG = machine_pb2.Deadlines(claim_seconds=60, boot_seconds=300, verify_seconds=300, undo_seconds=30)


def lever(workflow_id: str, reason: str = "a test", actor: str = "alice") -> pb.LeverRequest:
    """Who pulls which run's lever, and why."""
    return pb.LeverRequest(workflow_id=workflow_id, actor=actor, reason=reason)


async def waiting(api: Api, stack: Stack, count: int = 1, **settings: str) -> tuple[str, str]:
    """(project, run) of a machine whose guest does not call home: it waits in the step verify."""
    project, _ = await stack.hosts(count, **({"personality": "no-call-home"} | settings))
    run = (await first(api.provision(spec(project, verify=GUEST, deadlines=LONG), detach=True))).update.run
    handle = stack.client.get_workflow_handle(run.workflow_id)
    await until(lambda: stack.has_finished(handle, "observe"))
    return project, run.workflow_id


async def failed_and_held(api: Api, stack: Stack) -> str:
    """The run of a machine that did not boot, and is held; its host was mended since."""
    project, _ = await stack.hosts(fail="define:1:Unsupported")
    asked = spec(project, on_failure=HOLD, mulligans=0, deadlines=LONG)
    run = (await first(api.provision(asked, detach=True))).update.run
    await until(lambda: stack.machine_is(project, "m", MachineState.HELD))
    return run.workflow_id


async def get(api: Api, workflow_id: str) -> pb.GetRunResponse:
    """The run and its story."""
    return await api.provisioning.GetRun(pb.GetRunRequest(workflow_id=workflow_id))


async def cancelled(api: Api, workflow_id: str) -> None:
    """End a run that a test no longer needs."""
    await api.provisioning.CancelRun(pb.CancelRunRequest(workflow_id=workflow_id))
    await everything(api.watch(workflow_id))


async def test_a_run_is_held_shown_and_resumed(api: Api, stack: Stack) -> None:
    """Who asked, and why, is in the stream; while it is held every answer says so, with what to do."""
    project, _ = await stack.hosts(hold="place_base:1:1")
    run_id = (await first(api.provision(spec(project), detach=True))).update.run.workflow_id
    held = await api.provisioning.HoldRun(pb.HoldRunRequest(lever=lever(run_id, "look first"), before_step="boot"))
    assert held.answer.said == "it will be held before boot, by alice"
    assert held.answer.run.workflow_id == run_id
    (ahead,) = (await get(api, run_id)).run.holds_ahead
    assert (ahead.step, ahead.actor, ahead.reason) == ("boot", "alice", "look first")
    await until(lambda: stack.machine_is(project, "m", MachineState.HELD))

    async def is_told() -> bool:
        return (await get(api, run_id)).run.held

    await until(is_told)
    (listed,) = await everything(api.provisioning.ListRuns(pb.ListRunsRequest(project=project)))
    assert listed.run.held
    story = await get(api, run_id)
    told = next(event for event in story.events if event.kind == run_pb2.RUN_EVENT_KIND_HELD)
    assert told.times_held == 1
    assert told.suggestions[0] == f"mulligan run resume {run_id} --held 1"
    assert not story.run.holds_ahead
    assert [undo.action for undo in story.undo] == ["remove-disks", "release-claim"]
    with pytest.raises(grpc.aio.AioRpcError) as stale:
        await api.provisioning.ResumeRun(pb.ResumeRunRequest(lever=lever(run_id, actor="eve"), times_held=2))
    assert "held anew" in str(stale.value.details())
    asked = pb.ResumeRunRequest(lever=lever(run_id, actor="bob"), times_held=told.times_held)
    assert "boot" in (await api.provisioning.ResumeRun(asked)).answer.said
    stream = await everything(api.watch(run_id))
    assert stream[-2].update.run.outcome == run_pb2.RUN_OUTCOME_READY
    assert not stream[-2].update.run.held
    pulled = [event.lever for event in events(stream) if event.kind == run_pb2.RUN_EVENT_KIND_LEVER_PULLED]
    assert [(each.kind, each.actor, each.reason) for each in pulled] == [
        (run_pb2.LEVER_KIND_HOLD, "alice", "look first"),
        (run_pb2.LEVER_KIND_RESUME, "bob", "a test"),
    ]
    assert run_pb2.RUN_EVENT_KIND_RESUMED in [event.kind for event in events(stream)]


async def test_of_two_operators_who_decide_at_once_one_is_told_what_the_other_did(api: Api, stack: Stack) -> None:
    """One lever works, the other is FAILED_PRECONDITION; the run goes on once."""
    run_id = await failed_and_held(api, stack)
    asked = [pb.ResumeRunRequest(lever=lever(run_id, actor=actor)) for actor in ("alice", "bob")]
    answers = await asyncio.gather(*map(api.provisioning.ResumeRun, asked), return_exceptions=True)
    (error,) = [each for each in answers if isinstance(each, grpc.aio.AioRpcError)]
    assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert info(error).reason == "CONFLICT"
    assert len([each for each in answers if not isinstance(each, Exception)]) == 1
    stream = await everything(api.watch(run_id))
    assert stream[-2].update.run.outcome == run_pb2.RUN_OUTCOME_READY
    assert [event.kind for event in events(stream)].count(run_pb2.RUN_EVENT_KIND_RESUMED) == 1


async def test_the_next_attempt_begins_now(api: Api, stack: Stack) -> None:
    """What waits says what it waits for and what may help; the lever ends the wait."""
    rules = ",".join(f"define:{number}:Unreachable" for number in (1, 2, 3))
    project, _ = await stack.hosts(fail=rules)
    run_id = (await first(api.provision(spec(project, deadlines=LONG), detach=True))).update.run.workflow_id
    found: list[run_pb2.RunProgress] = []

    async def backs_off() -> bool:
        found[:] = [each for each in (await get(api, run_id)).progress if each.attempt == 4 and each.last_failure]
        return bool(found)

    await until(backs_off)
    assert found[0].suggestions[0] == f"mulligan run retry-now {run_id}"
    assert found[0].HasField("next_attempt_at")
    answer = (await api.provisioning.RetryRunNow(pb.RetryRunNowRequest(lever=lever(run_id)))).answer
    assert "boot/boot" in answer.said
    assert (await everything(api.watch(run_id)))[-2].update.run.outcome == run_pb2.RUN_OUTCOME_READY


async def test_what_is_awaited_says_what_was_last_observed_and_when(api: Api, stack: Stack) -> None:
    """In the run's story, and on the stream of whoever watches."""
    project, _ = await stack.hosts(personality="boots-then-silent")
    run_id = (await first(api.provision(spec(project, deadlines=LONG), detach=True))).update.run.workflow_id
    seen: list[run_pb2.RunProgress] = []

    async def is_observed() -> bool:
        seen[:] = [each for each in (await get(api, run_id)).progress if each.HasField("observed_at")]
        return bool(seen)

    await until(is_observed)
    assert seen[0].message
    assert seen[0].suggestions[0] == f"mulligan run extend {run_id} --by 10m"
    stream = api.watch(run_id)
    async for response in stream:
        if response.update.progress.HasField("observed_at"):
            break
    stream.cancel()
    assert response.update.progress.step == "verify"
    assert response.update.progress.observed_at.ToNanoseconds() >= seen[0].observed_at.ToNanoseconds()
    await cancelled(api, run_id)


async def _deadline(api: Api, run_id: str) -> int:
    """Until when the step in progress is shown to have time, in seconds since 1970."""
    (progress,) = [each for each in (await get(api, run_id)).progress if each.step == "verify"]
    assert progress.HasField("deadline")
    return progress.deadline.seconds


async def test_a_deadline_is_moved(api: Api, stack: Stack) -> None:
    """The step's, or the run's alone; a number that cannot be meant is a field that is wrong."""
    _, run_id = await waiting(api, stack)
    before = await _deadline(api, run_id)
    request = pb.ExtendRunRequest(lever=lever(run_id), seconds=600)
    said = (await api.provisioning.ExtendRun(request)).answer.said
    assert said.startswith("verify has until")

    async def is_shown() -> bool:
        return await _deadline(api, run_id) > before

    await until(is_shown)
    assert abs((await _deadline(api, run_id)) - before - 600) < 60
    request.whole_run = True
    assert (await api.provisioning.ExtendRun(request)).answer.said.startswith("the run has until")
    error = await refusal(api.provisioning.ExtendRun(pb.ExtendRunRequest(lever=lever(run_id), seconds=604_801)))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert violations(error) == {"seconds": "must be 1 to 604800 seconds (7 days), not 604801"}
    await cancelled(api, run_id)


async def test_a_mulligan_is_taken_where_there_is_another_provider(api: Api, stack: Stack) -> None:
    """What was made is undone, and the machine comes up elsewhere."""
    project, hosts = await stack.hosts(2)
    for host in hosts:
        await stack.enrol_with(host, hold="define:1:2")
    run_id = (await first(api.provision(spec(project, mulligans=0), detach=True))).update.run.workflow_id
    handle = stack.client.get_workflow_handle(run_id)
    await until(lambda: stack.has_finished(handle, "place-disks"))
    request = pb.TakeMulliganRequest(lever=lever(run_id, "it hums"))
    assert "another provider" in (await api.provisioning.TakeMulligan(request)).answer.said
    stream = await everything(api.watch(run_id))
    assert stream[-2].update.run.outcome == run_pb2.RUN_OUTCOME_READY
    claimed = [each.provider for each in events(stream) if each.action == "claim" and each.provider]
    assert len(set(claimed)) == 2


async def test_a_mulligan_without_another_provider_is_refused(api: Api, stack: Stack) -> None:
    """FAILED_PRECONDITION; the run goes on as before, and its stream tells that it was asked."""
    _, run_id = await waiting(api, stack)
    error = await refusal(api.provisioning.TakeMulligan(pb.TakeMulliganRequest(lever=lever(run_id))))
    assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert "no other provider" in error.details()
    story = await get(api, run_id)
    assert story.run.outcome == run_pb2.RUN_OUTCOME_OPEN
    refused = [event for event in story.events if event.kind == run_pb2.RUN_EVENT_KIND_LEVER_REFUSED]
    assert [event.lever.kind for event in refused] == [run_pb2.LEVER_KIND_MULLIGAN]
    await cancelled(api, run_id)


async def test_a_lever_that_is_refused_at_once_is_logged(api: Api, stack: Stack) -> None:
    """With who, when and why: the run's history has nothing of it, for Temporal keeps no update that was refused."""
    _, run = await waiting(api, stack)
    with capture_logs() as logged:
        error = await refusal(api.provisioning.ResumeRun(pb.ResumeRunRequest(lever=lever(run))))
    (line,) = [each for each in logged if each["event"] == "lever refused"]
    assert (line["lever"], line["workflow_id"], line["actor"]) == ("resume", run, "alice")
    assert line["reason"] == "a test" and line["why"] in (error.details() or "")
    assert not [each for each in (await get(api, run)).events if each.HasField("lever")]
    await cancelled(api, run)


async def test_a_run_for_one_provider_only_is_offered_no_mulligan(api: Api, stack: Stack) -> None:
    """Neither by what is in progress, nor by its events, nor by a refusal, whose remedy is the likeliest lever."""
    rules = ",".join(f"define:{number}:Unreachable" for number in (1, 2, 3, 4))
    project, (host,) = await stack.hosts(fail=rules)
    asked = spec(project, provider=host.name, deadlines=LONG)
    run_id = (await first(api.provision(asked, detach=True))).update.run.workflow_id
    story = await get(api, run_id)

    async def backs_off() -> bool:
        story.CopyFrom(await get(api, run_id))
        return any(each.last_failure for each in story.progress)

    await until(backs_off)
    told = [command for each in (*story.progress, *story.events) for command in each.suggestions]
    assert f"mulligan run retry-now {run_id}" in told
    assert f"mulligan run mulligan {run_id}" not in told
    error = await refusal(api.provisioning.ResumeRun(pb.ResumeRunRequest(lever=lever(run_id))))
    assert info(error).metadata["remedy"] == f"mulligan run extend {run_id} --by 10m"
    assert f"`mulligan run retry-now {run_id}`" in error.details()
    assert "run mulligan" not in error.details()
    await cancelled(api, run_id)


async def test_an_abort_answers_with_what_it_undoes(api: Api, stack: Stack) -> None:
    """In the order in which it is then undone; the run fails, and nothing is left."""
    project, run_id = await waiting(api, stack)
    answer = await api.provisioning.AbortRun(pb.AbortRunRequest(lever=lever(run_id, "wrong image")))
    assert [(undo.action, undo.undoes) for undo in answer.undo] == [
        ("tear-down", "boot"),
        ("remove-disks", "place-disks"),
        ("release-claim", "claim"),
    ]
    stream = await everything(api.watch(run_id))
    last = stream[-2].update.run
    assert last.outcome == run_pb2.RUN_OUTCOME_FAILED
    assert "aborted by alice: wrong image" in last.reason
    undone = [
        each.action
        for each in events(stream)
        if each.step == "undo" and each.kind == run_pb2.RUN_EVENT_KIND_ACTION_FINISHED
    ]
    assert undone == [undo.action for undo in answer.undo]
    assert is_clean(stack, project)
    assert not (await get(api, run_id)).undo


async def test_a_run_that_takes_a_machine_down_has_two_levers(api: Api, stack: Stack) -> None:
    """It cannot be held; an undo that cannot be done is given up, and what is left is quarantined."""
    project, hosts = await stack.hosts()
    await api.made(project)
    await stack.enrol_with(hosts[0], personality="stuck-undo")
    await first(api.release(project, detach=True))
    run_id = f"release:{project}:m"
    handle = stack.client.get_workflow_handle(run_id)
    await until(lambda: stack.is_waiting(handle, "LEFTOVER"))
    error = await refusal(api.provisioning.HoldRun(pb.HoldRunRequest(lever=lever(run_id))))
    assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
    levers = ", ".join(f"`mulligan run {each} {run_id}`" for each in ("retry-now", "abort", "watch"))
    assert f"possible now: {levers}" in error.details()
    assert (await api.provisioning.RetryRunNow(pb.RetryRunNowRequest(lever=lever(run_id)))).answer.said
    assert "quarantined" in (await api.provisioning.AbortRun(pb.AbortRunRequest(lever=lever(run_id)))).answer.said
    assert (await everything(api.watch(run_id)))[-2].update.run.outcome == run_pb2.RUN_OUTCOME_QUARANTINED
    await stack.enrol_with(hosts[0], personality="")
    mend(stack.site.drivers_dir, project, hosts[0].name)
    await everything(api.release(project))
    assert is_clean(stack, project)


async def test_levers_of_runs_that_are_over_or_unknown(api: Api, stack: Stack) -> None:
    """How it ended, and what can be done now; or the nearest names."""
    project, _ = await stack.hosts()
    await api.made(project)
    run_id = f"provision:{project}:m"
    error = await refusal(api.provisioning.HoldRun(pb.HoldRunRequest(lever=lever(run_id))))
    assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert info(error).metadata["outcome"] == "RUN_OUTCOME_READY"
    assert info(error).metadata["remedy"] == f"mulligan machine show m --project {project}"
    error = await refusal(api.provisioning.AbortRun(pb.AbortRunRequest(lever=lever(f"{run_id}m"))))
    assert error.code() is grpc.StatusCode.NOT_FOUND
    assert run_id in info(error).metadata["nearest"].split(",")


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (pb.HoldRunRequest(lever=lever("provision:a:b"), before_step="claim"), "before_step"),
        (pb.ResumeRunRequest(lever=lever("provision:a:b"), from_step="boto"), "from_step"),
        (pb.ResumeRunRequest(lever=lever("provision:a:b"), times_held=-1), "times_held"),
        (pb.RetryRunNowRequest(lever=lever("provision:a:b", actor="a" * 101)), "lever.actor"),
        (pb.AbortRunRequest(lever=lever("provision:a:b", actor="a\nb")), "lever.actor"),
        (pb.TakeMulliganRequest(lever=lever("provision:a:b", "r" * 501)), "lever.reason"),
        (pb.ExtendRunRequest(lever=lever("", "")), "lever.workflow_id"),
        (pb.RetryRunRequest(workflow_id="", actor="alice"), "workflow_id"),
        (pb.CancelRunRequest(workflow_id="provision:a:b", actor="a" * 101), "actor"),
    ],
)
async def test_what_cannot_be_meant_is_refused_at_the_edge(api: Api, request_: Any, field: str) -> None:
    """INVALID_ARGUMENT names the field."""
    method = type(request_).__name__.removesuffix("Request")
    error = await refusal(getattr(api.provisioning, method)(request_))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert field in violations(error)


async def test_a_run_that_no_worker_serves_does_not_answer(api: Api, stack: Stack) -> None:
    """Nothing is known to have changed: said soon, with how to watch."""
    project, _ = await stack.hosts()
    workflow_id = workflow_runs.provision_id(project, "m")
    asked = workflow_runs.ProvisionIn("an-id", stack.request(project), IMAGE, "f")
    handle = await stack.client.start_workflow(
        workflow_runs.PROVISION, asked, id=workflow_id, task_queue="nobody-serves-this"
    )
    levers = Levers(Runs(stack.client, stack.inventory), answer_seconds=0.5)
    with pytest.raises(Unreachable, match="nothing is known to have changed") as caught:
        await levers.pull(workflow_id, "", LeverKind.HOLD, LeverIn("alice"))
    assert caught.value.metadata["remedy"] == f"mulligan run watch {workflow_id}"
    await handle.terminate()


async def test_enrolments_are_listed_and_have_no_levers(api: Api, stack: Stack) -> None:
    """An enrolment is a run of its provider, in the list of all runs only."""
    project, _ = await stack.hosts()
    name = f"{project}-enrolled"
    added = inventory_pb2.AddProviderRequest(name=name, url=f"simulated://{name}/{name}?speed=0")
    await api.inventory.AddProvider(added)

    async def is_listed() -> bool:
        listed = [each.run for each in await everything(api.provisioning.ListRuns(pb.ListRunsRequest()))]
        found = [run for run in listed if run.workflow_id == f"enrol:{name}"]
        return bool(found) and found[0].outcome == run_pb2.RUN_OUTCOME_ENROLLED

    await until(is_listed)
    story = await get(api, f"enrol:{name}")
    assert (story.run.kind, story.run.provider) == (run_pb2.RUN_KIND_ENROL, name)
    assert story.events[-1].outcome == run_pb2.RUN_OUTCOME_ENROLLED
    none = await everything(api.provisioning.ListRuns(pb.ListRunsRequest(project=project)))
    assert none == []
