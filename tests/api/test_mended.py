"""What a run left behind is taken down, or made again: its old advice, to take it down, is told no longer."""

from __future__ import annotations

from mulligan.v1 import machine_pb2, run_pb2
from mulligan.v1 import provisioning_pb2 as pb
from tests.api.serving import Api, events, everything, first, spec
from tests.workflows.stack import Stack, until
from tests.workflows.steer import begun

DEADLINES = machine_pb2.Deadlines(claim_seconds=60, boot_seconds=60, verify_seconds=60, undo_seconds=2)


async def listed(api: Api, project: str, run_id: str) -> run_pb2.Run:
    """The run as it is in the list of runs."""
    runs = [each.run async for each in api.provisioning.ListRuns(pb.ListRunsRequest(project=project))]
    return next(each for each in runs if each.run_id == run_id)


async def told(api: Api, project: str, run: run_pb2.Run) -> tuple[str, list[str]]:
    """(why, what to do next) of a run that is over, which every answer about it must agree on."""
    asked = {"workflow_id": run.workflow_id, "run_id": run.run_id}
    shown = await api.provisioning.GetRun(pb.GetRunRequest(**asked))
    watched = await everything(api.provisioning.WatchRun(pb.WatchRunRequest(**asked)))
    last = events(watched)[-1]
    assert (await listed(api, project, run.run_id)).reason == shown.run.reason
    assert (last.message, last.suggestions) == (shown.events[-1].message, shown.events[-1].suggestions)
    return shown.run.reason, list(last.suggestions)


async def test_a_mended_quarantine_no_longer_says_to_release_the_machine(api: Api, stack: Stack) -> None:
    """Neither when it was released, nor when another machine has its name: that one would be lost."""
    project, (host,) = await stack.hosts(personality="stuck-undo,cloud-init-failed")
    made = await api.made(project, verify=machine_pb2.VERIFY_LEVEL_GUEST, deadlines=DEADLINES, mulligans=0)
    run = made[-2].update.run
    assert run.outcome == run_pb2.RUN_OUTCOME_QUARANTINED
    release = f"mulligan machine release m --project {project}"
    why, then = await told(api, project, run)
    assert release in why
    assert then[0] == release
    await stack.enrol_with(host, personality="")
    await everything(api.release(project))
    why, then = await told(api, project, run)
    assert why.endswith("; mended since: the machine was released")
    assert "machine release" not in " ".join([why, *then])
    again = await everything(api.provision(spec(project)))
    assert again[-2].update.run.outcome == run_pb2.RUN_OUTCOME_READY
    why, then = await told(api, project, run)
    assert why.endswith("; mended since: another machine was asked for by that name, and is ready")
    assert "machine release" not in " ".join([why, *then])
    assert then[0] == f"mulligan machine show m --project {project}"


async def test_what_a_terminated_run_left_is_released_before_it_is_made_afresh(api: Api, stack: Stack) -> None:
    """While it is there no retry is suggested: it would be refused. When it is gone the release is not."""
    project, _ = await stack.hosts(hold="power_on:1:3600")
    run = (await first(api.provision(spec(project), detach=True))).update.run
    await begun(stack, project, "power_on")
    await stack.client.get_workflow_handle(run.workflow_id).terminate("by hand")
    _, then = await told(api, project, run)
    assert then[0] == f"mulligan machine release m --project {project}"
    assert "run retry" not in " ".join(then)

    async def is_gone() -> bool:
        return (await everything(api.release(project)))[-1].update.machine.state == machine_pb2.MACHINE_STATE_RELEASED

    await until(is_gone)
    why, then = await told(api, project, run)
    assert "; mended since: the machine was released" in why
    assert "machine release" not in " ".join(then)
