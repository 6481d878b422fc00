"""What a BMC says of a boot, as the verify step takes it: information while it waits, and proof that a system runs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from temporalio.activity import ActivityCancellationDetails
from temporalio.testing import ActivityEnvironment

from mulligan.activities.calls import TELLS_PROGRESS, Observed, ObserveIn, WatchBootIn
from mulligan.activities.drivers.base import Deadline
from mulligan.activities.errors import VerifyFailed
from mulligan.activities.images.store import ImageStore
from mulligan.activities.seal import Keyring
from mulligan.activities.site import Site
from mulligan.activities.values import VerifyLevel
from mulligan.activities.verify import VerifyActivities
from mulligan.activities.watch_boot import WatchActivities
from tests.drivers.bmc.machine import Machine
from tests.drivers.bmc.parts import a_mark, a_target, credentials_in, opened
from tests.drivers.bmc.server import LyingBmc

BOOTED = datetime(2026, 1, 2, 3, 0, tzinfo=UTC)


def site_in(folder: Path) -> Site:
    """A worker's surroundings."""
    keyring = Keyring.load(folder / "secret.key")
    return Site(ImageStore(folder / "cache"), keyring, folder / "drivers", lambda _: "", credentials_in(folder))


async def observed(folder: Path, state: str, at: datetime) -> Observed:
    """What is observed, for a console, of a server that is on and says this of its boot since then."""
    with LyingBmc(Machine("1", power="On", shown_power="On")).listening() as bmc:
        bmc.machine.progress = {"LastState": state, "LastStateTime": at.isoformat()}
        site = site_in(folder)
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
    assert "its BMC says OSRunning since 2026-01-02T03:03:00Z" in found.said


@pytest.mark.parametrize(
    ("state", "minutes"), [("OSRunning", -3), ("OSBootStarted", 3)], ids=["of-an-earlier-boot", "not-yet"]
)
async def test_less_is_told_and_proves_nothing(tmp_path: Path, state: str, minutes: int) -> None:
    """Whoever waits reads how far it came."""
    at = BOOTED + timedelta(minutes=minutes)
    with pytest.raises(
        VerifyFailed, match=f"awaiting console of web-1; its BMC says {state} since {at:%Y-%m-%dT%H:%M}"
    ):
        await observed(tmp_path, state, at)


@dataclass
class Watching:
    """A watch of a server's boot, as a worker does it for a run that waits for a call home."""

    bmc: LyingBmc
    environment: ActivityEnvironment
    task: asyncio.Task[Observed]
    heartbeats: list[str]

    def says(self, state: str, at: datetime) -> None:
        """From now on the BMC says this."""
        with self.bmc.lock:
            self.bmc.machine.progress = {"LastState": state, "LastStateTime": at.isoformat()}

    async def told(self, words: str) -> None:
        """Wait until whoever waits is told this."""
        async with asyncio.timeout(30):
            while not any(words in each for each in self.heartbeats):  # noqa: ASYNC110 - said from another task
                await asyncio.sleep(0.02)

    async def end(self, **why: bool) -> Observed:
        """Cancel it, as a run does that heard what it waited for."""
        self.environment.cancel(ActivityCancellationDetails(**(why or {"cancel_requested": True})))
        return await self.task


@pytest.fixture
async def watching(tmp_path: Path) -> AsyncIterator[Watching]:
    """A watch of a boot that the BMC says nothing of yet."""
    with LyingBmc(Machine("1", power="On", shown_power="On")).listening() as bmc:
        site = site_in(tmp_path)
        environment, heartbeats = ActivityEnvironment(), list[str]()
        environment.on_heartbeat = lambda said: heartbeats.append(str(said["message"]))
        asked = WatchBootIn(a_target(bmc), a_mark(), BOOTED, "the guest's call home")
        task = asyncio.create_task(environment.run(WatchActivities(site, 0.05, 0.5).watch_boot, asked))
        yield Watching(bmc, environment, task, heartbeats)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await site.kept.close()


async def test_who_waits_for_a_call_home_is_told_how_far_the_boot_came(watching: Watching) -> None:
    """Whenever it comes further; what was said last is evidence of no level."""
    await watching.told("awaiting the guest's call home; its BMC does not say how far it came with its boot")
    watching.says("OSBootStarted", BOOTED + timedelta(minutes=1))
    await watching.told("its BMC says OSBootStarted since 2026-01-02T03:01:00Z")
    watching.says("OSRunning", BOOTED + timedelta(minutes=2))
    await watching.told("its BMC says OSRunning")
    seen = await watching.end()
    (one,) = seen.evidence
    assert (one.level, one.source, one.at) == (None, "boot-progress", BOOTED + timedelta(minutes=2))
    assert seen.said == one.observed == "its BMC says OSRunning since 2026-01-02T03:02:00Z"


async def test_what_is_older_than_the_boot_is_told_and_is_no_evidence(watching: Watching) -> None:
    """It is of the boot before, or the BMC's clock is wrong: it stands there with its time."""
    watching.says("OSRunning", BOOTED - timedelta(minutes=1))
    await watching.told("its BMC says OSRunning since 2026-01-02T02:59:00Z")
    assert (await watching.end()).evidence == ()


async def test_a_bmc_that_is_away_for_a_while_fails_nothing(watching: Watching) -> None:
    """It is asked again; what it said before stays what was last observed."""
    watching.says("OSBootStarted", BOOTED + timedelta(minutes=1))
    await watching.told("OSBootStarted")
    with watching.bmc.lock:
        watching.bmc.lies.drops_reads = 20
    async with asyncio.timeout(60):
        while watching.bmc.lies.drops_reads:  # noqa: ASYNC110 - it is counted in another thread
            await asyncio.sleep(0.02)
    watching.says("OSRunning", BOOTED + timedelta(minutes=2))
    await watching.told("OSRunning")
    await watching.end()


async def test_a_worker_that_ends_leaves_the_watch_to_another(watching: Watching) -> None:
    """It is not over: nobody cancelled it."""
    watching.says("OSRunning", BOOTED + timedelta(minutes=2))
    await watching.told("OSRunning")
    with pytest.raises(asyncio.CancelledError):
        await watching.end(worker_shutdown=True)


@pytest.mark.parametrize(
    ("progress", "tells"),
    [({}, False), ({"LastState": "None"}, True), ({"LastState": "OSRunning"}, True)],
    ids=["offers-none", "off", "running"],
)
async def test_whether_a_bmc_says_it_is_known_when_it_is_registered(
    tmp_path: Path, progress: dict[str, str], tells: bool
) -> None:
    """Where it does not, no run asks."""
    with LyingBmc(Machine("1", progress=progress)).listening() as bmc:
        async with opened(bmc, tmp_path) as driver:
            inspection = await driver.inspect(Deadline.after(30))
    assert (TELLS_PROGRESS in inspection.capabilities) is tells


async def test_a_server_that_is_off_is_not_waited_for(watching: Watching) -> None:
    """It ends with what its BMC said last; one that is off for less than that is waited for."""
    watching.says("OSBootStarted", BOOTED + timedelta(minutes=1))
    await watching.told("OSBootStarted")
    with watching.bmc.lock:
        watching.bmc.machine.power = watching.bmc.machine.shown_power = "Off"
    with pytest.raises(VerifyFailed, match=r"was switched on, but .* says off; its BMC says OSBootStarted since 2026"):
        await watching.task
