"""The life of a machine's making and taking down, on simulated hosts."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest
from temporalio.client import WorkflowFailureError, WorkflowHandle

from mulligan.activities.drivers.simulated import journal, mend, snapshot
from mulligan.activities.errors import NotFound
from mulligan.activities.events import EventKind, RunEvent
from mulligan.activities.values import (
    Deadlines,
    MachineState,
    OnFailure,
    Outcome,
    Resources,
    Service,
    ServiceKind,
    VerifyLevel,
    WhenNone,
)
from tests.workflows.stack import Stack, is_clean, until


async def ended(stack: Stack, handle: WorkflowHandle) -> RunEvent:
    """The run's last event."""
    with pytest.raises(WorkflowFailureError):
        await handle.result()
    return (await stack.story(handle))[-1]


async def test_a_machine_is_made_and_proved_to_be_up(stack: Stack) -> None:
    """The run ends ready, with evidence for every level, and the story says every step."""
    project, _ = await stack.hosts()
    handle = await stack.start(stack.request(project))
    out = await handle.result()
    machine = stack.inventory.machine(project, "m")
    assert machine.state is MachineState.READY
    assert [e.level for e in out.evidence] == [
        VerifyLevel.POWER,
        VerifyLevel.CONSOLE,
        VerifyLevel.ADDRESS,
        VerifyLevel.GUEST,
    ]
    story = await stack.story(handle)
    assert [e.action for e in story if e.kind is EventKind.ACTION_FINISHED] == [
        "claim", "prepare", "place-disks", "boot", "observe", "ready",
    ]  # fmt: skip
    assert story[-1].outcome is Outcome.READY
    assert stack.inventory.claim_by_id(machine.claim_id).state == "permanent"
    kept = stack.inventory.run(handle.id)
    assert kept.outcome is Outcome.READY


async def test_a_machine_with_a_service_is_asked_for_its_banner(stack: Stack) -> None:
    """Level service has the banner itself as evidence."""
    project, _ = await stack.hosts(service="on", service_port="2222")
    request = stack.request(project, verify=VerifyLevel.SERVICE, service=Service(ServiceKind.SSH, 2222))
    out = await (await stack.start(request)).result()
    assert "SSH-2.0" in out.evidence[-1].observed


async def test_release_leaves_nothing(stack: Stack) -> None:
    """After release the host, the counters and the name are as before."""
    project, _ = await stack.hosts()
    await (await stack.start(stack.request(project))).result()
    handle = await stack.release(project, "m")
    await handle.result()
    assert stack.inventory.machine(project, "m").state is MachineState.RELEASED
    assert is_clean(stack, project)
    assert (await stack.story(handle))[-1].outcome is Outcome.RELEASED
    await (await stack.start(stack.request(project))).result()
    assert stack.inventory.machine(project, "m").state is MachineState.READY


async def test_a_failed_boot_is_undone_and_another_provider_is_tried(stack: Stack) -> None:
    """The first host never boots; the machine comes up on the second, and the first one is suspect and empty."""
    project, (bad, good) = await stack.hosts(2)
    await stack.enrol_with(bad, personality="never-boots")
    stack.inventory.mark_suspect(good.name, "so that it is tried last")
    deadlines = Deadlines(verify_seconds=4, undo_seconds=8)
    request = stack.request(project, mulligans=1, deadlines=deadlines, verify=VerifyLevel.CONSOLE)
    handle = await stack.start(request)
    out = await handle.result()
    assert out.provider == good.name
    assert stack.inventory.provider(bad.name).suspect_count == 1
    assert {o.host for o in snapshot(stack.site.drivers_dir, project).objects} == {good.name}
    story = await stack.story(handle)
    assert "taking a mulligan after" in next(e.message for e in story if e.try_number == 2)


async def test_when_no_other_provider_is_left_the_first_failure_is_the_reason(stack: Stack) -> None:
    """A run that fails says why the machine did not come up, not only that nothing else was free."""
    project, _ = await stack.hosts(personality="boots-then-silent")
    deadlines = Deadlines(verify_seconds=4, undo_seconds=8)
    handle = await stack.start(stack.request(project, mulligans=3, deadlines=deadlines))
    last = await ended(stack, handle)
    assert last.outcome is Outcome.FAILED
    assert "not proved within 4 s: awaiting address" in last.message
    assert "no other provider" in last.message
    assert stack.inventory.machine(project, "m").state is MachineState.FAILED
    assert is_clean(stack, project)


async def test_a_guest_whose_set_up_failed_is_not_ready(stack: Stack) -> None:
    """Cloud-init's own failure fails the level `guest`."""
    project, _ = await stack.hosts(personality="cloud-init-failed")
    last = await ended(stack, await stack.start(stack.request(project)))
    assert "did not end well" in last.message
    assert is_clean(stack, project)


async def test_a_guest_that_never_calls_home_passes_the_deadline(stack: Stack) -> None:
    """The deadline's error says what was awaited; slowness was said before."""
    project, _ = await stack.hosts(personality="no-call-home")
    handle = await stack.start(stack.request(project, deadlines=Deadlines(verify_seconds=4, undo_seconds=8)))
    last = await ended(stack, handle)
    assert last.reason == "DEADLINE_PASSED"
    assert "call home" in last.message
    kinds = [e.kind for e in await stack.story(handle)]
    assert kinds.index(EventKind.SLOW) < kinds.index(EventKind.DEADLINE_PASSED)
    assert is_clean(stack, project)


async def test_no_provider_that_fits_fails_at_once_with_the_explanation(stack: Stack) -> None:
    """Never fits is said without waiting; nothing is held."""
    project, _ = await stack.hosts()
    handle = await stack.start(stack.request(project, resources=Resources(9999, 512, 2), when_none=WhenNone.WAIT))
    last = await ended(stack, handle)
    assert last.reason == "NEVER_FITS"
    assert is_clean(stack, project)


async def test_no_room_now_fails_or_waits_as_asked(stack: Stack) -> None:
    """FAIL answers NOT_NOW; WAIT takes the room when another machine gives it back."""
    project, _ = await stack.hosts(vcpu="4")
    whole = Resources(stack.inventory.provider(f"{project}-h0").inventory[0].capacity, 512, 2)
    await (await stack.start(stack.request(project, "first", resources=whole))).result()
    refused = await ended(stack, await stack.start(stack.request(project, "second", resources=whole)))
    assert refused.reason == "NOT_NOW"
    waiting = await stack.start(stack.request(project, "third", resources=whole, when_none=WhenNone.WAIT))
    await until(lambda: stack.is_waiting(waiting, "NOT_NOW"))
    await (await stack.release(project, "first")).result()
    assert (await waiting.result()).provider == f"{project}-h0"


async def test_an_undo_that_cannot_be_done_is_quarantined_and_release_mends_it(stack: Stack) -> None:
    """Nothing is called clean that is not; when the host is mended, release finishes the undo."""
    project, (host,) = await stack.hosts(personality="stuck-undo,cloud-init-failed")
    last = await ended(stack, await stack.start(stack.request(project, deadlines=Deadlines(undo_seconds=3))))
    assert last.outcome is Outcome.QUARANTINED
    assert f"mulligan machine release m --project {project}" in last.message
    machine = stack.inventory.machine(project, "m")
    assert machine.state is MachineState.QUARANTINED
    assert stack.inventory.claim_by_id(machine.claim_id).state == "quarantined"
    mend(stack.site.drivers_dir, project, host.name)
    await (await stack.release(project, "m")).result()
    assert is_clean(stack, project)


async def test_a_failed_run_may_be_held_for_inspection_until_it_is_cancelled(stack: Stack) -> None:
    """HOLD keeps everything; cancelling undoes it."""
    project, _ = await stack.hosts(personality="cloud-init-failed")
    handle = await stack.start(stack.request(project, on_failure=OnFailure.HOLD))
    await until(lambda: stack.machine_is(project, "m", MachineState.HELD))
    assert not is_clean(stack, project)
    await handle.cancel()
    last = await ended(stack, handle)
    assert last.outcome is Outcome.CANCELLED
    assert is_clean(stack, project)


async def test_a_terminated_run_is_reclaimed_when_its_lease_has_passed(stack: Stack) -> None:
    """Terminate runs no undo; the lease notices, and a reclaim run takes down what was left."""
    project, _ = await stack.hosts(personality="no-call-home")
    handle = await stack.start(stack.request(project), lease_seconds=3)
    await until(lambda: stack.has_finished(handle, "observe"))
    await handle.terminate("pulled by a test")
    assert not is_clean(stack, project)
    reclaims: list[str] = []

    async def reclaimed() -> bool:
        reclaims.extend(await stack.reaper.look())
        return bool(reclaims)

    await until(reclaimed)
    await stack.client.get_workflow_handle(reclaims[0]).result()
    assert is_clean(stack, project)
    assert stack.inventory.machine(project, "m").state is MachineState.FAILED


async def test_an_open_run_keeps_its_lease(stack: Stack) -> None:
    """A run longer than its lease is not reclaimed: it extends the lease itself."""
    project, _ = await stack.hosts(personality="no-call-home")
    handle = await stack.start(stack.request(project), lease_seconds=3)
    await until(lambda: stack.has_finished(handle, "claim"))
    claim_id = stack.inventory.machine(project, "m").claim_id
    first = stack.inventory.claim_by_id(claim_id).lease_expires_at

    async def extended() -> bool:
        later = stack.inventory.claim_by_id(claim_id).lease_expires_at
        return first is not None and later is not None and later > first

    await until(extended)
    await handle.cancel()
    await ended(stack, handle)


async def test_a_second_machine_of_the_same_name_is_refused_by_the_database(stack: Stack) -> None:
    """Whatever races above, the name is unique among live machines; the loser leaves nothing."""
    project, _ = await stack.hosts()
    await (await stack.start(stack.request(project))).result()
    last = await ended(stack, await stack.start(stack.request(project)))
    assert last.reason == "ALREADY_EXISTS"
    assert stack.inventory.machine(project, "m").state is MachineState.READY
    assert len(stack.inventory.claims(project=project)) == 1


async def test_nothing_is_acted_on_twice(stack: Stack) -> None:
    """A smooth run changes the host once per verb."""
    project, _ = await stack.hosts()
    await (await stack.start(stack.request(project))).result()
    changes = [e.verb for e in journal(stack.site.drivers_dir, project) if e.changed]
    assert changes == ["place_base", "create_disks", "define", "power_on"]


def test_an_unknown_machine_is_not_found(stack: Stack) -> None:
    """With the nearest names."""
    with pytest.raises(NotFound):
        stack.inventory.machine("nobody", "nothing")


async def test_temporals_own_cancel_undoes_everything(stack: Stack) -> None:
    """`temporal workflow cancel` is as good as the API's."""
    project, _ = await stack.hosts(personality="no-call-home")
    handle = await stack.start(stack.request(project))
    await until(lambda: stack.has_finished(handle, "observe"))
    address = stack.client.service_client.config.target_host
    temporal = Path(sys.executable).with_name("temporal")
    cancel = await asyncio.create_subprocess_exec(
        temporal, "workflow", "cancel", "--workflow-id", handle.id, "--address", address
    )
    assert await cancel.wait() == 0
    assert (await ended(stack, handle)).outcome is Outcome.CANCELLED
    assert is_clean(stack, project)
