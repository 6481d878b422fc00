"""What a BMC says of a boot, as the verify step takes it: information while it waits, and proof that a system runs."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from temporalio.testing import ActivityEnvironment

from mulligan.activities.calls import Observed, ObserveIn
from mulligan.activities.errors import VerifyFailed
from mulligan.activities.images.store import ImageStore
from mulligan.activities.seal import Keyring
from mulligan.activities.site import Site
from mulligan.activities.values import VerifyLevel
from mulligan.activities.verify import VerifyActivities
from tests.drivers.bmc.machine import Machine
from tests.drivers.bmc.parts import a_mark, a_target, credentials_in
from tests.drivers.bmc.server import LyingBmc

BOOTED = datetime(2026, 1, 2, 3, 0, tzinfo=UTC)


async def observed(folder: Path, state: str, at: datetime) -> Observed:
    """What is observed, for a console, of a server that is on and says this of its boot since then."""
    with LyingBmc(Machine("1", power="On", shown_power="On")).listening() as bmc:
        bmc.machine.progress = {"LastState": state, "LastStateTime": at.isoformat()}
        keyring = Keyring.load(folder / "secret.key")
        site = Site(ImageStore(folder / "cache"), keyring, folder / "drivers", lambda _: "", credentials_in(folder))
        asked = ObserveIn(a_target(bmc), a_mark(), VerifyLevel.CONSOLE, BOOTED, 0)
        try:
            return await ActivityEnvironment().run(VerifyActivities(site).observe, asked)
        finally:
            await site.kept.close()


async def test_a_running_system_stands_for_a_console(tmp_path: Path) -> None:
    """When it runs since after the boot; the evidence names where that is known from."""
    found = await observed(tmp_path, "OSRunning", BOOTED + timedelta(minutes=3))
    assert [(each.level, each.source) for each in found.evidence] == [
        (VerifyLevel.POWER, "power"),
        (VerifyLevel.CONSOLE, "boot-progress"),
    ]
    assert "OSRunning" in found.said


@pytest.mark.parametrize(
    ("state", "minutes"), [("OSRunning", -3), ("OSBootStarted", 3)], ids=["of-an-earlier-boot", "not-yet"]
)
async def test_less_is_told_and_proves_nothing(tmp_path: Path, state: str, minutes: int) -> None:
    """Whoever waits reads how far it came."""
    with pytest.raises(VerifyFailed, match=f"awaiting console of web-1; its BMC says {state}"):
        await observed(tmp_path, state, BOOTED + timedelta(minutes=minutes))
