"""What a run left open on the boot server when it was given up: nobody is served by it once the claim has ended."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from mulligan.activities import calls
from mulligan.activities.boot import BootActivities
from mulligan.activities.bootserver.job import JobKind, job_id
from tests.metal.conftest import CONTENT, MARK, Lab, an_environment, until
from tests.metal.played import MAC

NETWORK = {"boot_from": "network", "macs": MAC}
NEXT = replace(MARK, project="other", machine="db-1", machine_id="m-2", run_id="run-9", fence=2)


async def left_open(lab: Lab, kind: JobKind) -> None:
    """A deployment, or an erase, whose agent is awaited when its run is given up."""
    if kind is JobKind.ERASE:
        await lab.deploy(lab.deploying(settings=NETWORK))
    lab.server.dead = True
    erase = replace(lab.erasing(), target=lab.target(**NETWORK))
    doing = asyncio.create_task(
        lab.erase(erase) if kind is JobKind.ERASE else lab.deploy(lab.deploying(settings=NETWORK))  # type: ignore[arg-type]
    )
    jobs, name = lab.site().jobs, job_id("srv-1", MARK, kind)
    await until(lambda: (job := jobs.find(name)) is not None and job.boot is not None and job.boot.at is not None)
    doing.cancel()
    await asyncio.gather(doing, return_exceptions=True)
    lab.server.dead = False


async def released(lab: Lab) -> None:
    """What `machine release --erase none` asks for, in an execution of its own."""
    site, environment = lab.site(), an_environment()
    environment.info = replace(environment.info, workflow_run_id="release")
    try:
        await environment.run(BootActivities(site).tear_down, calls.MadeFor(lab.target(**NETWORK), MARK))
    finally:
        await site.kept.close()


@pytest.mark.parametrize("kind", [JobKind.DEPLOY, JobKind.ERASE])
async def test_a_server_that_was_released_boots_its_disk(lab: Lab, kind: JobKind) -> None:
    """Whatever is on it by now: it was to be left as it is."""
    await left_open(lab, kind)
    await released(lab)
    assert lab.is_at_rest()
    lab.server.disk = b"kept"
    assert await lab.boots_from_network() == "disk"
    assert lab.server.disk == b"kept"


@pytest.mark.parametrize("settings", [NETWORK, {}], ids=["network", "virtual-media"])
async def test_the_next_machine_boots_its_disk(lab: Lab, settings: dict[str, str]) -> None:
    """Also where nobody released the one before it, and the worker begins anew."""
    await left_open(lab, JobKind.ERASE)
    await lab.deploy(lab.deploying(settings=settings, mark=NEXT))
    await lab.stop_listening()
    await lab.listen()
    assert await lab.boots_from_network() == "disk"
    assert lab.server.disk == CONTENT
