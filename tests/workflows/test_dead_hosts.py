"""A host that does not answer: it is left for another, blamed for what it keeps, and can be given up for good."""

from __future__ import annotations

import contextlib

from temporalio.client import WorkflowFailureError, WorkflowHandle

from mulligan.activities.events import EventKind
from mulligan.activities.values import Deadlines, MachineState, OnFailure, Outcome
from tests.workflows.stack import Stack, until

PATIENT = Deadlines(image_seconds=3600, boot_seconds=12, verify_seconds=60, run_seconds=7200, undo_seconds=8)


async def outcome_of(stack: Stack, handle: WorkflowHandle) -> Outcome:
    """How the run ended."""
    with contextlib.suppress(WorkflowFailureError):
        await handle.result()
    return (await stack.story(handle))[-1].outcome


async def test_a_host_that_does_not_answer_is_left_while_there_is_time(stack: Stack) -> None:
    """Not only when its deadline has passed: another host could make it, and does."""
    project, hosts = await stack.hosts(2)
    for host in hosts:
        await stack.enrol_with(host, fail="define:1:Unreachable,define:2:Unreachable,define:3:Unreachable")
    handle = await stack.start(stack.request(project, mulligans=1, deadlines=PATIENT))
    await until(lambda: stack.is_waiting(handle, "UNREACHABLE"))
    first = stack.inventory.machine(project, "m").provider
    for host in hosts:
        await stack.enrol_with(host, fail="define:*:Unreachable" if host.name == first else "")
    assert await outcome_of(stack, handle) is Outcome.READY
    assert stack.inventory.machine(project, "m").provider != first
    story = await stack.story(handle)
    assert not any(e.kind is EventKind.DEADLINE_PASSED for e in story)
    assert any("does not answer, and another provider could make it" in e.message for e in story)


async def test_the_only_host_is_waited_for(stack: Stack) -> None:
    """Nobody else could make it: an outage that passes does not end the run."""
    project, _ = await stack.hosts(fail="define:1:Unreachable,define:2:Unreachable,define:3:Unreachable")
    handle = await stack.start(stack.request(project, mulligans=1, deadlines=Deadlines(boot_seconds=20)))
    assert await outcome_of(stack, handle) is Outcome.READY
    assert any(e.kind is EventKind.SLOW for e in await stack.story(handle))


async def test_a_host_that_keeps_what_cannot_be_undone_is_claimed_last(stack: Stack) -> None:
    """It would look fuller than the others, and get every new machine."""
    project, hosts = await stack.hosts(2)
    for host in hosts:
        await stack.enrol_with(host, personality="cloud-init-failed", fail="power_off:*:AccessDenied")
    handle = await stack.start(stack.request(project, deadlines=PATIENT))
    assert await outcome_of(stack, handle) is Outcome.QUARANTINED
    bad = stack.inventory.machine(project, "m").provider
    assert stack.inventory.provider(bad).suspect_count == 1
    for host in hosts:
        await stack.enrol_with(host, personality="", fail="")
    assert await outcome_of(stack, await stack.start(stack.request(project, "next"))) is Outcome.READY
    assert stack.inventory.machine(project, "next").provider != bad


async def test_a_try_that_is_held_is_evidence_at_once(stack: Stack) -> None:
    """Others need not run into the same host while someone looks at the machine."""
    project, _ = await stack.hosts(fail="define:*:Unsupported")
    handle = await stack.start(stack.request(project, on_failure=OnFailure.HOLD))
    await until(lambda: stack.machine_is(project, "m", MachineState.HELD))
    assert stack.inventory.provider(f"{project}-h0").suspect_count == 1
    await handle.cancel()
    assert await outcome_of(stack, handle) is Outcome.CANCELLED
    assert stack.inventory.provider(f"{project}-h0").suspect_count == 1


async def test_a_machine_on_a_host_that_is_gone_for_good_is_forgotten(stack: Stack) -> None:
    """Nothing is asked of the host; its claim is given back, and the name is free."""
    project, hosts = await stack.hosts(personality="cloud-init-failed", fail="power_off:*:AccessDenied")
    handle = await stack.start(stack.request(project))
    assert await outcome_of(stack, handle) is Outcome.QUARANTINED
    await stack.enrol_with(hosts[0], personality="dies", fail="power_off:*:Unreachable")
    told = await (await stack.release(project, "m", forget=True)).result()
    assert "nothing was asked of" in str(told)
    assert stack.inventory.machine(project, "m").state is MachineState.RELEASED
    assert not stack.inventory.claims(project=project)
