"""Virtual drives over Redfish as makers have them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from mulligan.activities.drivers.redfish import media
from tests.drivers.bmc.machine import Machine
from tests.drivers.bmc.parts import a_mark, opened
from tests.drivers.bmc.server import LyingBmc
from tests.drivers.contract import soon

MEDIA = "http://boot.test/run-1/agent.iso"


@pytest.fixture
def bmc(monkeypatch: pytest.MonkeyPatch) -> Iterator[LyingBmc]:
    """A BMC; what the driver waits for, it waits for a moment only."""
    monkeypatch.setattr(media, "SETTLE_SECONDS", 0.1)
    monkeypatch.setattr(media, "_LOOK_SECONDS", 0.02)
    with LyingBmc(Machine("1")).listening() as running:
        yield running


async def test_the_drive_that_takes_a_url_is_taken(bmc: LyingBmc, tmp_path: Path) -> None:
    """Though it is not the first: OpenBMC's first ones are for media of the operator's own computer."""
    bmc.machine.has_proxy = True
    async with opened(bmc, tmp_path) as driver:
        assert (await driver.insert_media(a_mark(), MEDIA, soon())).slot == "Cd"
        await driver.eject_media(a_mark(), soon())
    assert bmc.acts() == ["VirtualMedia.InsertMedia", "VirtualMedia.EjectMedia"]
