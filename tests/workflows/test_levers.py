"""Every lever, in every state in which it can be pulled, and in those in which it is refused."""

from __future__ import annotations

import asyncio
import contextlib
import re
import shlex
from datetime import UTC, datetime

import click
import pytest
from temporalio.api.sdk.v1 import WorkflowMetadata
from temporalio.client import WorkflowFailureError, WorkflowHandle, WorkflowUpdateFailedError

from mulligan.activities.drivers.simulated import journal
from mulligan.activities.events import EventKind, RunEvent
from mulligan.activities.holds import holds_ahead
from mulligan.activities.levers import HOLDABLE, LeverIn, LeverKind, Pulled
from mulligan.activities.values import Deadlines, MachineState, OnFailure, Outcome, VerifyLevel
from mulligan.api.cli.main import cli
from mulligan.api.progress import progress_of
from mulligan.api.suggestions import for_event
from tests.workflows.stack import Stack, is_clean, until
from tests.workflows.steer import pull, refused

HELD = Deadlines(
    claim_seconds=30, image_seconds=30, boot_seconds=30, verify_seconds=30, run_seconds=90, undo_seconds=30
)


async def last_of(stack: Stack, handle: WorkflowHandle) -> RunEvent:
    """The run's last event, however it ended."""
    with contextlib.suppress(WorkflowFailureError):
        await handle.result()
    return (await stack.story(handle))[-1]


async def begun(stack: Stack, project: str, verb: str) -> None:
    """Wait until a host of the project was asked for this verb."""

    async def asked() -> bool:
        return any(e.verb == verb for e in journal(stack.site.drivers_dir, project))

    await until(asked)


async def held(stack: Stack, project: str) -> None:
    """Wait until the machine is held."""
    await until(lambda: stack.machine_is(project, "m", MachineState.HELD))


async def is_at(handle: WorkflowHandle, phase: str) -> bool:
    """Whether the run says that it is at this."""
    return await handle.query("phase", result_type=str) == phase


async def was_held(stack: Stack, handle: WorkflowHandle, *, times: int) -> bool:
    """Whether the run was held so often, by now."""
    return [e.kind for e in await stack.story_so_far(handle)].count(EventKind.HELD) == times


def verbs(stack: Stack, project: str, verb: str) -> int:
    """How often the hosts of the project were asked for this verb."""
    return len([e for e in journal(stack.site.drivers_dir, project) if e.verb == verb and e.outcome != "BEGUN"])


def offered(said: str) -> list[str]:
    """The commands that a refusal names; the command line's own parser takes each."""
    commands = re.findall(r"`([^`]+)`", said.partition("possible now: ")[2])
    for command in commands:
        words = shlex.split(command)[1:]
        group: click.Command = cli
        context = click.Context(cli, info_name="mulligan")
        while isinstance(group, click.Group):
            found = group.get_command(context, words.pop(0))
            assert found is not None, command
            group = found
        group.make_context(group.name, words)
    return commands


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
