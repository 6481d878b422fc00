"""Booting a server from the disk that was written, switching it off, and what is said before anything is done."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from mulligan.activities import calls
from mulligan.activities.boot import BootActivities
from mulligan.activities.errors import Busy
from mulligan.activities.image import ImageActivities
from mulligan.activities.planning import SurveyIn
from mulligan.activities.site import Site
from mulligan.activities.survey import SurveyActivities
from mulligan.activities.values import Claim, Kind, VerifyLevel
from tests.metal.conftest import MARK, Lab, an_environment, until


@asynccontextmanager
async def working(lab: Lab) -> AsyncIterator[Site]:
    """A worker's surroundings, given back at the end."""
    site = lab.site()
    yield site
    await site.kept.close()


def booting(lab: Lab) -> calls.BootIn:
    """What the workflow asks for after the disk was written."""
    disks = lab.deploying()
    held = Claim("c-1", "m-1", "shop", "web-1", disks.target, Kind.BARE_METAL, disks.request.resources, 1)
    return calls.BootIn(disks.target, MARK, held, disks.image, disks.request)


async def boot(lab: Lab) -> calls.Booted:
    """One attempt."""
    async with working(lab) as site:
        return await an_environment().run(BootActivities(site).boot, booting(lab))


async def tear_down(lab: Lab) -> calls.Done:
    """One attempt."""
    async with working(lab) as site:
        return await an_environment().run(BootActivities(site).tear_down, calls.MadeFor(lab.target(), MARK))


async def test_a_server_boots_from_its_disk(lab: Lab) -> None:
    """Once, told by the BMC and read back; another attempt leaves it on."""
    await lab.deploy()
    await boot(lab)
    await until(lambda: lab.server.boots == ["agent", "disk"])
    acts = len(lab.bmc.acts())
    await boot(lab)
    assert (len(lab.bmc.acts()), lab.server.boots) == (acts, ["agent", "disk"])
    override = [each.body["Boot"] for each in lab.bmc.changes() if "Boot" in each.body]
    assert override[-1]["BootSourceOverrideTarget"] == "Hdd"


async def test_a_server_that_is_on_is_not_taken_for_booted(lab: Lab) -> None:
    """Whatever ran on it before: it is switched off first."""
    await lab.deploy()
    with lab.bmc.lock:
        lab.bmc.machine.power = "On"
    await until(lambda: len(lab.server.boots) == 2)
    await boot(lab)
    await until(lambda: len(lab.server.boots) == 3)


async def test_a_server_stays_off_when_the_override_is_forgotten(lab: Lab) -> None:
    """It is asked again."""
    await lab.deploy()
    lab.bmc.lies.forgets_override = 1
    with pytest.raises(Busy, match="asked for one boot from disk"):
        await boot(lab)
    assert lab.is_at_rest()
    await boot(lab)


async def test_a_server_is_switched_off(lab: Lab) -> None:
    """And boots anew afterwards."""
    await lab.deploy()
    await boot(lab)
    await until(lambda: lab.server.boots == ["agent", "disk"])
    await tear_down(lab)
    assert lab.is_at_rest()
    await tear_down(lab)
    await boot(lab)
    await until(lambda: lab.server.boots == ["agent", "disk", "disk"])


async def test_an_image_is_made_ready_before_a_server_is_touched(lab: Lab) -> None:
    """Raw and verified, on this host; the BMC is asked for nothing."""
    disks = lab.deploying()
    async with working(lab) as site:
        done = await an_environment().run(ImageActivities(site).prepare, calls.ImageIn(disks.target, disks.image))
    assert "ready for srv-1: verified, raw" in done.said
    assert lab.bmc.acts() == []


def surveying(lab: Lab, **settings: str) -> SurveyIn:
    """What a plan asks."""
    disks: Any = lab.deploying(settings=settings)
    return SurveyIn(disks.target, "bare-metal", disks.image, disks.request)


async def test_a_plan_knows_that_the_agent_writes_the_disk(lab: Lab) -> None:
    """Nothing is lacking, and it is said what is destroyed."""
    async with working(lab) as site:
        found = await an_environment().run(SurveyActivities(site).survey, surveying(lab))
    assert (found.by_agent, found.lacks) == (True, ())
    assert found.destroys == ("everything on the root disk of srv-1, which is given whole",)


@pytest.mark.parametrize("lacking", ["agent", "url", "plain-url", "macs"])
async def test_a_plan_knows_what_the_agent_lacks(lab: Lab, lacking: str) -> None:
    """Before the server is claimed."""
    settings = {"boot_from": "network"} if lacking == "macs" else {}
    words = {"agent": "mulligan agent build", "url": "boot_url=", "plain-url": "not https", "macs": "macs="}
    if lacking == "agent":
        (lab.directory / "agent" / "manifest.json").unlink()
    site = lab.site()
    if lacking in ("url", "plain-url"):
        url = "https://boot.test:7421" if lacking == "plain-url" else ""
        site = Site(site.store, site.keyring, site.drivers_dir, lambda _: url, site.credentials)
    found = await an_environment().run(SurveyActivities(site).survey, surveying(lab, **settings))
    await site.kept.close()
    assert [words[lacking] in lack for lack in found.lacks] == [True]


async def test_a_plan_knows_that_nobody_sees_the_console(lab: Lab) -> None:
    """And which level takes its place."""
    asked = surveying(lab)
    asked = replace(asked, request=replace(asked.request, verify=VerifyLevel.CONSOLE))
    async with working(lab) as site:
        (lack,) = (await an_environment().run(SurveyActivities(site).survey, asked)).lacks
    assert "nobody sees the console of srv-1" in lack
