"""Levers, wherever they can be pulled and wherever they are refused; runs that are held have `test_holds`."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest
from temporalio.client import WorkflowUpdateFailedError

from mulligan.activities.events import EventKind
from mulligan.activities.levers import LeverKind, Pulled
from mulligan.activities.values import Deadlines, MachineState, OnFailure, Outcome, VerifyLevel
from mulligan.api.progress import progress_of
from mulligan.workflows.steering import MOST_LEVERS
from tests.workflows.behind import called
from tests.workflows.stack import Stack, is_clean, until
from tests.workflows.steer import HELD, begun, held, last_of, offered, pull, refused


async def test_retry_now_ends_a_long_back_off(stack: Stack) -> None:
    """An attempt that waits for minutes begins at once, as what it is: the fourth; and the run goes on."""
    project, _ = await stack.hosts(fail="define:1:Unreachable,define:2:Unreachable,define:3:Unreachable")
    handle = await stack.start(stack.request(project, deadlines=Deadlines(undo_seconds=8)))

    async def backs_off() -> bool:
        pending = (await handle.describe()).raw_description.pending_activities
        return any(p.attempt == 4 and p.HasField("last_failure") for p in pending)

    await until(backs_off)
    assert "boot/boot (attempt 4)" in await pull(handle, LeverKind.RETRY_NOW, "the switch is back")
    assert (await last_of(stack, handle)).outcome is Outcome.READY
    boot = [e for e in await stack.story(handle) if e.action == "boot" and e.kind is EventKind.ACTION_FINISHED]
    assert [e.attempts for e in boot] == [4], "attempts are counted on"
    told = next(e for e in await stack.story(handle) if e.kind is EventKind.LEVER_PULLED)
    assert told.lever is not None
    assert (told.lever.kind, told.lever.actor, told.lever.reason) == ("retry-now", "alice", "the switch is back")


async def test_retry_now_says_when_nothing_waits(stack: Stack) -> None:
    """It is harmless."""
    project, _ = await stack.hosts(hold="define:1:2")
    handle = await stack.start(stack.request(project))
    await begun(stack, project, "define")
    assert "nothing waits" in await pull(handle, LeverKind.RETRY_NOW)
    assert (await last_of(stack, handle)).outcome is Outcome.READY


async def test_what_cannot_be_held_or_resumed_is_refused(stack: Stack) -> None:
    """With what could be done instead; the run goes on."""
    project, _ = await stack.hosts(hold="define:1:2")
    handle = await stack.start(stack.request(project))
    await begun(stack, project, "define")
    assert "image has begun" in await refused(handle, LeverKind.HOLD, step="image")
    assert "no step 'reboot'" in await refused(handle, LeverKind.HOLD, step="reboot")
    assert "cannot be resumed" in await refused(handle, LeverKind.RESUME)
    assert "seconds must be" in await refused(handle, LeverKind.EXTEND, seconds=0)
    assert (await last_of(stack, handle)).outcome is Outcome.READY


async def test_a_refusal_names_the_levers_that_are_possible_instead(stack: Stack) -> None:
    """As commands, the likeliest first; no mulligan for a run that may use this one provider only."""
    project, hosts = await stack.hosts(fail="define:*:Unsupported")
    asked = stack.request(project, provider=hosts[0].name, on_failure=OnFailure.HOLD, deadlines=HELD)
    handle = await stack.start(asked)
    await held(stack, project)
    run = f"mulligan run {{}} {handle.id}"
    instead = {
        LeverKind.RETRY_NOW: ["resume", "abort", "cancel"],
        LeverKind.EXTEND: ["resume", "abort", "cancel"],
        LeverKind.MULLIGAN: ["resume", "abort", "cancel"],
    }
    for lever, others in instead.items():
        said = await refused(handle, lever, seconds=5)
        assert offered(said) == [run.format(other) for other in others], said
    said = await refused(handle, LeverKind.RESUME, step="verify")
    assert offered(said)[0] == run.format("resume")
    await pull(handle, LeverKind.ABORT)
    assert (await last_of(stack, handle)).outcome is Outcome.FAILED


async def test_a_refusal_while_it_works_names_first_what_is_nearest(stack: Stack) -> None:
    """To hold before a step that has begun is refused, and the next step is offered."""
    project, hosts = await stack.hosts(hold="define:1:5")
    handle = await stack.start(stack.request(project, provider=hosts[0].name, deadlines=HELD))
    await begun(stack, project, "define")
    run = f"mulligan run {{}} {handle.id}"
    said = await refused(handle, LeverKind.HOLD, step="image")
    assert offered(said) == [
        f"{run.format('hold')} --before verify",
        f"{run.format('extend')} --by 10m",
        run.format("retry-now"),
        run.format("abort"),
        run.format("cancel"),
    ]
    assert (await last_of(stack, handle)).outcome is Outcome.READY


async def test_a_refusal_of_a_run_that_takes_down_offers_no_cancel(stack: Stack) -> None:
    """It goes on to its end: what is left to do is to watch it."""
    project, hosts = await stack.hosts()
    await (await stack.start(stack.request(project))).result()
    await stack.enrol_with(hosts[0], fail="power_off:*:Unreachable")
    release = await stack.release(project, "m")
    await until(lambda: stack.is_waiting(release, "UNREACHABLE"))
    first, second = await asyncio.gather(
        release.execute_update(LeverKind.ABORT.value, result_type=Pulled),
        release.execute_update(LeverKind.ABORT.value, result_type=Pulled),
        return_exceptions=True,
    )
    (said,) = [each for each in (first, second) if isinstance(each, WorkflowUpdateFailedError)]
    assert offered(str(said.cause)) == [f"mulligan run watch {release.id}", f"mulligan run retry-now {release.id}"]
    assert (await last_of(stack, release)).outcome is Outcome.QUARANTINED


async def test_a_deadline_that_is_extended_saves_the_run(stack: Stack) -> None:
    """The step goes on beyond what it was given."""
    project, _ = await stack.hosts(personality="no-call-home")
    deadlines = Deadlines(verify_seconds=8, undo_seconds=8, run_seconds=9)
    handle = await stack.start(stack.request(project, deadlines=deadlines))
    await until(lambda: stack.has_finished(handle, "observe"))
    assert "verify has until" in await pull(handle, LeverKind.EXTEND, seconds=600)

    async def is_slow() -> bool:
        story = await stack.story_so_far(handle)
        return any(e.kind is EventKind.SLOW for e in story)

    await until(is_slow)
    assert not any(e.kind is EventKind.DEADLINE_PASSED for e in await stack.story_so_far(handle))
    await handle.cancel()
    assert (await last_of(stack, handle)).outcome is Outcome.CANCELLED


async def test_a_look_goes_on_when_its_step_is_given_more_time(stack: Stack) -> None:
    """Also one that had given up when its own time was over."""
    project, hosts = await stack.hosts(personality="boots-then-silent")
    deadlines = Deadlines(verify_seconds=4, undo_seconds=8)
    handle = await stack.start(stack.request(project, verify=VerifyLevel.ADDRESS, deadlines=deadlines))
    await until(lambda: stack.has_finished(handle, "boot"))
    await pull(handle, LeverKind.EXTEND, seconds=120)

    async def looks_again() -> bool:
        story = await stack.story_so_far(handle)
        return len([e for e in story if e.action == "observe" and e.kind is EventKind.ACTION_STARTED]) == 2

    await until(looks_again)
    await stack.enrol_with(hosts[0], personality="")
    await handle.cancel()
    assert (await last_of(stack, handle)).outcome is Outcome.CANCELLED


async def test_the_runs_own_deadline_can_be_extended(stack: Stack) -> None:
    """It says until when."""
    project, _ = await stack.hosts(hold="define:1:2")
    handle = await stack.start(stack.request(project))
    await begun(stack, project, "define")
    assert "the run has until" in await pull(handle, LeverKind.EXTEND, seconds=600, whole_run=True)
    assert (await last_of(stack, handle)).outcome is Outcome.READY


async def test_a_mulligan_leaves_the_host_for_another(stack: Stack) -> None:
    """Also beyond the number that the request allows; the host that is left is not suspected."""
    project, hosts = await stack.hosts(2, hold="define:1:30")
    handle = await stack.start(stack.request(project, deadlines=HELD))
    await begun(stack, project, "define")
    first = stack.inventory.machine(project, "m").provider
    await stack.enrol_with(next(h for h in hosts if h.name != first), hold="")
    await pull(handle, LeverKind.MULLIGAN, "its fan is loud")
    assert (await last_of(stack, handle)).outcome is Outcome.READY
    machine = stack.inventory.machine(project, "m")
    assert machine.provider != first
    assert stack.inventory.provider(first).suspect_count == 0
    assert not any(row.used for row in stack.inventory.provider(first).inventory)


async def test_a_mulligan_without_another_host_is_refused(stack: Stack) -> None:
    """And the run goes on where it is."""
    project, _ = await stack.hosts(hold="define:1:2")
    handle = await stack.start(stack.request(project))
    await begun(stack, project, "define")
    assert "no other provider" in await refused(handle, LeverKind.MULLIGAN)
    assert (await last_of(stack, handle)).outcome is Outcome.READY
    told = [e for e in await stack.story(handle) if e.kind is EventKind.LEVER_REFUSED]
    assert len(told) == 1
    assert told[0].lever is not None


async def test_a_held_run_takes_a_mulligan(stack: Stack) -> None:
    """What was kept is undone, and the other host makes it."""
    project, hosts = await stack.hosts(2)
    for host in hosts:
        await stack.enrol_with(host, fail="define:*:Unsupported")
    handle = await stack.start(stack.request(project, mulligans=1, on_failure=OnFailure.HOLD, deadlines=HELD))
    await held(stack, project)
    assert "no other provider" in await refused(handle, LeverKind.MULLIGAN)
    third = await stack.another_host(project)
    await pull(handle, LeverKind.MULLIGAN)
    assert (await last_of(stack, handle)).outcome is Outcome.READY
    assert stack.inventory.machine(project, "m").provider == third.name


async def test_an_abort_fails_now_and_undoes(stack: Stack) -> None:
    """Without another try, although mulligans were allowed."""
    project, _ = await stack.hosts(2, hold="define:1:20")
    handle = await stack.start(stack.request(project, mulligans=3, deadlines=HELD))
    await begun(stack, project, "define")
    await pull(handle, LeverKind.ABORT, "wrong image")
    last = await last_of(stack, handle)
    assert (last.outcome, last.reason) == (Outcome.FAILED, "ABORTED")
    assert last.message == "aborted by alice: wrong image"
    assert is_clean(stack, project)


async def test_an_abort_of_an_undo_that_cannot_be_done_quarantines_now(stack: Stack) -> None:
    """Nobody waits for a quarter of an hour; a release mends it later."""
    project, hosts = await stack.hosts(personality="cloud-init-failed", fail="power_off:*:Unreachable")
    deadlines = Deadlines(undo_seconds=3600)
    handle = await stack.start(stack.request(project, deadlines=deadlines))
    await until(lambda: stack.is_waiting(handle, "UNREACHABLE"))
    assert "cannot be extended" in await refused(handle, LeverKind.EXTEND, seconds=5)
    (undo,) = [each for each in progress_of(await handle.describe()) if each.step == "undo"]
    assert undo.deadline is not None
    assert 3500 < (undo.deadline - datetime.now(UTC)).total_seconds() < 3600
    await pull(handle, LeverKind.ABORT, "the host burnt down")
    last = await last_of(stack, handle)
    assert last.outcome is Outcome.QUARANTINED
    assert hosts[0].name in [each.name for each in stack.inventory.suspects()]
    assert "the host burnt down" in last.message
    assert stack.inventory.machine(project, "m").state is MachineState.QUARANTINED
    await stack.enrol_with(hosts[0], personality="", fail="")
    await (await stack.release(project, "m")).result()
    assert is_clean(stack, project)


async def test_an_undo_that_is_given_up_before_it_failed_is_not_held_against_the_host(stack: Stack) -> None:
    """It was slow, and somebody impatient; what did fail is held against it, whoever gave up."""
    project, (host,) = await stack.hosts(personality="no-call-home", hold="power_off:1:60")
    handle = await stack.start(stack.request(project, deadlines=Deadlines(verify_seconds=600)))

    async def is_undoing() -> bool:
        return "undo" in [each.step for each in progress_of(await handle.describe())]

    await until(lambda: stack.has_finished(handle, "boot"))
    await handle.cancel(reason="enough")
    await until(is_undoing)
    await pull(handle, LeverKind.ABORT, "no time")
    assert (await last_of(stack, handle)).outcome is Outcome.QUARANTINED
    assert host.name not in [each.name for each in stack.inventory.suspects()]


async def test_a_release_that_cannot_be_done_is_aborted_and_done_later(stack: Stack) -> None:
    """It is steered as well: retry now, and give up."""
    project, hosts = await stack.hosts()
    await (await stack.start(stack.request(project))).result()
    await stack.enrol_with(hosts[0], fail="power_off:*:Unreachable")
    release = await stack.release(project, "m")
    await until(lambda: stack.is_waiting(release, "UNREACHABLE"))
    assert "tear-down" in await pull(release, LeverKind.RETRY_NOW)
    await until(lambda: stack.is_waiting(release, "UNREACHABLE"))
    await pull(release, LeverKind.ABORT)
    assert (await last_of(stack, release)).outcome is Outcome.QUARANTINED
    await stack.enrol_with(hosts[0], fail="")
    await (await stack.release(project, "m")).result()
    assert is_clean(stack, project)


async def test_two_operators_at_once_get_one_decision(stack: Stack) -> None:
    """One is done, the other is told what was decided, and by whom."""
    project, hosts = await stack.hosts(fail="define:*:Unsupported")
    handle = await stack.start(stack.request(project, on_failure=OnFailure.HOLD, deadlines=HELD))
    await held(stack, project)
    await stack.enrol_with(hosts[0], fail="")
    answers = await asyncio.gather(
        pull(handle, LeverKind.RESUME), pull(handle, LeverKind.RESUME), return_exceptions=True
    )
    assert sorted(isinstance(answer, str) for answer in answers) == [False, True]
    assert (await last_of(stack, handle)).outcome is Outcome.READY


async def test_a_cancel_wins_over_a_held_run_that_is_resumed_at_the_same_moment(stack: Stack) -> None:
    """Whatever comes first, nothing is left behind."""
    project, _ = await stack.hosts(fail="define:*:Unsupported")
    handle = await stack.start(stack.request(project, on_failure=OnFailure.HOLD, deadlines=HELD))
    await held(stack, project)
    await asyncio.gather(pull(handle, LeverKind.RESUME), handle.cancel(), return_exceptions=True)
    assert (await last_of(stack, handle)).outcome is Outcome.CANCELLED
    assert is_clean(stack, project)


@pytest.mark.parametrize("lever", list(LeverKind))
async def test_a_lever_without_anything_is_refused_and_stops_nothing(stack: Stack, lever: LeverKind) -> None:
    """`null` is what somebody types in Temporal's own tools; the run goes on, and can be cancelled."""
    project, _ = await stack.hosts(personality="no-call-home")
    handle = await stack.start(stack.request(project, deadlines=HELD))
    await begun(stack, project, "power_on")
    with pytest.raises(WorkflowUpdateFailedError) as failed:
        await handle.execute_update(lever.value, None)
    assert "give an object, or nothing, not null" in str(failed.value.cause)
    await handle.cancel()
    assert (await last_of(stack, handle)).outcome is Outcome.CANCELLED


async def test_a_run_takes_no_more_levers_than_leave_its_guest_a_call(stack: Stack) -> None:
    """Somebody's script gives it a second more again and again; what is left then is said, and the guest may call."""
    project, _ = await stack.hosts(personality="no-call-home")
    handle = await stack.start(stack.request(project, deadlines=HELD))
    await begun(stack, project, "power_on")
    for _ in range(0, MOST_LEVERS, 5):
        await asyncio.gather(*(pull(handle, LeverKind.EXTEND, seconds=1, whole_run=True) for _ in range(5)))
    for kind in (LeverKind.EXTEND, LeverKind.ABORT):
        said = await refused(handle, kind, seconds=1)
        assert f"it has taken {MOST_LEVERS} levers" in said and f"`mulligan run cancel {handle.id}`" in said
    await called(handle, stack, project)
    assert (await last_of(stack, handle)).outcome is Outcome.READY


async def test_no_hold_is_taken_by_a_try_that_ends(stack: Stack) -> None:
    """It was aborted, and its step is being stopped: there is nothing ahead to hold before."""
    project, _ = await stack.hosts(hold="define:1:2")
    handle = await stack.start(stack.request(project, deadlines=HELD))
    await begun(stack, project, "define")
    await pull(handle, LeverKind.ABORT, "no use")
    said = await refused(handle, LeverKind.HOLD, step="verify")
    assert "this try ends already: aborted by alice: no use" in said
    assert not any("run hold" in each for each in offered(said))
    assert (await last_of(stack, handle)).reason == "ABORTED"
