"""A driver that is held open without a question for longer than a BMC keeps a session over IPMI."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from mulligan.activities.bmc_health import BmcState
from mulligan.activities.drivers.ipmi import conversation
from mulligan.activities.drivers.lane_health import health_of
from mulligan.activities.values import PowerState
from tests.drivers.ipmi_parts import Relay, Sim, a_mark, ipmi_sim, nothing_left, opened, soon

OPEN_SESSION, RAKP4 = 0x11, 0x15


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


class Forgetful:
    """Answers of a BMC that ends its session when it is told to, and then says nothing in it."""

    logins = 0
    silent = False
    ends = False

    def __call__(self, answer: bytearray) -> bytearray | None:
        """Swallow what belongs to the session that is over."""
        kind = answer[5] & 0x3F if answer[4] == 6 else -1
        if kind == OPEN_SESSION:
            self.silent = False
        self.logins += kind == RAKP4
        of_session = answer[4] == 6 and kind == 0
        if of_session and self.ends:
            self.silent, self.ends = True, False
        return None if of_session and self.silent else answer


async def test_a_session_that_was_idle_for_long_is_not_used_again(
    sim: Sim, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The BMC ended it; what is asked next is answered at once, in another one, and nobody says that it is silent."""
    forgetful = Forgetful()
    with Relay(sim.port, forgetful) as relay:
        async with opened(relay.port, tmp_path) as driver:
            await driver.power_on(a_mark(), soon())
            assert forgetful.logins == 1
            forgetful.ends = True
            monkeypatch.setattr(conversation, "IDLE_SECONDS", -1.0)
            await driver.power_off(a_mark(), soon(20))
            monkeypatch.undo()
            assert (await driver.power(a_mark(), soon())).state is PowerState.OFF
    assert sim.read("power") == "0"
    assert forgetful.logins == 2
    assert health_of(tmp_path, f"127.0.0.1:{relay.port}").state is BmcState.ANSWERS
