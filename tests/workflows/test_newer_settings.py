"""Runs under way whose provider gets other settings: what waits is begun anew with them, what works goes on."""

from __future__ import annotations

import asyncio
import contextlib

from temporalio.client import WorkflowUpdateFailedError

from mulligan.activities.events import EventKind
from mulligan.activities.levers import LeverKind
from mulligan.activities.values import Outcome
from tests.workflows.stack import Stack, is_clean, until
from tests.workflows.steer import HELD, begun, last_of, pull, verbs


async def test_a_release_takes_its_providers_settings_of_now(stack: Stack) -> None:
    """Someone mends a setting while the undo fails for the old one: tried again, it is begun anew with the new one."""
    project, hosts = await stack.hosts()
    await (await stack.start(stack.request(project))).result()
    await stack.enrol_with(hosts[0], fail="power_off:*:Unreachable")
    release = await stack.release(project, "m")
    await until(lambda: stack.is_waiting(release, "UNREACHABLE"))
    await stack.enrol_with(hosts[0], fail="")
    said = await pull(release, LeverKind.RETRY_NOW, "the cable is back")
    assert hosts[0].name in said, said
    assert "settings of now" in said
    assert "undo/tear-down (attempt" in said
    assert (await last_of(stack, release)).outcome is Outcome.RELEASED
    assert is_clean(stack, project)
    stopped = [e for e in await stack.story(release) if e.kind is EventKind.ACTION_FAILED]
    assert [(e.action, e.reason) for e in stopped] == [("tear-down", "CANCELLED")]
    assert project not in str(stack.inventory.suspects()), "nothing is held against a host that was mended"


async def test_a_slow_undo_is_begun_anew_with_its_providers_settings_of_now(stack: Stack) -> None:
    """It does not wait for another attempt: the attempt that is under way is stopped."""
    project, hosts = await stack.hosts()
    await (await stack.start(stack.request(project))).result()
    await stack.enrol_with(hosts[0], hold="power_off:*:300")
    release = await stack.release(project, "m")
    await begun(stack, project, "power_off")
    await stack.enrol_with(hosts[0], hold="")
    said = await pull(release, LeverKind.RETRY_NOW)
    assert "nothing waits for another attempt" in said, said
    assert (await last_of(stack, release)).outcome is Outcome.RELEASED
    assert is_clean(stack, project)


async def test_a_step_that_waits_is_begun_anew_with_its_providers_settings_of_now(stack: Stack) -> None:
    """So is what it makes: an action that fails for an old setting need not fail its run."""
    project, hosts = await stack.hosts(fail="define:*:Unreachable")
    handle = await stack.start(stack.request(project, deadlines=HELD))
    await until(lambda: stack.is_waiting(handle, "UNREACHABLE"))
    await stack.enrol_with(hosts[0], fail="")
    assert "boot/boot (attempt" in await pull(handle, LeverKind.RETRY_NOW)
    assert (await last_of(stack, handle)).outcome is Outcome.READY


async def test_a_step_that_is_under_way_goes_on_with_the_settings_that_it_began_with(stack: Stack) -> None:
    """An action that makes something is not stopped for new settings; what comes after it takes them."""
    project, hosts = await stack.hosts(hold="create_disks:1:2", fail="define:*:Unreachable")
    handle = await stack.start(stack.request(project, deadlines=HELD))
    await begun(stack, project, "create_disks")
    await stack.enrol_with(hosts[0], fail="", hold="")
    assert "settings of now" in await pull(handle, LeverKind.RETRY_NOW)
    assert (await last_of(stack, handle)).outcome is Outcome.READY
    assert not [e for e in await stack.story(handle) if e.kind is EventKind.ACTION_FAILED]
    assert verbs(stack, project, "create_disks") == 1


async def test_a_cancel_stops_what_was_to_be_begun_anew(stack: Stack) -> None:
    """A cancel and new settings at the same moment: the cancel wins, and everything is undone."""
    project, hosts = await stack.hosts(fail="define:*:Unreachable")
    handle = await stack.start(stack.request(project, deadlines=HELD))
    await until(lambda: stack.is_waiting(handle, "UNREACHABLE"))
    await stack.enrol_with(hosts[0], fail="")
    async with asyncio.TaskGroup() as both:
        both.create_task(handle.cancel(reason="no longer"))
        with contextlib.suppress(WorkflowUpdateFailedError):
            await pull(handle, LeverKind.RETRY_NOW)
    last = await last_of(stack, handle)
    assert last.outcome in (Outcome.CANCELLED, Outcome.READY)
    if last.outcome is Outcome.CANCELLED:
        assert is_clean(stack, project)
