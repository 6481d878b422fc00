"""The agent and live images on a server whose iDRAC takes "Cd" for the physical drive, as far as that can be played."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from mulligan.activities import calls
from mulligan.activities.boot import BootActivities
from mulligan.activities.live import LiveActivities
from mulligan.activities.values import MachineRequest, Resources, VerifyLevel
from tests.drivers.bmc.machine import FIRST, ONCE, Machine
from tests.drivers.bmc.server import LyingBmc
from tests.images.live_parts import live_iso
from tests.metal.conftest import CONTENT, MARK, PATIENT, Lab, an_environment


@pytest.fixture
def bmc() -> Iterator[LyingBmc]:
    """A Dell: nothing but its manager's attributes boots a virtual CD."""
    with LyingBmc(Machine("1", attributes={FIRST: "Normal", ONCE: "Enabled"})).listening() as running:
        yield running


async def test_the_agents_medium_is_what_boots(lab: Lab) -> None:
    """And not the old disk, on which "Cd" ends. Nothing of it stays on the BMC."""
    await lab.deploy(patience=replace(PATIENT, comes=5.0))
    assert (lab.server.boots, lab.server.disk == CONTENT) == (["agent"], True)
    assert lab.is_at_rest()
    assert lab.bmc.machine.attributes == {FIRST: "Normal", ONCE: "Enabled"}


async def test_a_live_image_is_booted_by_every_boot_until_it_is_taken_down(lab: Lab) -> None:
    """So that no evidence says that the BMC overrides one boot only."""
    image, site = live_iso(lab.directory), lab.site()
    request = MachineRequest("shop", "web-1", image.name, Resources(1, 512, 0), verify=VerifyLevel.POWER)
    asked = calls.DisksIn(lab.target(), MARK, image, request, "provision:shop:web-1", 1, 600)
    try:
        done = await an_environment().run(LiveActivities(site, replace(PATIENT, comes=5.0)).boot_live, asked)
        assert (lab.server.boots, lab.bmc.machine.boots) == (["live"], "Cd")
        assert [each.source for each in done.evidence] == ["boot-server"]
        await an_environment().run(BootActivities(site).tear_down, calls.MadeFor(lab.target(), MARK))
    finally:
        await site.kept.close()
    assert lab.is_at_rest()
    assert lab.bmc.machine.attributes == {FIRST: "Normal", ONCE: "Enabled"}
