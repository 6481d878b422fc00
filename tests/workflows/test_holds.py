"""Runs that are held: before a step or after a failure, until somebody resumes them, gives up or changes his mind."""

from __future__ import annotations

import pytest
from temporalio.api.sdk.v1 import WorkflowMetadata

from mulligan.activities.events import EventKind
from mulligan.activities.holds import holds_ahead
from mulligan.activities.levers import HOLDABLE, LeverIn, LeverKind, Pulled
from mulligan.activities.values import OnFailure, Outcome
from mulligan.api.suggestions import for_event
from tests.workflows.stack import Stack, is_clean, until
from tests.workflows.steer import HELD, begun, held, last_of, offered, pull, refused, verbs, was_held


@pytest.mark.parametrize("step", HOLDABLE)
async def test_a_run_is_held_before_a_step_and_resumed(stack: Stack, step: str) -> None:
    """The machine is kept as it is, without a lease; resumed, the run goes on to its end."""
    project, _ = await stack.hosts(hold="create_disks:1:1")
    handle = await stack.start(stack.request(project, deadlines=HELD), lease_seconds=6)
    if step != "image":
        await begun(stack, project, "create_disks")
    await pull(handle, LeverKind.HOLD, step=step)
    await held(stack, project)
    claim = stack.inventory.claim_by_id(stack.inventory.machine(project, "m").claim_id)
    assert claim.state == "permanent"
    begun_steps = [e.step for e in await stack.story_so_far(handle) if e.kind is EventKind.ACTION_STARTED]
    assert step not in begun_steps
    assert step in await pull(handle, LeverKind.RESUME)
    assert (await last_of(stack, handle)).outcome is Outcome.READY
    kinds = [e.kind for e in await stack.story(handle)]
    assert kinds.index(EventKind.HELD) < kinds.index(EventKind.RESUMED)


async def test_a_hold_without_a_step_is_before_the_next_one(stack: Stack) -> None:
    """So nobody has to know where the run is."""
    project, _ = await stack.hosts(hold="define:1:1")
    handle = await stack.start(stack.request(project))
    await begun(stack, project, "define")
    assert "before verify" in await pull(handle, LeverKind.HOLD)
    await held(stack, project)
    await handle.cancel()
    assert (await last_of(stack, handle)).outcome is Outcome.CANCELLED
    assert is_clean(stack, project)


async def test_of_two_holds_both_are_kept(stack: Stack) -> None:
    """The later one does not take the place of the earlier one, whichever step comes first; both answers say so."""
    project, _ = await stack.hosts(hold="create_disks:1:3")
    handle = await stack.start(stack.request(project, deadlines=HELD))
    await begun(stack, project, "create_disks")
    assert await pull(handle, LeverKind.HOLD, "first", step="verify") == "it will be held before verify, by alice"
    bob = LeverIn(actor="bob", reason="its disks", step="boot")
    said = await handle.execute_update(LeverKind.HOLD.value, bob, result_type=Pulled)
    assert said.said == "it will be held before boot, by bob; and before verify, by alice"
    await held(stack, project)
    assert "held before boot by bob: its disks" in stack.inventory.machine(project, "m").reason
    assert await pull(handle, LeverKind.RESUME) == "it goes on with boot; it will be held before verify, by alice"
    await until(lambda: was_held(stack, handle, times=2))
    assert "held before verify by alice: first" in stack.inventory.machine(project, "m").reason
    await pull(handle, LeverKind.RESUME)
    assert (await last_of(stack, handle)).outcome is Outcome.READY


async def test_two_who_hold_before_the_same_step_are_both_named(stack: Stack) -> None:
    """It is held once, for both."""
    project, _ = await stack.hosts(hold="create_disks:1:3")
    handle = await stack.start(stack.request(project, deadlines=HELD))
    await begun(stack, project, "create_disks")
    await pull(handle, LeverKind.HOLD, "its disks")
    bob = LeverIn(actor="bob", step="boot")
    said = await handle.execute_update(LeverKind.HOLD.value, bob, result_type=Pulled)
    assert said.said == "it will be held before boot, by alice and bob"
    await held(stack, project)
    assert "held before boot by alice: its disks, and by bob" in stack.inventory.machine(project, "m").reason
    await pull(handle, LeverKind.RESUME)
    assert (await last_of(stack, handle)).outcome is Outcome.READY


async def test_a_hold_that_is_ahead_is_shown_and_taken_back(stack: Stack) -> None:
    """One of them, then all; where there is none that is refused, and so is one that was not asked for."""
    project, _ = await stack.hosts(hold="create_disks:1:3")
    handle = await stack.start(stack.request(project, deadlines=HELD))
    await begun(stack, project, "create_disks")
    assert "nothing to take back" in await refused(handle, LeverKind.HOLD, off=True)
    await pull(handle, LeverKind.HOLD, step="boot")
    said = await refused(handle, LeverKind.HOLD, step="verify", off=True)
    assert offered(said)[0] == f"mulligan run hold {handle.id} --off --before boot"
    await pull(handle, LeverKind.HOLD, step="verify")
    page = await handle.query("__temporal_workflow_metadata", result_type=WorkflowMetadata)
    assert "It will be held before boot, by alice; and before verify, by alice." in page.current_details
    assert [(each.step, each.actor) for each in holds_ahead(await stack.story_so_far(handle))] == [
        ("boot", "alice"),
        ("verify", "alice"),
    ]
    assert "before verify" in await pull(handle, LeverKind.HOLD, step="boot", off=True)
    assert [each.step for each in holds_ahead(await stack.story_so_far(handle))] == ["verify"]
    assert await pull(handle, LeverKind.HOLD, "not needed", off=True) == "it will not be held"
    assert holds_ahead(await stack.story_so_far(handle)) == ()
    assert (await last_of(stack, handle)).outcome is Outcome.READY
    assert EventKind.HELD not in [e.kind for e in await stack.story(handle)]


async def test_a_resume_that_was_decided_for_an_earlier_hold_is_refused(stack: Stack) -> None:
    """Whoever saw the first hold has not seen the second."""
    project, _ = await stack.hosts(hold="create_disks:1:3")
    handle = await stack.start(stack.request(project, deadlines=HELD))
    await begun(stack, project, "create_disks")
    for step in ("boot", "verify"):
        await pull(handle, LeverKind.HOLD, step=step)
    await held(stack, project)
    await pull(handle, LeverKind.RESUME, holds=1)
    await until(lambda: was_held(stack, handle, times=2))
    assert "held anew" in await refused(handle, LeverKind.RESUME, holds=1)
    told = [e for e in await stack.story_so_far(handle) if e.kind is EventKind.HELD]
    assert [e.times_held for e in told] == [1, 2]
    assert f"mulligan run resume {handle.id} --held 2" in for_event(told[-1], handle.id)
    await pull(handle, LeverKind.RESUME, holds=2)
    assert (await last_of(stack, handle)).outcome is Outcome.READY


async def test_a_failed_run_that_is_held_goes_on_with_the_step_that_failed(stack: Stack) -> None:
    """The host was mended: the step is done again, on the same claim, and the prepared image stays prepared."""
    project, hosts = await stack.hosts(fail="define:*:Unsupported")
    handle = await stack.start(stack.request(project, on_failure=OnFailure.HOLD, deadlines=HELD))
    await held(stack, project)
    claim = stack.inventory.machine(project, "m").claim_id
    await stack.enrol_with(hosts[0], fail="")
    images = verbs(stack, project, "place_base")
    await pull(handle, LeverKind.RESUME)
    assert (await last_of(stack, handle)).outcome is Outcome.READY
    assert stack.inventory.machine(project, "m").claim_id == claim
    assert verbs(stack, project, "place_base") == images


async def test_a_held_run_can_go_back_to_an_earlier_step(stack: Stack) -> None:
    """What the later steps made is undone first."""
    project, hosts = await stack.hosts(personality="cloud-init-failed")
    handle = await stack.start(stack.request(project, on_failure=OnFailure.HOLD, deadlines=HELD))
    await held(stack, project)
    await stack.enrol_with(hosts[0], personality="")
    assert "before verify" not in await pull(handle, LeverKind.RESUME, step="image")
    assert (await last_of(stack, handle)).outcome is Outcome.READY
    assert verbs(stack, project, "undefine") == 1
    assert verbs(stack, project, "create_disks") == 2
    undone = [e.action for e in await stack.story(handle) if e.step == "undo" and e.kind is EventKind.ACTION_FINISHED]
    assert undone == ["tear-down", "remove-disks"]


async def test_what_was_undone_more_than_once_is_told_once(stack: Stack) -> None:
    """A machine that was begun anew, with its disk as its guest had called home, and then cancelled."""
    project, _ = await stack.hosts(personality="cloud-init-failed")
    handle = await stack.start(stack.request(project, on_failure=OnFailure.HOLD, deadlines=HELD))
    await held(stack, project)
    await pull(handle, LeverKind.RESUME, step="boot")

    async def booted_again() -> bool:
        told = await stack.story_so_far(handle)
        return len([e for e in told if e.action == "boot" and e.kind is EventKind.ACTION_FINISHED]) == 2

    await until(booted_again)
    await handle.cancel()
    last = await last_of(stack, handle)
    assert last.outcome is Outcome.CANCELLED
    assert last.message.endswith("seen to be: tear-down (2 times), remove-disks (2 times), release-claim")


async def test_a_held_run_does_not_skip_a_step(stack: Stack) -> None:
    """A step that was not done cannot be left out."""
    project, _ = await stack.hosts(fail="define:*:Unsupported")
    handle = await stack.start(stack.request(project, on_failure=OnFailure.HOLD, deadlines=HELD))
    await held(stack, project)
    assert "held at boot" in await refused(handle, LeverKind.RESUME, step="verify")
    assert "it is held" in await refused(handle, LeverKind.RETRY_NOW)
    assert "cannot be extended" in await refused(handle, LeverKind.EXTEND, seconds=5)
    await pull(handle, LeverKind.ABORT, "no use")
    last = await last_of(stack, handle)
    assert (last.outcome, last.reason) == (Outcome.FAILED, "ABORTED")
    assert "aborted by alice: no use" in last.message
    assert is_clean(stack, project)
