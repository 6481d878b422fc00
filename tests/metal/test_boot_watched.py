"""While the deploy agent is awaited, its server's BMC says how far the boot came, where it says so."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from mulligan.activities.deploy import DeployActivities
from mulligan.activities.errors import Unreachable
from tests.metal.conftest import PATIENT, Lab, an_environment

SHORT = replace(PATIENT, comes=3.0, silence=0.3, progress_seconds=0.05)


@pytest.mark.parametrize("says", [True, False], ids=["it-says", "it-does-not"])
async def test_who_waits_for_the_agent_is_told_how_far_the_boot_came(lab: Lab, says: bool) -> None:
    """In what is last observed, and in the error when the agent does not come; nothing where the BMC says nothing."""
    lab.server.dead = True
    at = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    if says:
        lab.bmc.machine.progress = {"LastState": "MemoryInitializationStarted", "LastStateTime": at.isoformat()}
    heartbeats: list[str] = []
    environment, site = an_environment(lambda said: heartbeats.append(said["message"])), lab.site()
    with pytest.raises(Unreachable) as raised:
        await environment.run(DeployActivities(site, SHORT).deploy, lab.deploying())
    await site.kept.close()
    told = "nothing was fetched yet; its BMC says MemoryInitializationStarted since 2026-01-02T03:04:05Z"
    assert (told in raised.value.message) is says
    assert any(told in each for each in heartbeats) is says
    assert ("its BMC" in raised.value.message) is says
