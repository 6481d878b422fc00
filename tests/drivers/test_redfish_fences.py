"""By what a Redfish server's fence is kept: it is one and the same server, however its URL and settings name it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from mulligan.activities.drivers.fences import Fences
from mulligan.activities.errors import StaleFence
from tests.drivers.bmc.machine import Machine
from tests.drivers.bmc.parts import a_mark, a_target, opened
from tests.drivers.bmc.server import LyingBmc
from tests.drivers.contract import soon

ROOT, SYSTEM = "/redfish/v1", "/redfish/v1/Systems/1"


@pytest.fixture
def bmc() -> Iterator[LyingBmc]:
    """A BMC with one machine."""
    with LyingBmc(Machine("1")).listening() as running:
        yield running


@pytest.mark.parametrize("path", [SYSTEM, ROOT])
@pytest.mark.parametrize("said", [{}, {"serial": "SN-4711-A"}], ids=["nothing-said", "serial-said"])
async def test_the_claims_of_a_provider_that_is_added_anew_are_counted_on(
    bmc: LyingBmc, tmp_path: Path, path: str, said: dict[str, str]
) -> None:
    """They are made with the serial number that was found when it was added; the newest claim is told with it."""
    told = []
    for machine_id, fences in (("m-1", (1, 7)), ("m-2", (8, 9))):
        async with opened(bmc, tmp_path, a_target(bmc, path, **said)) as driver:
            found = await driver.inspect(soon())
        told.append(found.fence)
        async with opened(bmc, tmp_path, a_target(bmc, path, serial=found.settings["serial"])) as driver:
            for fence in fences:
                await driver.power_off(a_mark(fence, machine_id), soon())
            with pytest.raises(StaleFence):
                await driver.power_off(a_mark(fences[0], machine_id), soon())
    assert told == [0, 7]


@pytest.mark.parametrize("path", [SYSTEM, ROOT])
async def test_a_look_at_a_held_server_lets_no_older_claim_in(bmc: LyingBmc, tmp_path: Path, path: str) -> None:
    """As `provider add` takes it, under a name of its own or another, whatever becomes of that."""
    target = a_target(bmc, path, serial="SN-4711-A")
    async with opened(bmc, tmp_path, target) as driver:
        await driver.power_on(a_mark(2), soon())
    for name in ("srv-1", "typo"):
        async with opened(bmc, tmp_path, replace(target, name=name)) as driver:
            assert (await driver.inspect(soon())).fence == 2
        async with opened(bmc, tmp_path, target) as driver:
            with pytest.raises(StaleFence):
                await driver.power_off(a_mark(1), soon())
    assert bmc.machine.power == "On"


@pytest.mark.parametrize(
    ("path", "kept"), [(SYSTEM, SYSTEM), (ROOT, "?serial=SN-4711-A")], ids=["by-path", "by-serial-number"]
)
async def test_a_fence_that_is_there_already_goes_on_protecting(
    bmc: LyingBmc, tmp_path: Path, path: str, kept: str
) -> None:
    """Its file was written by an older version: what it is called by must not change."""
    Fences(tmp_path / "redfish").take(bmc.url.replace("redfish+http", "http") + kept, a_mark(7))
    async with opened(bmc, tmp_path, a_target(bmc, path, serial="SN-4711-A")) as driver:
        with pytest.raises(StaleFence, match="claim 7 holds it"):
            await driver.power_off(a_mark(6), soon())
        await driver.power_off(a_mark(7), soon())


async def test_a_server_that_is_added_leaves_the_fence_of_its_neighbour(bmc: LyingBmc, tmp_path: Path) -> None:
    """Behind the same BMC, both named by their serial numbers."""
    bmc.machines = (bmc.machine, Machine("2", serial="SN-4711-B", mac="52:54:00:00:00:02"))
    neighbour = a_target(bmc, ROOT, serial="SN-4711-B")
    async with opened(bmc, tmp_path, neighbour) as driver:
        await driver.power_off(a_mark(7), soon())
    async with opened(bmc, tmp_path, a_target(bmc, ROOT, serial="SN-4711-A")) as driver:
        await driver.inspect(soon())
    async with opened(bmc, tmp_path, neighbour) as driver:
        with pytest.raises(StaleFence):
            await driver.power_off(a_mark(6), soon())
