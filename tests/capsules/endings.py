"""Every way in which a run can end, on simulated hosts: each function lets one run end so, and gives its handle."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Awaitable, Callable
from typing import Any

from temporalio.client import WorkflowFailureError, WorkflowHandle

from mulligan.activities.events import EventKind
from mulligan.activities.history import STILL_AWAITED
from mulligan.activities.levers import LeverIn, LeverKind
from mulligan.activities.story import fold
from mulligan.activities.values import Deadlines, MachineState, OnFailure
from mulligan.v1 import inventory_pb2
from mulligan.v1 import provisioning_pb2 as pb
from tests.api.serving import Api
from tests.workflows.behind import called, switch_off
from tests.workflows.stack import Stack, until

Handle = WorkflowHandle[Any, Any]
BRIEF = Deadlines(verify_seconds=2, undo_seconds=8)


async def ready(stack: Stack, _: Api) -> Handle:
    """Made and proved to be up."""
    project, _hosts = await stack.hosts()
    return await stack.start(stack.request(project))


async def released(stack: Stack, api: Api) -> Handle:
    """Made, then taken down."""
    made = await ready(stack, api)
    await made.result()
    return await stack.release(made.id.split(":")[1], "m")


async def released_with_newer_settings(stack: Stack, _: Api) -> Handle:
    """Taken down, after the setting was mended for which that had failed."""
    project, hosts = await stack.hosts()
    await (await stack.start(stack.request(project))).result()
    await stack.enrol_with(hosts[0], fail="power_off:*:Unreachable")
    handle = await stack.release(project, "m")
    await until(lambda: stack.is_waiting(handle, "UNREACHABLE"))
    await stack.enrol_with(hosts[0], fail="")
    await pull(handle, LeverKind.RETRY_NOW)
    return handle


async def failed_after_a_mulligan(stack: Stack, _: Api) -> Handle:
    """Two hosts were tried, and on neither did the guest call home."""
    project, _hosts = await stack.hosts(2, personality="no-call-home")
    return await stack.start(stack.request(project, mulligans=1, deadlines=BRIEF))


async def cancelled(stack: Stack, _: Api) -> Handle:
    """Cancelled when the image was there."""
    project, _hosts = await stack.hosts(personality="no-call-home")
    handle = await stack.start(stack.request(project))
    await until(lambda: stack.has_finished(handle, "prepare"))
    await handle.cancel(reason="recorded for the corpus")
    return handle


async def cancelled_by_several(stack: Stack, api: Api) -> Handle:
    """Two operators cancelled it, one while the other's undo was under way."""
    project, _hosts = await stack.hosts(personality="no-call-home", hold="power_off:1:2")
    handle = await stack.start(stack.request(project))
    await until(lambda: stack.has_finished(handle, "observe"))
    for actor in ("operator", "another"):
        by = pb.CancelRunRequest(workflow_id=handle.id, actor=actor, reason="recorded for the corpus")
        await api.provisioning.CancelRun(by)
    return handle


async def held_then_cancelled(stack: Stack, _: Api) -> Handle:
    """The guest's set-up failed; kept for inspection, then cancelled."""
    project, _hosts = await stack.hosts(personality="cloud-init-failed")
    handle = await stack.start(stack.request(project, on_failure=OnFailure.HOLD))
    await until(lambda: stack.machine_is(project, "m", MachineState.HELD))
    await handle.cancel()
    return handle


async def held_then_resumed(stack: Stack, _: Api) -> Handle:
    """The host refused once to switch on; kept, and gone on with."""
    project, _hosts = await stack.hosts(fail="power_on:1:AccessDenied")
    handle = await stack.start(stack.request(project, on_failure=OnFailure.HOLD))
    await until(lambda: stack.machine_is(project, "m", MachineState.HELD))
    await pull(handle, LeverKind.RESUME)
    return handle


async def held_before_a_step(stack: Stack, _: Api) -> Handle:
    """An operator gave the step that ran more time, had the run held before the next one, and let it go on."""
    project, _hosts = await stack.hosts(hold="create_disks:1:2")
    handle = await stack.start(stack.request(project))
    await until(lambda: stack.has_finished(handle, "prepare"))
    await pull(handle, LeverKind.EXTEND, seconds=60)
    await pull(handle, LeverKind.RETRY_NOW)
    await pull(handle, LeverKind.HOLD, step="boot")
    await until(lambda: stack.machine_is(project, "m", MachineState.HELD))
    await pull(handle, LeverKind.RESUME)
    return handle


async def held_before_two_steps(stack: Stack, _: Api) -> Handle:
    """Two operators had it held, each before another step, and let it go on each time."""
    project, _hosts = await stack.hosts(hold="create_disks:1:2")
    handle = await stack.start(stack.request(project))
    await until(lambda: stack.has_finished(handle, "prepare"))
    for step in ("verify", "boot"):
        await pull(handle, LeverKind.HOLD, step=step)
    for times in (1, 2):
        await until(functools.partial(_was_held, stack, handle, times))
        await pull(handle, LeverKind.RESUME)
    return handle


async def _was_held(stack: Stack, handle: Handle, times: int) -> bool:
    return [e.kind for e in await stack.story_so_far(handle)].count(EventKind.HELD) == times


async def given_another_by_an_operator(stack: Stack, _: Api) -> Handle:
    """An operator gave the first host up; the second one was good."""
    project, hosts = await stack.hosts(2)
    for host in hosts:
        await stack.enrol_with(host, personality="no-call-home")
    handle = await stack.start(stack.request(project))
    await until(lambda: stack.has_finished(handle, "observe"))
    taken = stack.inventory.claim_by_id(stack.inventory.machine(project, "m").claim_id).provider
    (other,) = [host for host in hosts if host.name != taken]
    await stack.enrol_with(other)
    await pull(handle, LeverKind.MULLIGAN)
    return handle


async def aborted(stack: Stack, _: Api) -> Handle:
    """An operator said that there is no use in trying on."""
    project, _hosts = await stack.hosts(personality="no-call-home")
    handle = await stack.start(stack.request(project))
    await until(lambda: stack.has_finished(handle, "observe"))
    await pull(handle, LeverKind.ABORT)
    return handle


async def quarantined(stack: Stack, _: Api) -> Handle:
    """What was made could not be removed."""
    project, _hosts = await stack.hosts(personality="stuck-undo,cloud-init-failed")
    return await stack.start(stack.request(project, deadlines=Deadlines(undo_seconds=3)))


async def terminated(stack: Stack, _: Api) -> Handle:
    """Ended from outside, without undo."""
    project, _hosts = await stack.hosts(personality="no-call-home")
    handle = await stack.start(stack.request(project), lease_seconds=3)
    await until(lambda: stack.has_finished(handle, "observe"))
    await handle.terminate("recorded for the corpus")
    return handle


async def ready_after_a_long_wait(stack: Stack, _: Api) -> Handle:
    """Its guest called home when its machine had been looked at."""
    project, handle = await _looked_at(stack)
    await called(handle, stack, project)
    return handle


async def failed_when_it_was_off(stack: Stack, _: Api) -> Handle:
    """While its guest was awaited the machine was switched off."""
    project, handle = await _looked_at(stack)
    await switch_off(stack, handle, project)
    return handle


async def _looked_at(stack: Stack) -> tuple[str, Handle]:
    project, _hosts = await stack.hosts(personality="no-call-home")
    handle = await stack.start(stack.request(project, deadlines=Deadlines(verify_seconds=120)))
    await until(lambda: stack.is_waiting(handle, STILL_AWAITED))
    return project, handle


async def reclaimed(stack: Stack, api: Api) -> Handle:
    """What a terminated run left was taken down when its lease had passed."""
    await terminated(stack, api)
    found: list[str] = []

    async def is_reclaimed() -> bool:
        found.extend(await stack.reaper.look())
        return bool(found)

    await until(is_reclaimed)
    return stack.client.get_workflow_handle(found[0])


async def enrolled(stack: Stack, api: Api) -> Handle:
    """A host was looked at and registered."""
    asked = inventory_pb2.AddProviderRequest(name="recorded", url="simulated://recorded/recorded?speed=0")
    await api.inventory.AddProvider(asked)
    return stack.client.get_workflow_handle("enrol:recorded")


ENDINGS: dict[str, Callable[[Stack, Api], Awaitable[Handle]]] = {
    function.__name__.replace("_", "-"): function
    for function in (
        ready,
        released,
        released_with_newer_settings,
        ready_after_a_long_wait,
        failed_when_it_was_off,
        failed_after_a_mulligan,
        cancelled,
        cancelled_by_several,
        held_then_cancelled,
        held_then_resumed,
        held_before_a_step,
        held_before_two_steps,
        given_another_by_an_operator,
        aborted,
        quarantined,
        terminated,
        reclaimed,
        enrolled,
    )
}
"""By the name of the capsule."""


async def pull(handle: Handle, lever: LeverKind, **values: Any) -> None:
    """Pull a lever."""
    await handle.execute_update(lever, LeverIn(actor="operator", reason="recorded for the corpus", **values))


async def ended(handle: Handle) -> str:
    """Wait until it has ended, well or badly; how it did."""
    with contextlib.suppress(WorkflowFailureError):
        await handle.result()
    return str(fold(iter((await handle.fetch_history()).events))[-1].outcome)
