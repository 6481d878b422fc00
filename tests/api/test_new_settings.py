"""A provider is given other settings while runs are under way on it."""

from __future__ import annotations

import dataclasses

from temporalio.client import WorkflowHandle

from mulligan.activities.inventory import By
from mulligan.activities.values import MachineState
from mulligan.api.levers import Levers
from mulligan.api.new_settings import NewSettings
from mulligan.api.runs import Runs
from mulligan.v1 import inventory_pb2, machine_pb2, run_pb2
from tests.api.serving import Api, events, everything, first, spec
from tests.workflows.stack import Stack, is_clean, until


async def edit(api: Api, stack: Stack, host: str, **settings: str) -> inventory_pb2.UpdateProviderResponse:
    """Give the host these settings, as an operator does."""
    request = inventory_pb2.UpdateProviderRequest(
        name=host,
        generation=stack.inventory.provider(host).generation,
        settings=settings,
        actor="alice",
        reason="it was wrong",
    )
    response: inventory_pb2.UpdateProviderResponse = await api.inventory.UpdateProvider(request)
    return response


async def releasing(api: Api, stack: Stack, fail: str) -> tuple[str, str, WorkflowHandle]:
    """(project, host, run) of a release that waits for its next attempt, because of a setting of its host."""
    project, (host,) = await stack.hosts()
    await api.made(project)
    assert not (await edit(api, stack, host.name, fail=fail)).told, "no run is under way"
    await first(api.release(project, detach=True))
    run = stack.client.get_workflow_handle(f"release:{project}:m")
    await until(lambda: stack.is_waiting(run, fail.rpartition(":")[2].upper()))
    return project, host.name, run


async def test_a_release_goes_on_when_the_setting_for_which_it_failed_is_mended(api: Api, stack: Stack) -> None:
    """The edit says which run was told; the run says who mended what, and ends well by itself."""
    project, host, _ = await releasing(api, stack, "power_off:*:Unreachable")
    (told,) = (await edit(api, stack, host, fail="")).told
    assert told.workflow_id == f"release:{project}:m"
    assert f"{host} is asked with its settings of now; begun anew with them: undo/tear-down" in told.said
    story = events(await everything(api.watch(told.workflow_id)))
    (pulled,) = [each for each in story if each.kind == run_pb2.RUN_EVENT_KIND_LEVER_PULLED]
    assert f"by alice: {host} has other settings now: it was wrong" in pulled.message
    assert stack.inventory.machine(project, "m").state is MachineState.RELEASED
    assert is_clean(stack, project)


async def test_an_edit_that_changes_no_setting_tells_nobody(api: Api, stack: Stack) -> None:
    """Nor one that gives a setting the value that it has."""
    _, host, run = await releasing(api, stack, "power_off:*:Unreachable")
    assert not (await edit(api, stack, host, fail="power_off:*:Unreachable")).told
    assert (await edit(api, stack, host, fail="")).told
    await run.result()


async def test_a_held_run_is_left_alone(api: Api, stack: Stack) -> None:
    """It takes the settings of now when it is resumed."""
    project, (host,) = await stack.hosts(fail="define:*:AccessDenied")
    hold = machine_pb2.ON_FAILURE_HOLD
    await first(api.provision(spec(project, on_failure=hold), detach=True))
    await until(lambda: stack.machine_is(project, "m", MachineState.HELD))
    assert not (await edit(api, stack, host.name, fail="")).told
    assert stack.inventory.machine(project, "m").state is MachineState.HELD


async def test_a_run_that_does_not_answer_is_named_and_the_change_stands(stack: Stack, api: Api) -> None:
    """Its workers are away: the operator is told what to do."""
    project, name, run = await releasing(api, stack, "power_off:*:Unreachable")
    old = stack.inventory.provider(name).target
    new = await stack.enrol_with(old, fail="")
    runs = Runs(stack.client, stack.inventory)
    impatient = NewSettings(stack.inventory, runs, Levers(runs, answer_seconds=0.001))
    (told,) = await impatient.tell(old, new, By("alice"))
    assert told.workflow_id == f"release:{project}:m"
    assert "does not know the new settings" in told.said
    assert f"mulligan run watch release:{project}:m" in told.said
    assert stack.inventory.provider(name).target == dataclasses.replace(old, settings=new.settings)
    assert len(await NewSettings(stack.inventory, runs, Levers(runs)).tell(old, new, By("alice"))) == 1
    await run.result()


async def test_a_provider_that_is_added_once_more_tells_its_runs(api: Api, stack: Stack) -> None:
    """That is how its credential is changed."""
    project, host, run = await releasing(api, stack, "power_off:*:Unreachable")
    known = stack.inventory.provider(host)
    again = inventory_pb2.AddProviderRequest(name=host, partition=known.partition, url=known.url, credential="other")
    response = await api.inventory.AddProvider(again)
    assert [each.workflow_id for each in response.told] == [f"release:{project}:m"]
    assert response.provider.credential == "other"
    await run.result()
    assert is_clean(stack, project)
