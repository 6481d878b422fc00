"""Planning: what a run would do, asked of the real workers and of simulated hosts."""

from __future__ import annotations

import uuid
from dataclasses import replace
from typing import Any

import pytest
from temporalio.client import WorkflowFailureError
from temporalio.exceptions import ActivityError, ApplicationError

from mulligan.activities.calls import CONTROL_QUEUE
from mulligan.activities.drivers.simulated import journal
from mulligan.activities.planning import Plan, PlanIn
from mulligan.activities.values import Image, Inspection, MachineRequest, Resources, VerifyLevel
from mulligan.workflows import runs
from tests.workflows.stack import IMAGE, Stack, is_clean


async def planned(stack: Stack, request: MachineRequest, image: Image = IMAGE, only: str = "") -> Plan:
    """The plan of a request."""
    plan: Plan = await stack.client.execute_workflow(
        runs.PLAN,
        PlanIn(request, image, "f", only),
        id=runs.plan_id(str(uuid.uuid4())),
        task_queue=CONTROL_QUEUE,
        result_type=Plan,
    )
    return plan


async def test_a_plan_names_the_provider_and_what_would_move(stack: Stack) -> None:
    """It is asked of the inventory and of the provider, and nothing is claimed, made or changed."""
    project, (host,) = await stack.hosts()
    plan = await planned(stack, stack.request(project))
    assert (plan.provider, plan.kind, plan.verdict) == (host.name, "virtual", "fits")
    assert "no other provider" in plan.why
    assert plan.explanation["fits_count"] == 1
    assert (plan.download_bytes, plan.place_bytes, plan.cached_bytes) == (0, IMAGE.virtual_size_bytes, 0)
    assert (plan.lacks, plan.destroys) == ((), ())
    assert stack.inventory.plan(plan.hash) == plan
    assert is_clean(stack, project)
    assert not [entry for entry in journal(stack.site.drivers_dir, project) if entry.changed]


async def test_what_is_there_already_need_not_move(stack: Stack) -> None:
    """After a machine was made the base is on the provider, and the plan is another one."""
    project, _ = await stack.hosts()
    before = await planned(stack, stack.request(project, "second"))
    await (await stack.start(stack.request(project, "first"))).result()
    after = await planned(stack, stack.request(project, "second"))
    assert (after.place_bytes, after.cached_bytes) == (0, IMAGE.virtual_size_bytes)
    assert after.hash != before.hash
    assert (await planned(stack, stack.request(project, "second"))).hash == after.hash


async def test_a_provider_given_whole_loses_its_disk(stack: Stack) -> None:
    """Which is said before it happens."""
    project, (host,) = await stack.hosts(kind="bare-metal")
    plan = await planned(stack, stack.request(project))
    assert plan.destroys == (f"everything on the root disk of {host.name}, which is given whole",)


async def test_nothing_fits(stack: Stack) -> None:
    """The plan has the explanation, and no hash."""
    project, _ = await stack.hosts()
    plan = await planned(stack, stack.request(project, resources=Resources(9999, 512, 2)))
    assert (plan.provider, plan.verdict, plan.hash) == ("", "never", "")
    assert plan.explanation["near_misses"]


async def test_a_provider_that_does_not_answer_is_lacking(stack: Stack) -> None:
    """Somebody waits for the plan: it says so after a few tries."""
    project, (host,) = await stack.hosts()
    await stack.enrol_with(host, fail="has_base:*:AccessDenied")
    plan = await planned(stack, stack.request(project))
    assert plan.provider == host.name
    assert plan.lacks[0].startswith(f"{host.name} could not be looked at: ")
    assert not plan.hash


async def test_a_plan_may_be_pinned_to_a_provider(stack: Stack) -> None:
    """It is asked again of that one, also when another would come first."""
    project, hosts = await stack.hosts(2)
    for host in hosts:
        plan = await planned(stack, stack.request(project), only=host.name)
        assert plan.provider == host.name


async def test_a_provider_that_is_not_there_ends_the_planning(stack: Stack) -> None:
    """With the error that the inventory gives."""
    project, _ = await stack.hosts()
    with pytest.raises(WorkflowFailureError) as caught:
        await planned(stack, stack.request(project), only="nowhere")
    cause: Any = caught.value.cause
    assert isinstance(cause, ActivityError)
    assert isinstance(cause.cause, ApplicationError)
    assert cause.cause.type == "NOT_FOUND"


async def test_finished_runs_teach_the_plan(stack: Stack) -> None:
    """Three runs that ended ready are enough for every step."""
    project, _ = await stack.hosts()
    image = Image(f"demo-{project}", IMAGE.source, IMAGE.digest, IMAGE.format)
    for name in ("a", "b", "c"):
        await (await stack.start(stack.request(project, name), image=image)).result()
    plan = await planned(stack, stack.request(project, "d"), image)
    assert {each.step for each in plan.estimates} == {"claim", "image", "boot", "verify"}
    group = f"image {image.name} on simulated"
    told = {each.step: (each.runs, each.basis) for each in plan.estimates}
    assert told.pop("verify") == (3, f"{group}, level guest")
    assert set(told.values()) == {(3, group)}
    assert all(0 < each.p50_seconds <= each.p95_seconds for each in plan.estimates)


async def test_a_level_that_a_driver_cannot_prove_is_refused_when_it_is_claimed(stack: Stack) -> None:
    """Not at the verify step: a provider without a console is no candidate for any level that needs one."""
    project, (host,) = await stack.hosts()
    known = stack.inventory.provider(host.name)
    mute = tuple(name for name in known.capabilities if name != "console.serial")
    seen = Inspection(known.kind, known.inventory, mute)
    stack.inventory.put_provider(host.name, host.partition, host.url, "", seen, host.settings)
    plan = await planned(stack, stack.request(project, verify=VerifyLevel.CONSOLE))
    assert plan.verdict == "never"
    removed = {stage["name"]: stage["removed"] for stage in plan.explanation["funnel"]}
    assert removed["requires.console.serial"] == 1
    with pytest.raises(WorkflowFailureError) as caught:
        await (await stack.start(stack.request(project, verify=VerifyLevel.ADDRESS))).result()
    assert isinstance(caught.value.cause, ApplicationError)
    assert caught.value.cause.type == "NEVER_FITS"
    assert (await planned(stack, stack.request(project, verify=VerifyLevel.POWER))).provider == host.name


async def test_a_partition_without_a_worker_is_told_in_seconds(stack: Stack) -> None:
    """With the command that mends it."""
    project, (host,) = await stack.hosts()
    empty = f"empty-{project}"
    stack.inventory.add_partition(empty)
    await stack.enrol(replace(host, name=f"{host.name}-far", partition=empty, url=f"{host.url}&seed=7"))
    plan = await planned(stack, stack.request(project, partition=empty))
    assert plan.lacks == (
        f"{host.name}-far could not be looked at: no worker of partition {empty} began within 8 s; see that one runs "
        f"there (`mulligan worker --partition {empty}`), and plan again",
    )
    assert not plan.hash
