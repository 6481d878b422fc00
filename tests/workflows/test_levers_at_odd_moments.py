"""Levers and cancels at moments that are hard to hit: just as a step fails, while a decision is recorded, while a
resumed run undoes. What was accepted has its effect; what can have none is refused.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from temporalio import activity
from temporalio.api.enums.v1 import EventType
from temporalio.client import WorkflowHandle

from mulligan.activities import calls
from mulligan.activities.errors import Conflict
from mulligan.activities.events import EventKind
from mulligan.activities.levers import LeverKind
from mulligan.activities.values import MachineState, OnFailure, Outcome, VerifyLevel
from mulligan.api.levers import times_held
from tests.workflows.stack import Stack, is_clean, until
from tests.workflows.stalls import ended_or_held, knows_of_its_cancel, started
from tests.workflows.steer import HELD, begun, held, last_of, offered, pull, refused, verbs


async def held_by_its_failure(stack: Stack, hosts: int, **values: Any) -> tuple[str, WorkflowHandle[Any, Any]]:
    """A run that is held because its hosts refuse; the hosts are mended since."""
    project, targets = await stack.hosts(hosts, fail="define:*:Unsupported")
    handle = await stack.start(stack.request(project, on_failure=OnFailure.HOLD, deadlines=HELD, **values))
    await held(stack, project)
    for target in targets:
        await stack.enrol_with(target, fail="")
    return project, handle


async def test_an_abort_while_it_is_looked_for_another_host_is_an_abort(stack: Stack, stall: Any) -> None:
    """The step has failed, what comes of it is not decided yet: no other host is tried, and nothing is held."""
    project, _ = await stack.hosts(2, fail="define:*:Unsupported")
    looking = stall("explain")
    request = stack.request(project, mulligans=1, on_failure=OnFailure.HOLD, deadlines=HELD)
    handle = await stack.start(request)
    await looking.begun()
    await pull(handle, LeverKind.ABORT, "wrong image")
    looking.go.set()
    await until(lambda: ended_or_held(stack, project, handle))
    last = await last_of(stack, handle)
    assert (last.outcome, last.reason) == (Outcome.FAILED, "ABORTED")
    assert await started(stack, handle, "claim") == 1
    assert is_clean(stack, project)


async def test_an_abort_wins_over_a_mulligan_that_was_decided_just_before(stack: Stack, stall: Any) -> None:
    """Both were acknowledged; the run stops trying. Whoever wants another host after that is told so."""
    project, handle = await held_by_its_failure(stack, 1)
    await stack.another_host(project)
    recording = stall("lease_again")
    await pull(handle, LeverKind.MULLIGAN)
    await recording.begun()
    assert "decided before" in await refused(handle, LeverKind.RESUME)
    await pull(handle, LeverKind.ABORT, "no use")
    assert "decided before" in await refused(handle, LeverKind.MULLIGAN)
    recording.go.set()
    last = await last_of(stack, handle)
    assert (last.outcome, last.reason) == (Outcome.FAILED, "ABORTED")
    assert is_clean(stack, project)


async def test_a_resume_of_one_hold_is_not_taken_for_the_next(stack: Stack) -> None:
    """Two operators resume what they see held; the first one's boot has failed again when the second one comes."""
    project, _ = await stack.hosts(fail="define:*:Unsupported")
    handle = await stack.start(stack.request(project, on_failure=OnFailure.HOLD, deadlines=HELD))
    await held(stack, project)
    seen = times_held(await stack.story_so_far(handle))
    await pull(handle, LeverKind.RESUME, holds=seen)
    await until(lambda: is_held_times(stack, handle, 2))
    said = await refused(handle, LeverKind.RESUME, holds=seen)
    assert "it went on meanwhile, and is held anew" in said
    assert offered(said)[0] == f"mulligan run show {handle.id}"
    assert await started(stack, handle, "boot") == await started(stack, handle, "held") == 2
    assert "goes on" in await pull(handle, LeverKind.RESUME, holds=times_held(await stack.story_so_far(handle)))
    await until(lambda: is_held_times(stack, handle, 3))
    await handle.cancel()
    assert (await last_of(stack, handle)).outcome is Outcome.CANCELLED


async def is_held_times(stack: Stack, handle: WorkflowHandle[Any, Any], times: int) -> bool:
    """Whether it is held for so many times by now."""
    kinds = [each.kind for each in await stack.story_so_far(handle)]
    return kinds.count(EventKind.HELD) == times


async def test_a_cancel_while_a_resumed_run_undoes_begins_nothing_more(stack: Stack) -> None:
    """The undo is done, the step is not begun again."""
    project, hosts = await stack.hosts(personality="cloud-init-failed", hold="power_off:1:2")
    handle = await stack.start(stack.request(project, on_failure=OnFailure.HOLD, deadlines=HELD))
    await held(stack, project)
    await stack.enrol_with(hosts[0], personality="")
    await pull(handle, LeverKind.RESUME, step="boot")
    await begun(stack, project, "power_off")
    await handle.cancel()
    assert (await last_of(stack, handle)).outcome is Outcome.CANCELLED
    assert await started(stack, handle, "boot") == 1
    assert is_clean(stack, project)


async def test_an_abort_while_a_resumed_run_undoes_is_an_abort(stack: Stack) -> None:
    """Also when that undo is done in time."""
    project, hosts = await stack.hosts(personality="cloud-init-failed", hold="power_off:1:2")
    handle = await stack.start(stack.request(project, on_failure=OnFailure.HOLD, deadlines=HELD))
    await held(stack, project)
    await stack.enrol_with(hosts[0], personality="")
    await pull(handle, LeverKind.RESUME, step="boot")
    await begun(stack, project, "power_off")
    await pull(handle, LeverKind.ABORT, "no use")
    last = await last_of(stack, handle)
    assert (last.outcome, last.reason) == (Outcome.FAILED, "ABORTED")
    assert await started(stack, handle, "boot") == 1
    assert is_clean(stack, project)


async def test_an_abort_while_a_mulligan_undoes_tries_no_other_host(stack: Stack) -> None:
    """The first host is left clean."""
    project, _ = await stack.hosts(2, personality="no-call-home", hold="power_off:1:2")
    handle = await stack.start(stack.request(project, deadlines=HELD))
    await begun(stack, project, "power_on")
    await pull(handle, LeverKind.MULLIGAN)
    await begun(stack, project, "power_off")
    await pull(handle, LeverKind.ABORT, "no use")
    last = await last_of(stack, handle)
    assert (last.outcome, last.reason) == (Outcome.FAILED, "ABORTED")
    assert await started(stack, handle, "claim") == 1
    assert is_clean(stack, project)


async def test_a_cancel_wins_over_an_abort_that_came_just_before(stack: Stack, stall: Any) -> None:
    """Both are taken up, everything is undone once, and the run ends cancelled."""
    project, _ = await stack.hosts(2, fail="define:*:Unsupported")
    looking = stall("explain")
    handle = await stack.start(stack.request(project, mulligans=1, on_failure=OnFailure.HOLD, deadlines=HELD))
    await looking.begun()
    await pull(handle, LeverKind.ABORT, "wrong image")
    await handle.cancel()
    looking.go.set()
    assert (await last_of(stack, handle)).outcome is Outcome.CANCELLED
    assert await started(stack, handle, "release-claim") == 1
    assert is_clean(stack, project)


async def test_levers_between_a_cancel_and_its_undo_are_refused(stack: Stack, stall: Any) -> None:
    """What is under way is being stopped, and will be undone: an abort has nothing to add, the others come too late."""
    project, _ = await stack.hosts(2, fail="define:*:Unsupported")
    looking = stall("explain")
    handle = await stack.start(stack.request(project, mulligans=1, on_failure=OnFailure.HOLD, deadlines=HELD))
    await looking.begun()
    await handle.cancel()
    await until(lambda: knows_of_its_cancel(handle))
    for lever in (LeverKind.ABORT, LeverKind.HOLD, LeverKind.EXTEND, LeverKind.MULLIGAN, LeverKind.RESUME):
        said = await refused(handle, lever, seconds=5)
        assert "it is being cancelled, and what was made will be undone" in said
        assert offered(said) == [f"mulligan run watch {handle.id}"]
    looking.go.set()
    assert (await last_of(stack, handle)).outcome is Outcome.CANCELLED
    assert await started(stack, handle, "release-claim") == 1
    assert is_clean(stack, project)


async def test_an_extension_at_the_moment_of_the_deadline_is_kept(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The deadline has passed, and the run asks just then why: whoever is told that there is more time gets it."""
    asked, go = asyncio.Event(), asyncio.Event()
    describe = WorkflowHandle.describe

    async def slowly(handle: WorkflowHandle[Any, Any], **values: Any) -> Any:
        if activity.in_activity() and activity.info().activity_type == calls.WHY.name:
            asked.set()
            await go.wait()
        return await describe(handle, **values)

    monkeypatch.setattr(WorkflowHandle, "describe", slowly)
    project, _ = await stack.hosts(hold="power_on:1:4")
    handle = await stack.start(stack.request(project, deadlines=replace(HELD, boot_seconds=1)))
    try:
        await asyncio.wait_for(asked.wait(), 30)
        assert "boot has until" in await pull(handle, LeverKind.EXTEND, seconds=600)
    finally:
        go.set()
    assert (await last_of(stack, handle)).outcome is Outcome.READY
    assert EventKind.DEADLINE_PASSED in [e.kind for e in await stack.story(handle)]


async def test_a_resume_whose_claim_was_given_back_meanwhile_fails_and_is_not_called_cancelled(
    stack: Stack, stall: Any
) -> None:
    """Its undo could not be done by the run, and was done by someone else: nothing is left to quarantine."""
    project, _ = await stack.hosts(fail="power_off:*:AccessDenied")
    handle = await stack.start(stack.request(project, deadlines=HELD))
    await pull(handle, LeverKind.HOLD, step="verify")
    await held(stack, project)
    quarantining = stall("quarantine_claim")
    await pull(handle, LeverKind.RESUME, step="boot")
    await quarantining.begun()
    stack.inventory.release_claim(stack.inventory.machine(project, "m").claim_id)
    quarantining.go.set()
    last = await last_of(stack, handle)
    assert (last.outcome, last.reason) == (Outcome.FAILED, "ACCESS_DENIED")
    assert stack.inventory.machine(project, "m").state is MachineState.FAILED


async def test_a_lease_that_is_extended_just_as_the_run_is_held_is_the_last_one(stack: Stack, stall: Any) -> None:
    """A held run's history does not grow, and it is not taken for one that lost its claim when it is resumed."""
    project, _ = await stack.hosts(hold="define:1:1")
    extending = stall("extend_lease")
    handle = await stack.start(stack.request(project, deadlines=HELD), lease_seconds=3)
    await begun(stack, project, "define")
    await pull(handle, LeverKind.HOLD, step="verify")
    await extending.begun()
    await held(stack, project)
    extending.go.set()
    lease = "/record/lease"

    async def extended() -> list[str]:
        names: dict[int, str] = {}
        told = []
        for event in (await handle.fetch_history()).events:
            if event.event_type == EventType.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED:
                names[event.event_id] = event.activity_task_scheduled_event_attributes.activity_id
            elif event.event_type == EventType.EVENT_TYPE_ACTIVITY_TASK_COMPLETED:
                told.append(names[event.activity_task_completed_event_attributes.scheduled_event_id])
            elif event.event_type == EventType.EVENT_TYPE_TIMER_STARTED:
                told.append("timer")
            elif event.event_type == EventType.EVENT_TYPE_WORKFLOW_TASK_COMPLETED:
                told.append("told")
        return told

    async def seen() -> bool:
        told = await extended()
        return any(lease in each for each in told) and told[-1] != f"1{lease}"

    await until(seen)
    told = await extended()
    assert "timer" not in told[told.index(f"1{lease}") :]
    await pull(handle, LeverKind.RESUME)
    assert (await last_of(stack, handle)).outcome is Outcome.READY


async def test_a_guest_that_is_booted_again_calls_home_again(stack: Stack) -> None:
    """Its disk is made anew: a guest calls home once, and evidence is never older than the boot that it proves."""
    project, _ = await stack.hosts()
    handle = await stack.start(stack.request(project, deadlines=HELD, verify=VerifyLevel.GUEST))
    await pull(handle, LeverKind.HOLD, step="verify")
    await held(stack, project)

    async def called() -> bool:
        return any(e.kind is EventKind.CALLED_HOME for e in await stack.story_so_far(handle))

    await until(called)
    resumed_at = datetime.now(UTC)
    assert "goes on with image" in await pull(handle, LeverKind.RESUME, step="boot")
    assert (await last_of(stack, handle)).outcome is Outcome.READY
    guest = [e for e in stack.inventory.machine(project, "m").evidence if e.level is VerifyLevel.GUEST]
    assert [e.at > resumed_at for e in guest] == [True]
    assert verbs(stack, project, "create_disks") == 2


async def test_a_guest_whose_set_up_failed_is_booted_again(stack: Stack) -> None:
    """What it said of its first boot says nothing of the second."""
    project, hosts = await stack.hosts(personality="cloud-init-failed")
    handle = await stack.start(stack.request(project, on_failure=OnFailure.HOLD, deadlines=HELD))
    await held(stack, project)
    await stack.enrol_with(hosts[0], personality="")
    await pull(handle, LeverKind.RESUME, step="boot")
    await until(lambda: ended_and_was_held_once(stack, handle))
    assert (await last_of(stack, handle)).outcome is Outcome.READY


async def ended_and_was_held_once(stack: Stack, handle: WorkflowHandle[Any, Any]) -> bool:
    """Whether it has ended; held again is a failure."""
    kinds = [e.kind for e in await stack.story_so_far(handle)]
    assert kinds.count(EventKind.HELD) == 1, "held again by what the first boot said"
    return (await handle.describe()).close_time is not None


async def test_what_was_asked_of_a_held_run_long_ago_does_not_touch_a_machine_in_service(stack: Stack) -> None:
    """A worker that was frozen in the middle of it wakes up when the machine is its user's."""
    project, _ = await stack.hosts()
    await (await stack.start(stack.request(project))).result()
    machine = stack.inventory.machine(project, "m")
    with pytest.raises(Conflict):
        stack.inventory.lease_again(machine.claim_id, 1)
    for state in (MachineState.HELD, MachineState.PROVISIONING):
        with pytest.raises(Conflict):
            stack.inventory.update_machine(machine.id, state=state)
    assert stack.inventory.machine(project, "m").state is MachineState.READY
    assert stack.inventory.claim_by_id(machine.claim_id).state == "permanent"
