"""Taking machines down through the API, and what happens to machines whose run was ended from outside."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import grpc
from sqlalchemy import update
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.enums.v1 import EventType
from temporalio.api.workflowservice.v1 import ResetWorkflowExecutionRequest

from mulligan.activities.bootserver.tokens import Permit
from mulligan.activities.call_home import RunListener
from mulligan.activities.inventory.tables import claims
from mulligan.activities.values import CallHome, MachineState, Target
from mulligan.api.reclaim import Reaper
from mulligan.v1 import inventory_pb2, machine_pb2, provisioning_pb2, run_pb2
from tests.api.serving import Api, events, everything, first, info, refusal, spec, violations
from tests.workflows.stack import Stack, is_clean, until

WAIT = machine_pb2.WHEN_NONE_WAIT
SLOW_UNDO = {"hold": "power_off:1:3"}


async def ended_while_waiting(api: Api, stack: Stack) -> str:
    """The project of a machine `m` whose run was terminated while it waited for room."""
    project, (host,) = await stack.hosts(vcpu="4")
    rows = {row.resource: row.capacity for row in stack.inventory.provider(host.name).inventory}
    whole = machine_pb2.Resources(vcpu=rows["vcpu"], memory_mib=512, disk_gib=2)
    await api.made(project, "first", resources=whole)
    await first(api.provision(spec(project, resources=whole, when_none=WAIT), detach=True))
    handle = stack.client.get_workflow_handle(f"provision:{project}:m")
    await until(lambda: stack.is_waiting(handle, "NOT_NOW"))
    await handle.terminate("by hand")
    assert await stack.machine_is(project, "m", MachineState.PROVISIONING)
    return project


async def ended_while_claiming(api: Api, stack: Stack, **settings: str) -> tuple[str, str]:
    """(project, claim) of a machine `m` whose run was terminated while it looked, and whose lease has passed."""
    project, _ = await stack.hosts(personality="no-call-home", **settings)
    await first(api.provision(spec(project, verify=machine_pb2.VERIFY_LEVEL_GUEST), detach=True))
    handle = stack.client.get_workflow_handle(f"provision:{project}:m")
    await until(lambda: stack.has_finished(handle, "boot"))
    await handle.terminate("by hand")
    return project, pass_lease(stack, project)


def pass_lease(stack: Stack, project: str) -> str:
    """Let the lease of the machine's claim have passed an hour ago; the claim's id."""
    claim = stack.inventory.live_claim_of(stack.inventory.machine(project, "m").id)
    assert claim is not None
    past = update(claims).where(claims.c.id == claim.id).values(lease_expires_at=datetime.now(UTC) - timedelta(hours=1))
    with stack.inventory._database.write() as connection:
        connection.execute(past)
    return claim.id


async def edits_of(api: Api, project: str) -> list[inventory_pb2.Edit]:
    """What was changed by hand on machines of a project."""
    asked = inventory_pb2.ListEditsRequest(kind=inventory_pb2.EDIT_KIND_MACHINE, project=project)
    return [each.edit for each in await everything(api.inventory.ListEdits(asked))]


async def test_a_machine_whose_run_ended_without_a_claim_is_gone_when_released(api: Api, stack: Stack) -> None:
    """There is nothing to take down, so it is said at once, and the name can be had again."""
    project = await ended_while_waiting(api, stack)
    error = await refusal(api.provision(spec(project)))
    assert info(error).metadata["remedy"] == f"mulligan machine release m --project {project}"
    released = await everything(api.release(project))
    assert released[0].joined
    assert released[0].update.run.outcome == run_pb2.RUN_OUTCOME_TERMINATED
    assert released[-1].update.machine.state == machine_pb2.MACHINE_STATE_FAILED
    assert "nothing of it is left" in released[-1].update.machine.reason
    (told,) = await edits_of(api, project)
    assert (told.name, told.actor, told.what.partition(" when ")[0]) == ("m", "unknown", "recorded as gone")
    await everything(api.release(project, "first"))
    assert (await api.made(project))[-1].update.machine.state == machine_pb2.MACHINE_STATE_READY


async def test_a_machine_whose_run_ended_without_a_claim_is_found(api: Api, stack: Stack) -> None:
    """It has no lease that could pass; its state and its age tell."""
    project = await ended_while_waiting(api, stack)
    assert project not in str(await stack.reaper.look())
    assert await stack.machine_is(project, "m", MachineState.PROVISIONING), "it is younger than a lease"
    reaper = Reaper(stack.inventory, stack.client, lease_seconds=1)

    async def found() -> bool:
        await reaper.look()
        return await stack.machine_is(project, "m", MachineState.FAILED)

    await until(found)


async def test_a_machine_whose_run_is_open_is_left_alone(api: Api, stack: Stack) -> None:
    """However long it waits for room, or is held."""
    project, _ = await stack.hosts(personality="never-boots")
    deadlines = machine_pb2.Deadlines(verify_seconds=2)
    hold = {"on_failure": machine_pb2.ON_FAILURE_HOLD, "deadlines": deadlines, "mulligans": 0}
    run = (await first(api.provision(spec(project, **hold), detach=True))).update.run
    await until(lambda: stack.machine_is(project, "m", MachineState.HELD))
    reaper = Reaper(stack.inventory, stack.client, lease_seconds=1)
    assert run.machine_id in [each.id for each in stack.inventory.unsettled(1)]
    assert run.machine_id not in str(await reaper.look())
    assert await stack.machine_is(project, "m", MachineState.HELD)
    await everything(api.release(project))


async def test_a_held_machine_whose_run_was_terminated_is_reclaimed(api: Api, stack: Stack) -> None:
    """Its claim has no lease that could pass."""
    project, _ = await stack.hosts(personality="never-boots")
    deadlines = machine_pb2.Deadlines(verify_seconds=2)
    hold = {"on_failure": machine_pb2.ON_FAILURE_HOLD, "deadlines": deadlines, "mulligans": 0}
    await first(api.provision(spec(project, **hold), detach=True))
    await until(lambda: stack.machine_is(project, "m", MachineState.HELD))
    await stack.client.get_workflow_handle(f"provision:{project}:m").terminate("by hand")
    (claim,) = stack.inventory.claims(project=project)
    reaper = Reaper(stack.inventory, stack.client, lease_seconds=1)
    assert f"reclaim:{claim.id}" in await reaper.look()
    await until(lambda: stack.machine_is(project, "m", MachineState.FAILED))
    assert is_clean(stack, project)


async def test_a_release_joins_the_reclaim_that_is_under_way(api: Api, stack: Stack) -> None:
    """One run takes the machine down; whoever asks for the machine meanwhile is told which."""
    project, claim_id = await ended_while_claiming(api, stack, **SLOW_UNDO)
    assert f"reclaim:{claim_id}" in await stack.reaper.look()
    await until(lambda: stack.machine_is(project, "m", MachineState.RELEASING))
    error = await refusal(api.provision(spec(project)))
    assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert info(error).metadata["workflow_id"] == f"reclaim:{claim_id}"
    released = await everything(api.release(project))
    assert released[0].joined
    assert released[0].update.run.workflow_id == f"reclaim:{claim_id}"
    assert released[-2].update.run.outcome == run_pb2.RUN_OUTCOME_RELEASED
    assert is_clean(stack, project)


async def test_who_joins_a_release_is_kept(api: Api, stack: Stack) -> None:
    """As a change by hand, once however often a client repeats itself; whoever began it is in its story."""
    project, _ = await stack.hosts(**SLOW_UNDO)
    await api.made(project)
    begun = (await first(api.release(project, actor="alice", reason="done"))).update.run
    for _ in range(2):
        joined = await first(api.release(project, actor="bob", reason="its disk fails"))
        assert (joined.joined, joined.update.run.run_id) == (True, begun.run_id)
    assert [(each.name, each.actor, each.reason) for each in await edits_of(api, project)] == [
        ("m", "bob", "its disk fails")
    ]
    stream = await everything(api.watch(begun.workflow_id))
    assert events(stream)[0].message == "run started, asked for by alice: done"


async def test_a_release_keeps_who_asked_and_why(api: Api, stack: Stack) -> None:
    """In its story; of a machine that is held, in the story of the run that held it."""
    project, (host,) = await stack.hosts()
    await api.made(project)
    stream = await everything(api.release(project, actor="alice", reason="no longer needed"))
    assert events(stream)[0].message == "run started, asked for by alice: no longer needed"
    held = spec(project, on_failure=machine_pb2.ON_FAILURE_HOLD, mulligans=0)
    await stack.enrol_with(host, fail="define:*:Unsupported")
    await first(api.provision(held, detach=True))
    await until(lambda: stack.machine_is(project, "m", MachineState.HELD))
    stream = await everything(api.release(project, actor="bob", reason="seen"))
    told = [event.message for event in events(stream) if event.kind == run_pb2.RUN_EVENT_KIND_CANCEL_REQUESTED]
    assert [message.partition(";")[0] for message in told] == [
        "cancel requested: by bob: the held machine is to be released, seen"
    ]
    error = await refusal(first(api.release(project, reason="y" * 501)))
    assert list(violations(error)) == ["reason"]


async def test_nothing_is_reclaimed_beside_a_release(api: Api, stack: Stack) -> None:
    """A lease that passes while the release works is extended."""
    project, claim_id = await ended_while_claiming(api, stack, **SLOW_UNDO)
    released = api.release(project)
    assert (await first(released)).update.run.workflow_id == f"release:{project}:m"
    assert f"reclaim:{claim_id}" not in await stack.reaper.look()
    assert claim_id not in [claim.id for claim in stack.inventory.expired()]
    assert (await everything(released))[-1].update.machine.state == machine_pb2.MACHINE_STATE_RELEASED


async def test_a_release_that_was_terminated_is_told_and_gone_on_with(api: Api, stack: Stack) -> None:
    """No run is named that is not there."""
    project, _ = await stack.hosts(**SLOW_UNDO)
    await api.made(project)
    await first(api.release(project, detach=True))
    await until(lambda: stack.machine_is(project, "m", MachineState.RELEASING))
    shown = await api.provisioning.GetMachine(provisioning_pb2.GetMachineRequest(project=project, name="m"))
    assert shown.machine.provider == f"{project}-h0"
    await stack.client.get_workflow_handle(f"release:{project}:m").terminate("by hand")
    error = await refusal(api.provision(spec(project)))
    assert "workflow_id" not in info(error).metadata
    assert info(error).metadata["remedy"] == f"mulligan machine release m --project {project}"
    released = await everything(api.release(project))
    assert released[-1].update.machine.state == machine_pb2.MACHINE_STATE_RELEASED
    assert is_clean(stack, project)


async def test_a_machine_whose_making_is_being_cancelled_goes_by_itself(api: Api, stack: Stack) -> None:
    """Whoever would release it is told so; before the cancel, that a cancel is what takes it down."""
    project, _ = await stack.hosts(personality="no-call-home", **SLOW_UNDO)
    await first(api.provision(spec(project, verify=machine_pb2.VERIFY_LEVEL_GUEST), detach=True))
    run = stack.client.get_workflow_handle(f"provision:{project}:m")
    await until(lambda: stack.has_finished(run, "boot"))
    assert info(await refusal(api.release(project))).metadata["remedy"] == f"mulligan run cancel provision:{project}:m"
    await api.provisioning.CancelRun(provisioning_pb2.CancelRunRequest(workflow_id=run.id))
    error = await refusal(api.release(project))
    assert "is being cancelled, and undoes what it made" in str(error.details())
    assert info(error).metadata["remedy"] == f"mulligan run watch provision:{project}:m"
    await until(lambda: stack.machine_is(project, "m", MachineState.FAILED))
    assert is_clean(stack, project)


async def test_a_release_cannot_be_cancelled(api: Api, stack: Stack) -> None:
    """It is refused while it runs, and goes on to its end."""
    project, _ = await stack.hosts(**SLOW_UNDO)
    await api.made(project)
    released = api.release(project)
    await first(released)
    cancel = provisioning_pb2.CancelRunRequest(workflow_id=f"release:{project}:m")
    error = await refusal(api.provisioning.CancelRun(cancel))
    assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert info(error).metadata["remedy"] == f"mulligan run watch release:{project}:m"
    for lever in ("retry-now", "abort"):
        assert f"`mulligan run {lever} release:{project}:m`" in str(error.details())
    assert (await everything(released))[-2].update.run.outcome == run_pb2.RUN_OUTCOME_RELEASED
    assert not (await api.provisioning.CancelRun(cancel)).run.cancel_requested


async def test_a_machine_that_failed_before_it_was_up_says_where_it_is(api: Api, stack: Stack) -> None:
    """Also in quarantine, where somebody has to go and look."""
    project, (host,) = await stack.hosts(personality="stuck-undo,cloud-init-failed")
    deadlines = machine_pb2.Deadlines(undo_seconds=3)
    values = {"verify": machine_pb2.VERIFY_LEVEL_GUEST, "deadlines": deadlines, "mulligans": 0}
    machine = (await api.made(project, **values))[-1].update.machine
    assert machine.state == machine_pb2.MACHINE_STATE_QUARANTINED
    assert machine.provider == host.name


async def test_a_run_that_was_reset_keeps_its_claim_and_takes_the_call_home(api: Api, stack: Stack) -> None:
    """The execution that claimed, and signed the token, has ended; the run goes on in another one."""
    project, _ = await stack.hosts(personality="no-call-home")
    asked = spec(project, verify=machine_pb2.VERIFY_LEVEL_GUEST)
    run = (await first(api.provision(asked, detach=True))).update.run
    handle = stack.client.get_workflow_handle(run.workflow_id, run_id=run.run_id)
    await until(lambda: stack.has_finished(handle, "observe"))
    claim_id = pass_lease(stack, project)
    await reset(stack, run)
    assert f"reclaim:{claim_id}" not in await stack.reaper.look()
    assert claim_id not in [claim.id for claim in stack.inventory.expired()]
    now = datetime.now(UTC)
    permit = Permit(run.workflow_id, run.run_id, run.machine_id, "1", now + timedelta(minutes=5))
    call = CallHome(at=now, hostname="m", status="done", peer="192.0.2.7")
    assert await RunListener(stack.client).on_call_home(permit, call)
    assert not await RunListener(stack.client).on_call_home(permit, call)
    assert (await everything(api.watch(run.workflow_id)))[-2].update.run.outcome == run_pb2.RUN_OUTCOME_READY


async def reset(stack: Stack, run: run_pb2.Run) -> None:
    """Reset the run to its newest decision, as an operator does."""
    handle = stack.client.get_workflow_handle(run.workflow_id, run_id=run.run_id)
    completed = [
        event.event_id
        async for event in handle.fetch_history_events()
        if event.event_type == EventType.EVENT_TYPE_WORKFLOW_TASK_COMPLETED
    ]
    await stack.client.workflow_service.reset_workflow_execution(
        ResetWorkflowExecutionRequest(
            namespace="default",
            workflow_execution=WorkflowExecution(workflow_id=run.workflow_id, run_id=run.run_id),
            reason="look again",
            workflow_task_finish_event_id=completed[-1],
            request_id=run.run_id,
        )
    )


async def test_who_forgets_a_machine_is_listed_and_in_its_story(api: Api, stack: Stack) -> None:
    """Who, why, and what was let go of where; also when its provider is forgotten too. A usual release is no change
    by hand: it has its story."""
    project, (host,) = await stack.hosts(fail="power_off:*:AccessDenied")
    await api.made(project)
    claim = stack.inventory.live_claim_of(stack.inventory.machine(project, "m").id)
    assert claim is not None
    error = await refusal(api.release(project, forget=True, actor="ann@ops", reason="too early"))
    assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
    await everything(api.release(project, actor="bob", reason="not needed"))
    assert await stack.machine_is(project, "m", MachineState.QUARANTINED)
    assert await edits_of(api, project) == []
    forget = inventory_pb2.RemoveProviderRequest(name=host.name, forget=True, actor="ann@ops", reason="it burnt")
    error = await refusal(api.inventory.RemoveProvider(forget))
    assert info(error).metadata["remedy"] == f"mulligan machine release m --project {project} --forget"
    told = await everything(api.release(project, forget=True, actor="ann@ops", reason="it burnt"))
    assert "ann@ops: it burnt" in str(events(told)[0])
    assert events(told)[1].message.startswith("Only give back what is claimed for m: forgotten by ann@ops: it burnt")
    shown = await api.provisioning.GetMachine(provisioning_pb2.GetMachineRequest(project=project, name="m"))
    assert shown.machine.reason.startswith("forgotten by ann@ops: it burnt; nothing was undone on")
    runs = await everything(api.provisioning.ListRuns(provisioning_pb2.ListRunsRequest(project=project)))
    (left,) = [each.run.reason for each in runs if each.run.outcome == run_pb2.RUN_OUTCOME_QUARANTINED]
    said = f"forgotten since by ann@ops: it burnt; nothing was undone on {host.name}, where it may still run"
    assert left.endswith(said)
    assert "mended" not in left
    await api.inventory.RemoveProvider(forget)
    await everything(api.release(project, forget=True, actor="carl", reason="again"))
    (edit,) = await edits_of(api, project)
    assert (edit.name, edit.project, edit.actor, edit.reason) == ("m", project, "ann@ops", "it burnt")
    let_go = f"forgotten; let go of 1 vcpu, 512 MiB memory, 2 GiB disk of {host.name} (claim {claim.id})"
    assert edit.what.startswith(let_go)
    assert "may still run there" in edit.what
    by_name = inventory_pb2.ListEditsRequest(name=host.name)
    assert [each.edit.actor for each in await everything(api.inventory.ListEdits(by_name))] == ["ann@ops"]
    await stack.enrol(Target(f"{project}-h1", "default", f"simulated://{project}/{project}-h1?speed=0"))
    await api.made(project)
    runs = await everything(api.provisioning.ListRuns(provisioning_pb2.ListRunsRequest(project=project)))
    reasons = [each.run.reason for each in runs if each.run.outcome == run_pb2.RUN_OUTCOME_QUARANTINED]
    assert reasons == [left], "what became of the name since is no matter"
    error = await refusal(api.inventory.ListEdits(inventory_pb2.ListEditsRequest(project="Not a name")))
    assert list(violations(error)) == ["project"]
