"""How runs end when something goes wrong at the worst moment: while an end is recorded, held, reset or waited for."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from temporalio.client import WorkflowFailureError, WorkflowHandle

from mulligan.activities import verify
from mulligan.activities.drivers.simulated import SimulatedDriver, journal
from mulligan.activities.events import EventKind, RunEvent
from mulligan.activities.inventory import By
from mulligan.activities.values import Deadlines, MachineState, OnFailure, Outcome, Resources, WhenNone
from mulligan.api.cancels import Cancels
from mulligan.api.releases import Releases
from mulligan.api.runs import Runs
from tests.workflows.stack import IMAGE, Stack, is_clean, until


@contextmanager
def database_locked(stack: Stack) -> Iterator[None]:
    """Nobody else can write for as long as the block runs."""
    connection = sqlite3.connect(stack.directory / "mulligan.sqlite", timeout=30)
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        connection.rollback()
        connection.close()


async def last_of(stack: Stack, handle: WorkflowHandle) -> RunEvent:
    """The run's last event."""
    with pytest.raises(WorkflowFailureError):
        await handle.result()
    return (await stack.story(handle))[-1]


async def is_pending(handle: WorkflowHandle, activity_id: str) -> bool:
    """Whether this action of the run is under way, or will be tried again."""
    pending = (await handle.describe()).raw_description.pending_activities
    return activity_id in [each.activity_id for each in pending]


async def test_a_cancel_while_the_hold_is_being_recorded_undoes_everything(stack: Stack) -> None:
    """The database is away just then; the cancel is neither lost nor taken for undo."""
    project, _ = await stack.hosts(personality="cloud-init-failed", hold="addresses:1:1")
    handle = await stack.start(stack.request(project, on_failure=OnFailure.HOLD))
    await until(lambda: stack.has_finished(handle, "boot"))
    with database_locked(stack):
        await until(lambda: is_pending(handle, "1/record/held"))
        await handle.cancel()
    assert (await last_of(stack, handle)).outcome is Outcome.CANCELLED
    assert is_clean(stack, project)
    assert stack.inventory.machine(project, "m").state is MachineState.FAILED


async def test_a_held_machine_needs_no_lease(stack: Stack) -> None:
    """It may be looked at for weeks: its claim is permanent, and the run's history does not grow."""
    project, _ = await stack.hosts(personality="cloud-init-failed")
    handle = await stack.start(stack.request(project, on_failure=OnFailure.HOLD), lease_seconds=3)
    await until(lambda: stack.machine_is(project, "m", MachineState.HELD))
    claim = stack.inventory.claim_by_id(stack.inventory.machine(project, "m").claim_id)
    assert claim.state == "permanent"
    assert project not in str(await stack.reaper.look())
    await handle.cancel()
    assert (await last_of(stack, handle)).outcome is Outcome.CANCELLED
    assert is_clean(stack, project)


async def test_there_is_nothing_to_hold_without_a_claim(stack: Stack) -> None:
    """A run that found no host ends, whatever it was asked to do on failure."""
    project, _ = await stack.hosts()
    asked = stack.request(project, resources=Resources(9999, 512, 2), on_failure=OnFailure.HOLD)
    assert (await last_of(stack, await stack.start(asked))).reason == "NEVER_FITS"


async def test_a_wait_for_room_that_is_over_ends_with_why_there_is_none(stack: Stack) -> None:
    """Not with the deadline that passed: the reason is NOT_NOW, and the explanation is there."""
    project, _ = await stack.hosts(vcpu="4")
    whole = Resources(stack.inventory.provider(f"{project}-h0").inventory[0].capacity, 512, 2)
    await (await stack.start(stack.request(project, "first", resources=whole))).result()
    deadlines = Deadlines(claim_seconds=2, undo_seconds=8)
    handle = await stack.start(
        stack.request(project, "second", resources=whole, when_none=WhenNone.WAIT, deadlines=deadlines)
    )
    last = await last_of(stack, handle)
    assert last.reason == "NOT_NOW"
    assert last.message.startswith("waited 2 s for room, and there is none: ")
    failed = [e for e in await stack.story(handle) if e.kind is EventKind.ACTION_FAILED and e.explanation]
    assert failed[-1].explanation["verdict"] == "not-now"


async def test_resetting_the_run_of_a_machine_in_service_does_not_touch_it(stack: Stack) -> None:
    """`temporal workflow reset` to the first task: the new execution is refused, the machine stays its user's."""
    project, _ = await stack.hosts()
    handle = await stack.start(stack.request(project))
    await handle.result()
    before = len(journal(stack.site.drivers_dir, project))
    address = stack.client.service_client.config.target_host
    temporal = Path(sys.executable).with_name("temporal")
    words = ("workflow", "reset", "--workflow-id", handle.id, "--type", "FirstWorkflowTask", "--reason", "a test")
    reset = await asyncio.create_subprocess_exec(temporal, *words, "--address", address)
    assert await reset.wait() == 0
    again = stack.client.get_workflow_handle(handle.id)
    with pytest.raises(WorkflowFailureError):
        await again.result()
    machine = stack.inventory.machine(project, "m")
    assert machine.state is MachineState.READY
    assert stack.inventory.claim_by_id(machine.claim_id).state == "permanent"
    assert len(journal(stack.site.drivers_dir, project)) == before


async def test_a_claim_that_was_given_back_after_all_is_not_quarantined(stack: Stack) -> None:
    """The undo's answer was lost: the run still ends, recorded as what it was."""
    project, _ = await stack.hosts(
        personality="cloud-init-failed", hold="power_off:1:1", fail_after="power_off:*:AccessDenied"
    )
    handle = await stack.start(stack.request(project, deadlines=Deadlines(undo_seconds=5)))

    async def undoing() -> bool:
        return any(e.verb == "power_off" and e.outcome == "BEGUN" for e in journal(stack.site.drivers_dir, project))

    await until(undoing)
    stack.inventory.release_claim(stack.inventory.machine(project, "m").claim_id)
    assert (await last_of(stack, handle)).outcome is Outcome.FAILED
    assert stack.inventory.machine(project, "m").state is MachineState.FAILED
    assert stack.inventory.run(handle.id).outcome is Outcome.FAILED


async def test_the_only_host_is_held_although_a_mulligan_was_allowed(stack: Stack) -> None:
    """There is no other host to try, so the failed try is the last, and is kept for inspection."""
    project, _ = await stack.hosts(personality="no-call-home")
    deadlines = Deadlines(verify_seconds=3, undo_seconds=8)
    handle = await stack.start(stack.request(project, mulligans=1, on_failure=OnFailure.HOLD, deadlines=deadlines))
    await until(lambda: stack.machine_is(project, "m", MachineState.HELD))
    assert not is_clean(stack, project)
    await handle.cancel()
    await last_of(stack, handle)
    assert is_clean(stack, project)


async def test_a_deadline_says_what_the_last_attempt_failed_with(stack: Stack) -> None:
    """Not only that time is up."""
    project, _ = await stack.hosts(fail="define:*:Unreachable")
    own = replace(IMAGE, digest="sha256:" + "2" * 64)  # or it might be to blame, for what failed in other tests
    asked = stack.request(project, deadlines=Deadlines(boot_seconds=3, undo_seconds=8))
    last = await last_of(stack, await stack.start(asked, image=own))
    assert last.reason == "DEADLINE_PASSED"
    assert "; last: " in last.message
    assert "define" in last.message
    assert stack.inventory.provider(f"{project}-h0").suspect_count == 1


async def test_an_image_whose_source_is_away_is_not_the_hosts_fault(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The host is not suspected, no other one is tried, and the source's own error is told."""
    monkeypatch.setattr(SimulatedDriver, "moves_bytes", True)
    project, hosts = await stack.hosts(2)
    image = replace(IMAGE, source="http://127.0.0.1:1/image.raw", digest="sha256:" + "1" * 64)
    deadlines = Deadlines(image_seconds=3, undo_seconds=8)
    handle = await stack.start(stack.request(project, mulligans=1, deadlines=deadlines), image=image)
    last = await last_of(stack, handle)
    assert "127.0.0.1:1" in last.message
    assert [stack.inventory.provider(host.name).suspect_count for host in hosts] == [0, 0]
    assert max(e.try_number for e in await stack.story(handle)) == 1


async def test_a_cancel_that_an_activity_swallows_is_found_all_the_same(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The activity finishes just as it is cancelled, and what comes next in its step is a wait: it must not begin."""
    look = verify._until

    async def swallowing(*words: Any) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await look(*words)

    monkeypatch.setattr(verify, "_until", swallowing)
    project, _ = await stack.hosts(personality="boots-then-silent")
    handle = await stack.start(stack.request(project))
    await until(lambda: is_pending(handle, "1/verify/observe"))
    await handle.cancel()
    assert (await last_of(stack, handle)).outcome is Outcome.CANCELLED
    assert is_clean(stack, project)


async def test_a_release_that_comes_after_another_has_ended_says_that_it_is_gone(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two operators release at once, and the second one's request was made while the first one's run was at work."""
    project, _ = await stack.hosts()
    await (await stack.start(stack.request(project))).result()
    known = Runs(stack.client, stack.inventory)
    releases, second = (Releases(stack.client, stack.inventory, known, Cancels(known)) for _ in range(2))
    asked, reached, go = second._asked, asyncio.Event(), asyncio.Event()

    async def slowly(*about: Any) -> Any:
        found = await asked(*about)
        reached.set()
        await go.wait()
        return found

    monkeypatch.setattr(second, "_asked", slowly)
    late = asyncio.create_task(second.start(project, "m", By("bob")))
    await reached.wait()
    first = await releases.start(project, "m", By("alice"))
    await stack.client.get_workflow_handle(first.workflow_id, run_id=first.run_id).result()
    go.set()
    begun = await late
    handle = stack.client.get_workflow_handle(begun.workflow_id, run_id=begun.run_id)
    assert (await handle.result())["said"] == "m was gone already"
    assert (await stack.story(handle))[-1].outcome is Outcome.RELEASED
    assert is_clean(stack, project)
