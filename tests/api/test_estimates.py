"""Expected times in the stream: learned from finished runs, and compared with what is seen."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mulligan.activities.errors import Unreachable
from mulligan.activities.inventory import Inventory
from mulligan.activities.values import VerifyLevel
from mulligan.api.progress import AWAIT
from mulligan.v1 import machine_pb2, provisioning_pb2, run_pb2
from mulligan.workflows.runs import provision_id
from tests.api.serving import Api, spec
from tests.workflows.stack import IMAGE, Stack


async def taught(api: Api, stack: Stack, **settings: str) -> tuple[str, str]:
    """(project, image): three machines were made of this image, then its host got these settings."""
    project, (host,) = await stack.hosts()
    image = replace(IMAGE, name=f"image-{project}")
    stack.inventory.add_image(image)
    for name in ("a", "b", "c"):
        await api.made(project, name, image=image.name)
    await stack.enrol_with(host, speed="0", **settings)
    return project, image.name


async def progress_until_slower(api: Api, project: str, image: str) -> list[run_pb2.RunProgress]:
    """What was in progress, until it was said to be slower than usual, or the run ended."""
    seen: list[run_pb2.RunProgress] = []
    async for response in api.provision(spec(project, "d", image=image)):
        if response.update.HasField("progress"):
            seen.append(response.update.progress)
            if seen[-1].slower_than_p95:
                break
    return seen


async def test_the_stream_says_how_long_a_step_usually_takes_and_when_it_is_slower(api: Api, stack: Stack) -> None:
    """Switching on takes seconds where it took none: the estimate is there, and so is the comparison."""
    project, image = await taught(api, stack, hold="power_on:1:60")
    last = (await progress_until_slower(api, project, image))[-1]
    assert last.slower_than_p95
    assert (last.step, last.estimate.step) == ("boot", "boot")
    assert (last.estimate.runs, last.estimate.basis) == (3, f"image {image} on simulated")
    assert 0 < last.estimate.p50_seconds <= last.estimate.p95_seconds
    asked = provisioning_pb2.GetRunRequest(workflow_id=provision_id(project, "d"))
    (shown,) = (await api.provisioning.GetRun(asked)).progress
    assert (shown.step, shown.slower_than_p95, shown.estimate.runs) == ("boot", True, 3)
    await stack.client.get_workflow_handle(provision_id(project, "d")).cancel()


async def test_a_wait_without_any_action_is_compared_too(api: Api, stack: Stack) -> None:
    """A guest that does not call home: nothing is in progress, and it takes longer than usual all the same."""
    project, image = await taught(api, stack, personality="no-call-home")
    seen: list[run_pb2.RunProgress] = []
    asked = spec(project, "d", image=image, verify=machine_pb2.VERIFY_LEVEL_GUEST)
    async for response in api.provision(asked):
        if response.update.HasField("progress") and response.update.progress.action == AWAIT:
            seen.append(response.update.progress)
            if seen[-1].slower_than_p95:
                break
    assert seen[-1].slower_than_p95
    assert "the guest's call home" in seen[-1].message
    assert "last seen: " in seen[-1].message
    run = await api.provisioning.GetRun(provisioning_pb2.GetRunRequest(workflow_id=provision_id(project, "d")))
    proved = {item.observed: item.at.ToNanoseconds() for each in run.events for item in each.evidence}
    assert seen[-1].observed_at.ToNanoseconds() == proved[seen[-1].message.partition("last seen: ")[2]]
    assert all(each.suggestions[0].startswith("mulligan run extend") for each in seen)
    assert (seen[-1].step, seen[-1].estimate.runs) == ("verify", 3)
    await stack.client.get_workflow_handle(provision_id(project, "d")).cancel()


async def test_the_database_is_asked_once_for_each_provider(
    api: Api, stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However often what is in progress changes; when it does not answer it is asked again."""
    project, image = await taught(api, stack, hold="power_on:1:60")
    asked: list[str] = []
    answered: list[str] = []
    real = Inventory.estimates

    def estimates(
        inventory: Inventory, name: str, driver: str = "", model: str = "", level: VerifyLevel | None = None
    ) -> object:
        asked.append(driver)
        if len(asked) == 1:
            raise Unreachable("the database is away")
        answered.append(driver)
        return real(inventory, name, driver, model, level)

    monkeypatch.setattr(Inventory, "estimates", estimates)
    seen = await progress_until_slower(api, project, image)
    assert seen[-1].slower_than_p95
    assert len(asked) == len(answered) + 1
    assert len(answered) == len(set(answered))
    assert "simulated" in answered
    await stack.client.get_workflow_handle(provision_id(project, "d")).cancel()
