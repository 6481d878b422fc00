"""When a BMC that refuses a log-in over IPMI is asked for one again: as over Redfish, slowly, and not for ever."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from mulligan.activities.drivers import logins
from mulligan.activities.errors import AccessDenied, Busy
from mulligan.activities.values import PowerState
from tests.drivers.ipmi_parts import Relay, Sim, a_mark, ipmi_sim, nothing_left, opened, soon

RAKP2, NO_SUCH_USER = 0x13, 0x0D


@pytest.fixture(scope="module")
def sim(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sim]:
    """One honest simulator behind all relays."""
    with ipmi_sim(tmp_path_factory.mktemp("sim") / "bmc") as running:
        yield running


@pytest.fixture(autouse=True)
async def nothing_is_left() -> AsyncIterator[None]:
    """By any test."""
    async with nothing_left():
        yield


class Restarting:
    """Answers of a BMC that knows no users for a while."""

    refuses = False

    def __call__(self, answer: bytearray) -> bytearray:
        """Say in the answer to a log-in that there is no such user."""
        if self.refuses and answer[4] == 6 and answer[5] & 0x3F == RAKP2:
            answer[17] = NO_SUCH_USER
        return answer


async def test_a_user_that_worked_is_tried_again_slowly(sim: Sim, tmp_path: Path) -> None:
    """BMCs that restart refuse all: it is said when the next log-in is, and nothing is sent before."""
    restarting = Restarting()
    with Relay(sim.port, restarting) as relay:
        async with opened(relay.port, tmp_path) as driver:
            await driver.power(a_mark(), soon())
            await driver._conversation.lane.close()
            restarting.refuses = True
            with pytest.raises(Busy, match=r"no such user.*it took this password before.*try 1 of 3") as error:
                await driver.power(a_mark(), soon())
            assert error.value.after_seconds == logins.REFUSED_SECONDS[0] >= 60
            asked = relay.asked
            with pytest.raises(Busy, match="refused a password that it took before"):
                await driver.power(a_mark(), soon())
            assert relay.asked == asked


async def test_a_user_that_worked_is_not_tried_for_ever(
    sim: Sim, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the last try it counts as wrong; one that is taken in between begins the count anew."""
    monkeypatch.setattr(logins, "REFUSED_SECONDS", (0.0, 0.0))
    restarting = Restarting()
    with Relay(sim.port, restarting) as relay:
        async with opened(relay.port, tmp_path) as driver:
            for expected in ([Busy], [Busy, Busy, AccessDenied]):
                assert (await driver.power(a_mark(), soon())).state is PowerState.OFF
                await driver._conversation.lane.close()
                restarting.refuses = True
                for kind in expected:
                    with pytest.raises(kind):
                        await driver.power(a_mark(), soon())
                restarting.refuses = False


async def test_a_user_that_nobody_registered_is_tried_once(sim: Sim, tmp_path: Path) -> None:
    """Accounts are locked after a few refusals: the next verbs are told the same, and nothing is sent."""
    with Relay(sim.port, lambda answer: answer) as relay:
        async with opened(relay.port, tmp_path, password="wrong") as driver:
            with pytest.raises(AccessDenied, match="the password is wrong"):
                await driver.inspect(soon())
            asked = relay.asked
            with pytest.raises(AccessDenied, match=r"not asked for .*the password is wrong"):
                await driver.inspect(soon())
            for verb in (driver.power, driver.power_off, driver.clear_boot_override):
                with pytest.raises(Busy, match=r"next log-in is in .*the password is wrong"):
                    await verb(a_mark(), soon())
            assert relay.asked == asked


async def test_a_registered_bmc_that_refuses_the_first_log_in_is_waited_for(sim: Sim, tmp_path: Path) -> None:
    """Also by a worker that began just now: the BMC may restart, and one refusal gives up no undo."""
    restarting = Restarting()
    restarting.refuses = True
    with Relay(sim.port, restarting) as relay:
        async with opened(relay.port, tmp_path) as driver:
            with pytest.raises(Busy, match=r"no such user.*the provider is registered.*try 1 of 3") as error:
                await driver.power_off(a_mark(), soon())
            assert error.value.after_seconds == logins.REFUSED_SECONDS[0]
