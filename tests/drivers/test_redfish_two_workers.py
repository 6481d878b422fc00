"""What a worker of the partition knows of what another one, or one before it, asked of a BMC."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from mulligan.activities.drivers import orders
from mulligan.activities.drivers.kept import Kept
from mulligan.activities.drivers.redfish import media, power
from mulligan.activities.errors import Busy, Leftover, Unreachable
from tests.drivers.bmc.machine import Machine
from tests.drivers.bmc.parts import a_mark, opened
from tests.drivers.bmc.server import LyingBmc
from tests.drivers.contract import soon

LONG = float("inf")
URL = "http://10.0.0.1:7421/v1/media/job.1.1234567890.aaaaaaaaaaaaaaaaaaaaaaaa/run-1.iso"


@pytest.fixture
def bmc(monkeypatch: pytest.MonkeyPatch) -> Iterator[LyingBmc]:
    """A BMC; what the driver waits for, it waits for a moment only."""
    for module in (power, media):
        monkeypatch.setattr(module, "SETTLE_SECONDS", 0.1)
        monkeypatch.setattr(module, "_LOOK_SECONDS", 0.02)
    with LyingBmc(Machine("1")).listening() as running:
        yield running


@pytest.fixture
async def workers(bmc: LyingBmc, tmp_path: Path) -> AsyncIterator[tuple[Any, Any]]:
    """The drivers of two workers that share the drivers' directory, and nothing else."""
    kept = Kept(), Kept()
    async with opened(bmc, tmp_path, kept=kept[0]) as one, opened(bmc, tmp_path, kept=kept[1]) as other:
        yield one, other
    for each in kept:
        await each.close()


def asked_of(bmc: LyingBmc) -> list[str]:
    """What was ordered, oldest first."""
    return [each.body.get("ResetType") or each.path.rpartition(".")[2] for each in bmc.changes()]


async def test_an_off_while_another_worker_s_order_may_yet_show_is_not_believed(
    bmc: LyingBmc, workers: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor afterwards, as it never showed: the undo switches the machine off."""
    one, other = workers
    bmc.lies.late_power = 10**6
    with pytest.raises(Busy, match="still says Off"):
        await one.power_on(a_mark(), soon())
    with pytest.raises(Busy, match="still says Off"):
        await other.power_off(a_mark(), soon())
    monkeypatch.setattr(orders, "PATIENCE_SECONDS", 0.0)
    await other.power_off(a_mark(), soon())
    assert asked_of(bmc) == ["On", "ForceOff"]
    assert bmc.machine.power == "Off"


async def test_an_order_is_not_given_again_by_another_worker(bmc: LyingBmc, workers: tuple[Any, Any]) -> None:
    """It was given, and shows late."""
    bmc.lies.late_power = 10**6
    for each in workers:
        with pytest.raises(Busy, match="still says Off"):
            await each.power_on(a_mark(), soon())
    assert asked_of(bmc) == ["On"]


async def test_an_order_that_was_answered_is_proved_to_another_worker(bmc: LyingBmc, workers: tuple[Any, Any]) -> None:
    """The BMC shows late that the machine is off; the order is not given again."""
    one, other = workers
    await one.power_on(a_mark(), soon())
    bmc.lies.late_power = 10**6
    with pytest.raises(Busy, match="still says On"):
        await one.power_off(a_mark(), soon())
    bmc.lies.late_power = 0
    await other.power_off(a_mark(), soon())
    assert asked_of(bmc) == ["On", "ForceOff"]


async def test_a_medium_that_another_worker_inserted_is_waited_for_and_ejected(
    bmc: LyingBmc, workers: tuple[Any, Any]
) -> None:
    """The drive names it late: it is not empty."""
    one, other = workers
    bmc.lies.late_media = 10**6
    with pytest.raises(Leftover, match="names nothing"):
        await one.insert_media(a_mark(), URL, soon())
    with pytest.raises(Busy, match="does not name it yet"):
        await other.eject_media(a_mark(), soon())
    bmc.lies.late_media = 1
    await other.eject_media(a_mark(), soon())
    assert asked_of(bmc) == ["InsertMedia", "EjectMedia"]
    assert bmc.machine.image == ""


async def test_a_medium_is_not_inserted_again_by_another_worker(bmc: LyingBmc, workers: tuple[Any, Any]) -> None:
    """The drive names late what it was given."""
    one, other = workers
    bmc.lies.late_media = 10**6
    with pytest.raises(Leftover):
        await one.insert_media(a_mark(), URL, soon())
    bmc.lies.late_media = 1
    await other.insert_media(a_mark(), URL, soon())
    assert asked_of(bmc) == ["InsertMedia"]


async def test_the_off_of_a_bmc_is_not_believed_by_a_worker_that_did_not_see_the_machine_on(
    bmc: LyingBmc, tmp_path: Path
) -> None:
    """Worker and BMC were restarted, and the machine runs."""
    async with opened(bmc, tmp_path) as driver:
        await driver.power_on(a_mark(), soon())
    bmc.machine.shown_power, bmc.machine.told_at = "Off", LONG
    async with opened(bmc, tmp_path) as driver:
        for _ in range(2):
            await driver.power_off(a_mark(), soon())
    assert asked_of(bmc) == ["On", "ForceOff"]
    assert bmc.machine.power == "Off"


async def test_a_bmc_that_was_silent_for_another_worker_may_have_restarted(
    bmc: LyingBmc, workers: tuple[Any, Any]
) -> None:
    """Its session goes on; a worker that did not ask meanwhile does not believe its "off" either."""
    one, other = workers
    await one.power_on(a_mark(), soon())
    bmc.lies.drops_reads = 10**6
    with pytest.raises(Unreachable):
        await other.power(a_mark(), soon())
    bmc.lies.drops_reads = 0
    bmc.machine.shown_power, bmc.machine.told_at = "Off", LONG
    await one.power_off(a_mark(), soon())
    assert asked_of(bmc) == ["On", "ForceOff"]


async def test_a_machine_that_another_worker_saw_on_is_believed_off_by_that_one(
    bmc: LyingBmc, workers: tuple[Any, Any]
) -> None:
    """It was seen on in its session: nothing is to be doubted."""
    one, other = workers
    await one.power_on(a_mark(), soon())
    await other.power(a_mark(), soon())
    bmc.machine.power = "Off"
    await other.power_off(a_mark(), soon())
    assert asked_of(bmc) == ["On"]
