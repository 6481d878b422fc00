"""What was done to one machine is found from any of its runs, and named so that it can be asked for."""

from __future__ import annotations

from mulligan.v1 import machine_pb2, provisioning_pb2, run_pb2
from tests.api.serving import Api, everything, first, spec
from tests.workflows.stack import Stack, until


async def shown(api: Api, workflow_id: str, run_id: str = "") -> provisioning_pb2.GetRunResponse:
    """A run, with the others of its machine."""
    return await api.provisioning.GetRun(provisioning_pb2.GetRunRequest(workflow_id=workflow_id, run_id=run_id))


async def listed(api: Api, project: str, outcome: int = 0) -> list[tuple[str, bool]]:
    """(run id, whether a newer run has its workflow id) of the project's runs that ended so."""
    asked = provisioning_pb2.ListRunsRequest(project=project, outcome=outcome)  # type: ignore[arg-type]  # a number does
    return [(each.run.run_id, each.run.superseded) async for each in api.provisioning.ListRuns(asked)]


async def test_each_run_of_a_machine_leads_to_the_others(api: Api, stack: Stack) -> None:
    """The one that made it to the one that took it down, and back; the machine to both. Of none before it."""
    project, (host,) = await stack.hosts()
    await api.made(project)
    await everything(api.release(project))
    await stack.enrol_with(host, fail="power_off:1:AccessDenied")
    await api.made(project)
    made, down = f"provision:{project}:m", f"release:{project}:m"
    await everything(api.release(project))
    failed = (await shown(api, down)).run.run_id
    await everything(api.release(project))
    about = provisioning_pb2.GetMachineRequest(project=project, name="m")

    async def all_are_listed() -> bool:
        return len((await api.provisioning.GetMachine(about)).runs) == 3

    await until(all_are_listed)
    of_it = [
        (down, run_pb2.RUN_OUTCOME_RELEASED, False),
        (down, run_pb2.RUN_OUTCOME_QUARANTINED, True),
        (made, run_pb2.RUN_OUTCOME_READY, False),
    ]
    found = (await api.provisioning.GetMachine(about)).runs
    assert [(each.workflow_id, each.outcome, each.superseded) for each in found] == of_it
    for run in found:
        others = (await shown(api, run.workflow_id, run.run_id)).others
        assert [each.run_id for each in others] == [each.run_id for each in found if each.run_id != run.run_id]
    assert found[1].run_id == failed


async def test_an_older_run_of_an_id_is_known_as_that_whichever_are_asked_for(api: Api, stack: Stack) -> None:
    """Also where the newer one ended otherwise, and is not in the list, or is open."""
    project, (host,) = await stack.hosts(personality="cloud-init-failed")
    asked = spec(project, verify=machine_pb2.VERIFY_LEVEL_GUEST, mulligans=0)
    await everything(api.provision(asked))
    failed = (await shown(api, f"provision:{project}:m")).run
    assert failed.outcome == run_pb2.RUN_OUTCOME_FAILED

    async def once() -> bool:
        return await listed(api, project, run_pb2.RUN_OUTCOME_FAILED) == [(failed.run_id, False)]

    async def again() -> bool:
        return await listed(api, project, run_pb2.RUN_OUTCOME_FAILED) == [(failed.run_id, True)]

    await until(once)
    await stack.enrol_with(host, personality="", hold="power_on:1:60")
    await first(api.provision(asked, detach=True))
    await until(again)
    await stack.enrol_with(host, hold="")
    handle = stack.client.get_workflow_handle(f"provision:{project}:m")
    await handle.cancel()
    await until(lambda: _is_over(handle))
    await until(again)
    newer = (await handle.describe()).run_id
    assert set(await listed(api, project)) == {(newer, False), (failed.run_id, True)}


async def _is_over(handle: object) -> bool:
    return bool((await handle.describe()).close_time)  # type: ignore[attr-defined]
