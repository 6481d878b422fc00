"""A Redfish BMC that restarts: systems that are not there yet, passwords that are refused, log-ins unanswered.

How long it is believed to restart: `test_redfish_absences.py`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from mulligan.activities.drivers import logins
from mulligan.activities.drivers.kept import Kept
from mulligan.activities.drivers.registry import open_driver
from mulligan.activities.errors import AccessDenied, Busy, NotFound, Unreachable
from mulligan.activities.values import PowerState
from tests.drivers.bmc.machine import Machine
from tests.drivers.bmc.parts import a_mark, a_target, credentials_in, opened
from tests.drivers.bmc.server import LyingBmc
from tests.drivers.contract import soon

LONG = float("inf")


@pytest.fixture
def bmc() -> Iterator[LyingBmc]:
    """A BMC with one machine."""
    with LyingBmc(Machine("1")).listening() as running:
        yield running


async def test_a_registered_system_that_is_not_there_yet_is_waited_for(bmc: LyingBmc, tmp_path: Path) -> None:
    """With an empty list of systems, a BMC is still starting; also for who did not see the system himself."""
    bmc.lies.absent_until = LONG
    async with opened(bmc, tmp_path) as driver:
        with pytest.raises(Busy, match=r"lists none now.*restart") as error:
            await driver.power(a_mark(), soon())
        assert error.value.after_seconds > 0
        bmc.lies.absent_until = 0.0
        assert (await driver.power(a_mark(), soon())).state is PowerState.OFF
    assert bmc.changes() == []


async def test_a_system_that_nobody_saw_is_not_found(bmc: LyingBmc, tmp_path: Path) -> None:
    """When a provider is added, an address without a system is wrong; once it was seen, it is waited for."""
    async with opened(bmc, tmp_path) as driver:
        bmc.lies.absent_until = LONG
        with pytest.raises(NotFound, match="it has none"):
            await driver.inspect(soon())
        bmc.lies.absent_until = 0.0
        await driver.inspect(soon())
        bmc.lies.absent_until = LONG
        with pytest.raises(Busy):
            await driver.inspect(soon())


async def test_a_part_that_goes_while_it_is_spoken_to_is_waited_for(bmc: LyingBmc, tmp_path: Path) -> None:
    """The system was read, and the order for power finds nothing."""

    def goes(method: str, path: str, body: object) -> None:
        bmc.lies.absent_until = LONG if method == "POST" else bmc.lies.absent_until

    async with opened(bmc, tmp_path) as driver:
        bmc.plot = goes
        with pytest.raises(Busy, match=r"HTTP 404.*BMCs that restart"):
            await driver.power_on(a_mark(), soon())
        bmc.plot, bmc.lies.absent_until = lambda *_: None, 0.0
        await driver.power_on(a_mark(), soon())
    assert bmc.acts() == ["ComputerSystem.Reset"]


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_bmc_that_is_back_before_it_is_asked_why_is_waited_for(
    bmc: LyingBmc, tmp_path: Path, method: str
) -> None:
    """Its last word before that was 404; when it is asked for its systems it has them again."""
    told: list[str] = []

    def back_at_once(asked: str, path: str, body: object) -> None:
        here = asked == method and path.startswith(bmc.machine.path)
        bmc.lies.absent_until = LONG if here and not told else 0.0
        told.extend([path] if here else [])

    async with opened(bmc, tmp_path) as driver:
        await driver.power(a_mark(), soon())
        bmc.plot = back_at_once
        if method == "GET":
            assert (await driver.power(a_mark(), soon())).state is PowerState.OFF
        else:
            with pytest.raises(Busy, match=r"HTTP 404.*BMCs that restart"):
                await driver.power_on(a_mark(), soon())
            await driver.power_on(a_mark(), soon())
            assert bmc.acts() == ["ComputerSystem.Reset"]
    assert told


@pytest.mark.parametrize("lacks", ["/redfish/v1", "/redfish/v1/SessionService/Sessions"], ids=["root", "sessions"])
async def test_a_bmc_that_has_nothing_yet_when_it_is_logged_in_to_is_waited_for(
    bmc: LyingBmc, tmp_path: Path, lacks: str
) -> None:
    """Its web server is up before what it serves. An address that nobody has registered is wrong at once."""
    bmc.lies.lacks = lacks
    bmc.lies.absent_until = LONG
    async with opened(bmc, tmp_path) as driver:
        with pytest.raises(Busy, match="restart") as error:
            await driver.power(a_mark(), soon())
        assert error.value.after_seconds > 0
        with pytest.raises(NotFound):
            await driver.inspect(soon())
        bmc.lies.lacks, bmc.lies.absent_until = "", 0.0
        assert (await driver.power(a_mark(), soon())).state is PowerState.OFF
    assert bmc.changes() == []
    assert bmc.refused_logins == 0


async def test_a_password_that_is_not_asked_for_when_logging_in_is_tried_once(bmc: LyingBmc, tmp_path: Path) -> None:
    """Without sessions, by basic authentication, the log-in tells nothing of it."""
    bmc.lies.no_sessions, bmc.lies.refuses_session = True, 10**6
    async with opened(bmc, tmp_path) as driver:
        for _ in range(2):
            with pytest.raises(AccessDenied):
                await driver.inspect(soon())


async def test_a_password_that_was_refused_is_not_sent_again_at_once(bmc: LyingBmc, tmp_path: Path) -> None:
    """However many verbs follow, by whichever driver; a corrected one is tried at once."""
    kept, wrong = Kept(), credentials_in(tmp_path, "wrong")
    for verb in ("power", "power_off", "eject_media", "power"):
        driver = await open_driver(a_target(bmc), state_dir=tmp_path, credentials=wrong, kept=kept)
        with pytest.raises(Busy, match=r"HTTP 401.*check the user name and password") as error:
            await getattr(driver, verb)(a_mark(), soon())
        with pytest.raises(AccessDenied, match=r"not asked for .* unless the credential changes.*HTTP 401"):
            await driver.inspect(soon())
        await driver.close()
        assert bmc.refused_logins == 1
    assert "the next log-in is in" in error.value.message
    assert error.value.metadata["status"] == "401"
    async with opened(bmc, tmp_path, kept=kept) as driver:
        await driver.power(a_mark(), soon())
    await kept.close()


async def test_a_password_that_worked_is_tried_again_slowly(bmc: LyingBmc, tmp_path: Path) -> None:
    """Accounts are locked after a few refusals: nothing is sent before it is time."""
    async with opened(bmc, tmp_path) as driver:
        await driver.power(a_mark(), soon())
        bmc.expire_sessions()
        bmc.lies.refuses_logins = 1
        with pytest.raises(Busy, match=r"it took this password before.*try 1 of 3") as error:
            await driver.power(a_mark(), soon())
        assert error.value.after_seconds == logins.REFUSED_SECONDS[0] >= 60
        with pytest.raises(Busy, match="refused a password that it took before"):
            await driver.power(a_mark(), soon())
    assert bmc.refused_logins == 1


async def test_a_password_that_worked_is_not_tried_for_ever(
    bmc: LyingBmc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the last try it counts as wrong; one that is taken in between begins the count anew."""
    monkeypatch.setattr(logins, "REFUSED_SECONDS", (0.0, 0.0, 0.0))
    async with opened(bmc, tmp_path) as driver:
        await driver.power(a_mark(), soon())
        for refusals, expected in ((2, [Busy, Busy]), (10**6, [Busy, Busy, Busy, AccessDenied])):
            bmc.expire_sessions()
            bmc.lies.refuses_logins = refusals
            for kind in expected:
                with pytest.raises(kind):
                    await driver.power(a_mark(), soon())
            if refusals == 2:
                await driver.power(a_mark(), soon())
    assert bmc.refused_logins == 6


async def test_a_log_in_whose_answer_is_lost_is_not_repeated_at_once(
    bmc: LyingBmc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The BMC may keep a session that nobody knows, one for each answer that is lost; the others are ended."""
    bmc.lies.drops_logins = 1
    async with opened(bmc, tmp_path) as driver:
        with pytest.raises(Unreachable):
            await driver.power(a_mark(), soon())
        with pytest.raises(Unreachable, match="the answer to the last log-in was lost"):
            await driver.power(a_mark(), soon())
    assert bmc.opened == 1
    monkeypatch.setattr(logins, "LOST_SECONDS", 0.0)
    bmc.lies.drops_logins = 1
    async with opened(bmc, tmp_path) as driver:
        with pytest.raises(Unreachable):
            await driver.power(a_mark(), soon())
        await driver.power(a_mark(), soon())
    assert (bmc.opened, set(bmc.sessions)) == (3, bmc.lost)


async def test_a_worker_that_began_just_now_gives_up_no_undo_for_a_refusal(
    bmc: LyingBmc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It cannot know that the password worked before: each verb is told to wait, also the first, then has its way."""
    async with opened(bmc, tmp_path) as driver:
        bmc.lies.refuses_logins = len(logins.REFUSED_SECONDS)
        now = time.monotonic()
        for number, seconds in enumerate(logins.REFUSED_SECONDS, 1):
            with pytest.raises(Busy, match=f"HTTP 401.*the provider is registered.*try {number} of 3") as error:
                await driver.power_off(a_mark(), soon())
            assert error.value.after_seconds == seconds
            now += seconds
            monkeypatch.setattr(logins, "time", SimpleNamespace(monotonic=lambda now=now + 1: now))
        await driver.power_off(a_mark(), soon())
    assert bmc.refused_logins == 3


async def test_a_password_that_only_a_new_provider_was_refused_gives_up_no_undo(bmc: LyingBmc, tmp_path: Path) -> None:
    """A server is added while its BMC restarts: that fails at once, and what is registered there waits."""
    kept = Kept()
    async with opened(bmc, tmp_path, kept=kept) as driver:
        bmc.lies.refuses_logins = 1
        with pytest.raises(AccessDenied):
            await driver.inspect(soon())
        with pytest.raises(Busy, match="the password of a registered provider; the next log-in is in"):
            await driver.power_off(a_mark(), soon())
    await kept.close()
    assert bmc.refused_logins == 1
