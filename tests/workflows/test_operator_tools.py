"""Temporal's own tools as operators use them: lists by search attributes, and actions paused, unpaused and reset."""

from __future__ import annotations

import asyncio
import json
from functools import partial
from typing import Any

import pytest
from temporalio.api.enums.v1 import PendingActivityState
from temporalio.client import WorkflowFailureError, WorkflowHandle

from mulligan.activities.drivers.simulated import journal
from mulligan.activities.events import EventKind
from mulligan.activities.history import STILL_AWAITED
from mulligan.activities.levers import LeverKind
from mulligan.activities.values import Deadlines, MachineState, Outcome
from mulligan.api.processes.temporal_dev import temporal_program
from mulligan.api.progress import progress_of
from mulligan.api.run_views import view_of_execution
from tests.workflows.behind import called
from tests.workflows.stack import Stack, is_clean, until
from tests.workflows.steer import pull

SLOW = "power_on:1:60"
"""The first call takes longer than any test: whatever goes on does so because the action was begun anew."""


async def temporal(stack: Stack, *words: str) -> str:
    """Run the program `temporal`, which must succeed; its standard output."""
    where = ("--address", stack.client.service_client.config.target_host)
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(temporal_program(), *words, *where, stdout=pipe, stderr=pipe)
    said, wrong = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 0, wrong.decode()
    return said.decode()


async def on_boot(stack: Stack, verb: str, handle: WorkflowHandle[Any, Any]) -> None:
    """Run `temporal activity VERB` on the action that switches the machine on."""
    await temporal(stack, "activity", verb, "--workflow-id", handle.id, "--activity-id", "1/boot/boot")


async def listed(stack: Stack, query: str) -> list[str]:
    """The ids of the runs that `temporal workflow list --query` finds."""
    found = json.loads(await temporal(stack, "workflow", "list", "--query", query, "--output", "json"))
    return sorted(each["execution"]["workflowId"] for each in found)


async def booting(stack: Stack, **values: Any) -> tuple[str, WorkflowHandle[Any, Any]]:
    """A run whose machine is being switched on, by a call that would take a minute."""
    project, _ = await stack.hosts(hold=SLOW)
    handle = await stack.start(stack.request(project, **values))
    await until(lambda: has_begun(stack, project, "power_on"))
    return project, handle


async def has_begun(stack: Stack, project: str, verb: str) -> bool:
    """Whether a host of the project has been asked for it."""
    return any(entry.verb == verb for entry in journal(stack.site.drivers_dir, project))


async def is_paused(handle: WorkflowHandle[Any, Any]) -> bool:
    """Whether its one action is paused, and no attempt of it is under way any longer."""
    pending = (await handle.describe()).raw_description.pending_activities
    return [each.state for each in pending] == [PendingActivityState.PENDING_ACTIVITY_STATE_PAUSED]


async def test_runs_are_found_by_what_they_are_about(stack: Stack) -> None:
    """By project, machine, partition, provider, step, outcome and image, from start to end."""
    project, handle = await booting(stack)
    mine = f"MulliganProject = '{project}'"
    for query in (
        "MulliganMachine = 'm' AND MulliganPartition = 'default'",
        f"MulliganProvider = '{project}-h0' AND MulliganImage = 'demo'",
        "MulliganStep = 'boot' AND MulliganOutcome IS NULL AND ExecutionStatus = 'Running'",
    ):
        await until(partial(finds, stack, f"{mine} AND {query}", handle.id))
    await handle.cancel()
    with pytest.raises(WorkflowFailureError):
        await handle.result()
    await until(lambda: finds(stack, f"{mine} AND MulliganOutcome = 'cancelled'", handle.id))
    assert await listed(stack, f"{mine} AND MulliganOutcome IS NULL") == []


async def finds(stack: Stack, query: str, workflow_id: str) -> bool:
    """Whether the query finds just this run."""
    return await listed(stack, query) == [workflow_id]


async def test_a_terminated_run_is_nowhere_called_open(stack: Stack) -> None:
    """Nobody can change the attributes of a run that is over: so it never had an outcome that is not so."""
    project, handle = await booting(stack)
    await handle.terminate("by a test")
    mine = f"MulliganProject = '{project}'"
    await until(lambda: finds(stack, f"{mine} AND ExecutionStatus = 'Terminated'", handle.id))
    assert await listed(stack, f"{mine} AND MulliganOutcome = 'open'") == []
    (run,) = [each async for each in stack.client.list_workflows(mine)]
    assert (await view_of_execution(run)).outcome is Outcome.TERMINATED


async def test_a_runs_page_says_what_it_awaits_and_what_can_be_done(stack: Stack) -> None:
    """As Markdown, for the Web UI; every lever says what it does. When the run has ended it says how."""
    _, handle = await booting(stack)
    page = await temporal(stack, "workflow", "metadata", "--workflow-id", handle.id)
    assert "| `image` | done |" in page
    assert "| `boot` | under way |" in page
    assert "Awaiting: switching on, until 20" in page
    assert "1. Switch off and remove the machine" in page
    assert "Levers: `extend`, `retry-now`, `hold`, `mulligan`, `abort`; or cancel it." in page
    described = dict(line.split(None, 1) for line in page.splitlines() if len(line.split(None, 1)) == 2)
    assert all(described[lever].strip()[0].isupper() for lever in LeverKind)
    await handle.cancel(reason="enough")
    with pytest.raises(WorkflowFailureError):
        await handle.result()
    page = await temporal(stack, "workflow", "metadata", "--workflow-id", handle.id)
    assert f"cancelled on **{stack.inventory.machine(*handle.id.split(':')[1:]).provider}**" in page
    assert "enough" in page
    assert "Levers:" not in page


async def test_the_page_of_a_run_that_may_use_one_provider_only_names_no_mulligan(stack: Stack) -> None:
    """Asked for, it would be refused."""
    project, hosts = await stack.hosts(hold=SLOW)
    handle = await stack.start(stack.request(project, provider=hosts[0].name))
    await until(lambda: has_begun(stack, project, "power_on"))
    page = await temporal(stack, "workflow", "metadata", "--workflow-id", handle.id)
    assert "Levers: `extend`, `retry-now`, `hold`, `abort`; or cancel it." in page
    await handle.cancel()
    with pytest.raises(WorkflowFailureError):
        await handle.result()


async def test_an_action_that_is_paused_stops_and_goes_on_when_it_is_unpaused(stack: Stack) -> None:
    """The attempt under way ends at its next heartbeat; unpausing begins another one at once."""
    project, handle = await booting(stack)
    await on_boot(stack, "pause", handle)
    await until(lambda: is_paused(handle))
    await on_boot(stack, "unpause", handle)
    await handle.result()
    assert stack.inventory.machine(project, "m").state is MachineState.READY


async def test_a_paused_action_says_so_and_can_be_tried_again_now(stack: Stack) -> None:
    """Who steers the run sees that nothing is tried, and who stopped it; the lever for it goes on, and counts on."""
    project, handle = await booting(stack)
    await temporal(
        stack, "activity", "pause", "--workflow-id", handle.id, "--activity-id", "1/boot/boot", "--identity", "ada"
    )
    await until(lambda: is_paused(handle))
    (progress,) = progress_of(await handle.describe())
    assert progress.message.startswith("paused by ada")
    assert "nothing is tried until it is unpaused" in progress.message
    assert "boot/boot (attempt 2, was paused)" in await pull(handle, LeverKind.RETRY_NOW)
    await handle.result()
    assert stack.inventory.machine(project, "m").state is MachineState.READY
    boot = [e for e in await stack.story(handle) if e.action == "boot" and e.kind is EventKind.ACTION_FINISHED]
    assert [e.attempts for e in boot] == [2]


async def test_a_guest_is_awaited_also_while_the_looks_at_its_machine_are_paused(stack: Stack) -> None:
    """Who steers the run sees what is awaited; the lever looks again, and a call home ends the wait without one."""
    project, _ = await stack.hosts(personality="no-call-home")
    handle = await stack.start(stack.request(project, deadlines=Deadlines(verify_seconds=120)))
    await until(lambda: stack.is_waiting(handle, STILL_AWAITED))
    look = ("--workflow-id", handle.id, "--activity-id", "1/verify/watch-guest")
    await temporal(stack, "activity", "pause", *look, "--identity", "ada")
    await until(lambda: is_paused(handle))
    (progress,) = progress_of(await handle.describe())
    assert progress.message.startswith("awaits the guest's call home; its power is on;")
    assert "looks at its machine are paused by ada in Temporal: none is made until" in progress.message
    assert progress.suggestions[0] == f"mulligan run retry-now {handle.id}"
    assert "verify/watch-guest" in await pull(handle, LeverKind.RETRY_NOW)
    await temporal(stack, "activity", "pause", *look)
    await until(lambda: is_paused(handle))
    await called(handle, stack, project)
    assert (await handle.result()).evidence[-1].source == "call-home"


async def test_an_action_that_is_reset_begins_anew(stack: Stack) -> None:
    """Also one whose attempt hangs; nothing is made twice."""
    project, handle = await booting(stack)
    await on_boot(stack, "reset", handle)
    await handle.result()
    assert stack.inventory.machine(project, "m").state is MachineState.READY


async def test_a_run_with_a_paused_action_can_be_cancelled(stack: Stack) -> None:
    """Everything is undone all the same."""
    project, handle = await booting(stack)
    await on_boot(stack, "pause", handle)
    await until(lambda: is_paused(handle))
    await handle.cancel()
    with pytest.raises(WorkflowFailureError):
        await handle.result()
    assert stack.inventory.run(handle.id).outcome is Outcome.CANCELLED
    assert is_clean(stack, project)


async def test_a_paused_action_does_not_outlive_its_deadline(stack: Stack) -> None:
    """Somebody paused it and went home: the step's deadline ends it, and everything is undone."""
    project, handle = await booting(stack, deadlines=Deadlines(boot_seconds=6, undo_seconds=8))
    await on_boot(stack, "pause", handle)
    with pytest.raises(WorkflowFailureError):
        await handle.result()
    assert "boot was not done within 6 s" in stack.inventory.run(handle.id).reason
    assert is_clean(stack, project)
