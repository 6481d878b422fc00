"""Live images on simulated hosts: a machine without a disk is made, proved, cancelled and released as any other."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from temporalio.client import WorkflowFailureError

from mulligan.activities.drivers.base import Deadline
from mulligan.activities.drivers.simulated import journal, snapshot
from mulligan.activities.events import EventKind
from mulligan.activities.values import Image, ImageFormat, MachineState, Outcome, Resources, VerifyLevel
from tests.workflows.stack import Stack, is_clean, until

DISKLESS = Resources(1, 512, 0)
ISO = Image("rescue", "simulated:rescue", "sha256:" + "1" * 64, ImageFormat.ISO)
KERNEL = Image(
    "diskless", "simulated:kernel", "sha256:" + "2" * 64, ImageFormat.KERNEL, initrd_source="simulated:initrd",
    initrd_digest="sha256:" + "3" * 64, kernel_arguments="quiet",
)  # fmt: skip


def request(stack: Stack, project: str, **said: Any) -> Any:
    """A machine without a disk."""
    return stack.request(project, **({"resources": DISKLESS} | said))


def kinds(stack: Stack, project: str) -> set[str]:
    """What sorts of objects are on the project's hosts."""
    return {each.kind for each in snapshot(stack.site.drivers_dir, project).objects}


@pytest.mark.parametrize("kind", ["virtual", "bare-metal"])
@pytest.mark.parametrize(
    ("image", "level"), [(ISO, VerifyLevel.ADDRESS), (KERNEL, VerifyLevel.GUEST)], ids=["iso", "kernel"]
)
async def test_a_machine_runs_without_a_disk(stack: Stack, image: Image, level: VerifyLevel, kind: str) -> None:
    """Up to the level that can be proved of it; none of the disk that its host has is taken; released, all is gone."""
    project, (host,) = await stack.hosts(kind=kind)
    handle = await stack.start(request(stack, project, verify=level), image=image)
    out = await handle.result()
    assert out.evidence[-1].level is level
    assert "disk" not in kinds(stack, project)
    assert {"live", "computer", "seed"} <= kinds(stack, project)
    used = {row.resource: row.used for row in stack.inventory.provider(host.name).inventory}
    assert bool(used["disk_gib"]) == (kind == "bare-metal")
    await (await stack.release(project, "m")).result()
    assert is_clean(stack, project)


async def test_both_parts_of_a_kernel_are_brought_once(stack: Stack) -> None:
    """The next machine moves no byte."""
    project, _ = await stack.hosts()
    for name in ("one", "two"):
        await (await stack.start(request(stack, project, name=name), image=KERNEL)).result()
    placed = [
        entry for entry in journal(stack.site.drivers_dir, project) if entry.verb == "place_base" and entry.changed
    ]
    assert len(placed) == 2


async def test_a_cancelled_one_leaves_nothing(stack: Stack) -> None:
    """Whatever was placed is removed, and the claim given back."""
    project, _ = await stack.hosts(personality="no-call-home")
    handle = await stack.start(request(stack, project), image=KERNEL)
    await until(lambda: stack.has_finished(handle, "boot"))
    await handle.cancel()
    with pytest.raises(WorkflowFailureError):
        await handle.result()
    story = await stack.story(handle)
    assert story[-1].outcome is Outcome.CANCELLED
    undone = [each.action for each in story if each.step == "undo" and each.kind is EventKind.ACTION_FINISHED]
    assert undone == ["tear-down", "remove-disks", "release-claim"]
    assert is_clean(stack, project)


async def test_what_is_booted_stays_while_it_runs(stack: Stack) -> None:
    """Its bases are not removed under it, neither kernel nor initrd."""
    project, (host,) = await stack.hosts()
    await (await stack.start(request(stack, project), image=KERNEL)).result()
    async with stack.site.driver(host) as driver:
        removed = await driver.remove_bases(None, Deadline.after(30))  # type: ignore[attr-defined]  # the driver has disks
    assert removed == ()
    await (await stack.release(project, "m")).result()
    assert stack.inventory.machine(project, "m").state is MachineState.RELEASED
    async with stack.site.driver(host) as driver:
        removed = await driver.remove_bases(None, Deadline.after(30))  # type: ignore[attr-defined]
    assert set(removed) == {KERNEL.digest, KERNEL.initrd_digest}


async def test_a_fault_while_placing_is_retried(stack: Stack) -> None:
    """As for a disk."""
    project, _ = await stack.hosts(fail="place_live:1:Busy")
    handle = await stack.start(request(stack, project), image=replace(KERNEL, initrd_source="", initrd_digest=""))
    await handle.result()
    calls = [entry for entry in journal(stack.site.drivers_dir, project) if entry.verb == "place_live"]
    assert [entry.outcome for entry in calls] == ["BUSY", "OK"]
