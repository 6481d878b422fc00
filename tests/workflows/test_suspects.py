"""Suspects on the simulated fleet: the image is blamed, or the host, and what follows; removal, sweeping, pruning."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from temporalio.client import WorkflowFailureError

from mulligan.activities.calls import CONTROL_QUEUE
from mulligan.activities.drivers.simulated import snapshot
from mulligan.activities.errors import NotFound
from mulligan.activities.inventory import SuspectKind
from mulligan.activities.inventory.machine import Machine
from mulligan.activities.values import Deadlines, Image, MachineState, Outcome
from mulligan.api.reclaim import Reaper
from mulligan.workflows import runs
from tests.workflows.stack import IMAGE, Stack, is_clean, until

BRIEF = Deadlines(
    claim_seconds=20, image_seconds=20, boot_seconds=20, verify_seconds=2, run_seconds=90, undo_seconds=20
)
"""For what does not come up."""


def image(name: str) -> Image:
    """An image of its own for the calling test: what is known of images is shared by all."""
    return replace(IMAGE, name=name, digest="sha256:" + name.encode().hex().rjust(64, "0"))


async def fails(stack: Stack, project: str, name: str, what: Image, **values: Any) -> None:
    """Try to make a machine that cannot come up."""
    handle = await stack.start(stack.request(project, name, deadlines=BRIEF, **values), image=what)
    with pytest.raises(WorkflowFailureError):
        await handle.result()


async def comes_up(stack: Stack, project: str, name: str, what: Image) -> str:
    """Make a machine; the provider that it came up on."""
    return (await (await stack.start(stack.request(project, name), image=what)).result()).provider


async def test_a_bad_image_is_blamed_and_its_hosts_are_not(stack: Stack) -> None:
    """It takes two machines that fail on two hosts each; what is told in the stream says whom it is held against."""
    bad, good = image("bad-image"), image("good-with-bad-image")
    project, hosts = await stack.hosts(4, broken=bad.digest)
    await fails(stack, project, "m1", bad, mulligans=1)
    await fails(stack, project, "m2", bad, mulligans=1)
    (suspect,) = [each for each in stack.inventory.suspects(SuspectKind.IMAGE) if each.name == bad.name]
    assert suspect.failures == 4
    assert suspect.verdict.startswith("it is to blame: it failed on")
    assert f"`mulligan suspect clear image {bad.name}`" in suspect.quarantined
    assert {each.workflow_id for each in suspect.evidence} == {f"provision:{project}:{name}" for name in ("m1", "m2")}
    assert {(each.step, each.digest) for each in suspect.evidence} == {("verify", bad.digest)}
    shown = [stack.inventory.provider(host.name) for host in hosts]
    assert [(each.suspect_count, each.quarantined) for each in shown] == [(0, "")] * 4
    handle = stack.client.get_workflow_handle(f"provision:{project}:m2")
    told = [event.message for event in await stack.story(handle) if event.action == "suspect"]
    assert any(f"image {bad.name} is quarantined" in message for message in told), told
    assert await comes_up(stack, project, "up", good)


async def test_a_bad_host_is_blamed_and_its_images_are_not(stack: Stack) -> None:
    """It is claimed last as soon as it failed, and after three failures not at all, while the others do its work."""
    images = [image(f"good-{number}") for number in range(2)]
    project, hosts = await stack.hosts(3)
    bad = await stack.enrol_with(hosts[0], personality="never-boots")
    for number in range(3):
        what = images[number % 2]
        await fails(stack, project, f"m{number}", what, provider=bad.name)
        assert await comes_up(stack, project, f"up-{number}", what) != bad.name
    (suspect,) = [each for each in stack.inventory.suspects() if each.name == bad.name]
    assert suspect.failures == 3
    assert "machines from good-0 and good-1 came up elsewhere since" in suspect.verdict
    assert "`mulligan suspect clear provider" in suspect.quarantined
    assert [stack.inventory.suspect(SuspectKind.IMAGE, each.digest) for each in images] == [None, None]
    assert [stack.inventory.provider(each.name).suspect_count for each in hosts[1:]] == [0, 0]
    assert stack.inventory.provider(bad.name).quarantined == suspect.quarantined


async def test_a_provider_is_removed_with_what_was_kept_there(stack: Stack) -> None:
    """The bases go, the machines' records stay, and a second removal is harmless."""
    what = image("good-for-removal")
    project, (host,) = await stack.hosts()
    assert await comes_up(stack, project, "up", what) == host.name
    await (await stack.release(project, "up")).result()
    assert (host.name, what.digest) in snapshot(stack.site.drivers_dir, project).bases
    stack.inventory.retire_provider(host.name)
    for attempt in range(2):
        out = await stack.client.execute_workflow(
            runs.REMOVE, host, id=runs.remove_id(host.name), task_queue=CONTROL_QUEUE, result_type=runs.RemoveOut
        )
        assert out.removed == ((what.digest,) if attempt == 0 else ())
    assert snapshot(stack.site.drivers_dir, project).bases == ()
    assert host.name not in [each.name for each in stack.inventory.providers()]
    assert stack.inventory.machine(project, "up").provider == host.name


async def test_a_release_that_was_terminated_is_swept(stack: Stack) -> None:
    """A reclaim goes on with it, and it ends as the release would have: released."""
    project, _ = await stack.hosts(hold="power_off:1:3")
    assert await comes_up(stack, project, "up", image("good-for-sweeping"))
    handle = await stack.release(project, "up")
    await until(lambda: stack.machine_is(project, "up", MachineState.RELEASING))
    await handle.terminate("by hand")
    (claim,) = stack.inventory.claims(project=project)
    reaper = Reaper(stack.inventory, stack.client, lease_seconds=1)

    async def found() -> bool:
        return runs.reclaim_id(claim.id) in await reaper.look()

    await until(found)
    await until(lambda: stack.machine_is(project, "up", MachineState.RELEASED))
    assert is_clean(stack, project)
    story = await stack.story(stack.client.get_workflow_handle(runs.reclaim_id(claim.id)))
    assert story[-1].outcome is Outcome.RELEASED


async def test_a_release_that_was_terminated_after_its_last_undo_is_swept(stack: Stack) -> None:
    """Nothing is claimed any more: only its record has to be ended."""
    project, _ = await stack.hosts()
    assert await comes_up(stack, project, "up", image("good-for-sweeping"))
    await (await stack.release(project, "up")).result()
    left = replace(
        stack.inventory.machine(project, "up"), id=f"{project}-left", name="left", state=MachineState.RELEASING
    )
    assert left.ready_at is not None
    stack.inventory.begin_machine(replace(left, created_at=left.ready_at - timedelta(hours=1)))
    reaper = Reaper(stack.inventory, stack.client, lease_seconds=1)

    async def ended() -> bool:
        await reaper.look()
        return await stack.machine_is(project, "left", MachineState.RELEASED)

    await until(ended)


async def test_what_is_old_is_pruned_a_little_at_a_time(stack: Stack) -> None:
    """As long as there is something, with every look; then not again for a while."""
    project, _ = await stack.hosts()
    long_ago = datetime.now(UTC) - timedelta(days=100)
    asked = stack.request(project, "old")
    for number in range(3):
        stack.inventory.begin_machine(
            Machine(
                f"{project}-{number}", project, "old", MachineState.FAILED, "default", "", "", "r", asked, IMAGE,
                created_at=long_ago,
            )
        )  # fmt: skip
    reaper = Reaper(stack.inventory, stack.client, lease_seconds=60, keep_days=99)
    assert await reaper.prune() == 3
    assert await reaper.prune() == 0
    with pytest.raises(NotFound):
        stack.inventory.machine(project, "old")
