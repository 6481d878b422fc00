"""The lane of a BMC: one at a time, in a worker and between the workers of a host; and a BMC that is dead."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mulligan.activities.credentials import Credential
from mulligan.activities.drivers import lane
from mulligan.activities.drivers.base import Deadline
from mulligan.activities.drivers.fences import Fences
from mulligan.activities.drivers.ipmi.address import read_address as ipmi_address
from mulligan.activities.drivers.ipmi.driver import open_ipmi
from mulligan.activities.drivers.kept import Kept
from mulligan.activities.drivers.lane import Lane, bmc_name
from mulligan.activities.drivers.redfish import open_redfish
from mulligan.activities.drivers.redfish.address import read_address as redfish_address
from mulligan.activities.drivers.registry import lane_of, normalise_url
from mulligan.activities.errors import Busy, StaleFence, Unreachable
from mulligan.activities.values import PowerState, Target
from tests.drivers.bmc.machine import Machine
from tests.drivers.bmc.parts import a_mark, a_target
from tests.drivers.bmc.server import PASSWORD, USER, LyingBmc
from tests.drivers.contract import soon, until
from tests.drivers.ipmi_parts import SIZES

OTHER_WORKER = """
import asyncio, sys
from pathlib import Path
from mulligan.activities.drivers.base import Deadline
from mulligan.activities.drivers.fences import Fences
from mulligan.activities.drivers.lane import Lane
from mulligan.activities.values import Mark

async def main():
    async def nothing(): pass
    async with Lane("bmc-1", Path(sys.argv[1]), nothing, 0.0).turn("working", Deadline.after(60)):
        Fences(Path(sys.argv[1]) / "redfish").take("system", Mark("tests", "web-1", "m-9", "run-9", 9))
        print("mine", flush=True)
        sys.stdin.readline()

asyncio.run(main())
"""


async def nothing() -> None:
    """No session to end."""


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A TCP port that takes connections and never answers: a BMC whose processor hangs."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        kept: list[socket.socket] = []

        def take() -> None:
            with contextlib.suppress(OSError):
                while True:
                    kept.append(server.accept()[0])

        thread = threading.Thread(target=take)
        thread.start()
        yield int(server.getsockname()[1])
        server.shutdown(socket.SHUT_RDWR)
        thread.join()
        for each in kept:
            each.close()


@contextlib.contextmanager
def another_worker(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that has its turn until its input ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", OTHER_WORKER, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None and process.stdout is not None
    try:
        assert process.stdout.readline().strip() == "mine"
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()


@pytest.mark.parametrize("ending", ["in-time", "killed"])
async def test_the_workers_of_a_host_take_turns(tmp_path: Path, ending: str) -> None:
    """Whoever waits too long is told so; a turn ends with its worker, and what that noted of claims is known."""
    mine = Lane("bmc-1", tmp_path, nothing, 0.0)
    with another_worker(tmp_path) as other:
        with pytest.raises(Busy, match="srv-1: looking: something else is asked of the BMC at bmc-1"):
            async with mine.turn("srv-1: looking", Deadline.after(0.3)):
                raise AssertionError("two workers speak to one BMC")
        assert not mine.taken
        waiting = asyncio.create_task(first_turn(mine))
        if ending == "killed":
            other.kill()
        else:
            assert other.stdin is not None
            other.stdin.write("enough\n")
            other.stdin.flush()
        await asyncio.wait_for(waiting, 60)
    with pytest.raises(StaleFence, match="claim 9 holds it"):
        Fences(tmp_path / "redfish").take("system", a_mark(fence=8))


async def first_turn(mine: Lane) -> None:
    """Have one turn, and do nothing in it."""
    async with mine.turn("looking", soon()):
        pass


async def test_another_bmc_is_not_waited_for(tmp_path: Path) -> None:
    """The other worker's turn is at `bmc-1`."""
    with another_worker(tmp_path):
        await first_turn(Lane("bmc-2", tmp_path, nothing, 0.0))


async def test_who_is_cancelled_while_waiting_holds_nothing(tmp_path: Path) -> None:
    """Neither the worker's lock nor the host's."""
    mine = Lane("bmc-1", tmp_path, nothing, 0.0)
    with another_worker(tmp_path):
        waiting = asyncio.create_task(first_turn(mine))
        await until(lambda: is_taken(mine))
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert not mine.taken
    await first_turn(mine)


async def is_taken(mine: Lane) -> bool:
    """Whether somebody in this worker is at it."""
    return mine.taken


async def test_a_session_ends_although_another_worker_takes_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It waits for its turn, and then not any longer: BMCs have few sessions."""
    monkeypatch.setattr(lane, "END_SECONDS", 0.1)
    ended = []

    async def end() -> None:
        ended.append(True)

    with another_worker(tmp_path):
        mine = Lane("bmc-1", tmp_path, end, 0.0)
        mine.join()
        await mine.leave(now=True)
    assert ended == [True]


def test_one_bmc_has_one_lane_whatever_is_spoken() -> None:
    """By host, and by the port where it is not the protocol's own."""
    assert bmc_name("BMC-7", None, 443) == bmc_name("bmc-7", 443, 443) == bmc_name("bmc-7", 623, 623) == "bmc-7"
    assert bmc_name("bmc-7", 8443, 443) == "bmc-7:8443"


@pytest.mark.parametrize(
    ("one", "other"),
    [("bmc-7", "BMC-7."), ("[fd00::7]", "[FD00:0:0::7]"), ("[fd00::7]", "[fd00:0000:0:0:0:0:0:0007]")],
)
def test_one_bmc_has_one_lane_however_its_host_is_spelled(one: str, other: str) -> None:
    """And one memory of who acted on its systems, which a port that is not the usual one is part of."""
    for form in ("ipmi://{}", "ipmi://{}:624", "redfish://{}/redfish/v1/Systems/1", "redfish://{}:8443/redfish/v1"):
        targets = [Target("srv-1", "default", normalise_url(form.format(host))) for host in (one, other, "bmc-8")]
        lanes = [lane_of(each.url) for each in targets]
        ipmi = form.startswith("ipmi")
        names = [ipmi_address(each).name if ipmi else redfish_address(each).host.name for each in targets]
        for first, second, third in (lanes, names):
            assert first == second != third


async def test_a_claim_is_fenced_off_however_the_host_is_spelled(tmp_path: Path) -> None:
    """The BMC is reached by both."""
    with LyingBmc(Machine("1")).listening() as bmc:
        hosts = [bmc.url.replace("127.0.0.1", host) for host in ("localhost", "LOCALHOST")]
        kept, credential = Kept(), Credential(USER, PASSWORD)
        one, other = [
            await open_redfish(Target("srv-1", "default", f"{host}/redfish/v1/Systems/1"), credential, tmp_path, kept)
            for host in hosts
        ]
        await one.power_on(a_mark(2), Deadline.after(20))
        with pytest.raises(StaleFence):
            await other.power_off(a_mark(1), Deadline.after(20))
        await kept.close()


async def test_a_dead_bmc_costs_its_askers_one_wait_and_others_none(tmp_path: Path, silent_port: int) -> None:
    """Five ask a BMC that hangs: all know it after the first one's patience, and another BMC answers meanwhile."""
    kept, dead = Kept(), Target("srv-0", "default", f"redfish+http://127.0.0.1:{silent_port}/redfish/v1/Systems/1")
    credential = Credential(USER, PASSWORD)
    with LyingBmc(Machine("1")).listening() as alive:
        askers = [await open_redfish(dead, credential, tmp_path, kept) for _ in range(5)]
        living = await open_redfish(a_target(alive), credential, tmp_path, kept)
        began = time.monotonic()
        patience = 6.0
        asked = [asyncio.create_task(each.power(a_mark(), Deadline.after(patience))) for each in askers[:1]]
        await until(lambda: is_taken(askers[0]._bmc.lane))
        asked += [asyncio.create_task(each.power(a_mark(), Deadline.after(patience * 5))) for each in askers[1:]]
        assert (await living.power(a_mark(), soon())).state is PowerState.OFF
        assert not any(each.done() for each in asked)
        outcomes = await asyncio.gather(*asked, return_exceptions=True)
        took = time.monotonic() - began
    assert all(isinstance(each, Unreachable) for each in outcomes), outcomes
    assert sum("did not answer what was asked of it before" in str(each) for each in outcomes) == 4
    assert took < patience * 2, "each asker waited for itself"
    await kept.close()


async def test_a_bmc_that_does_not_answer_over_ipmi_costs_one_wait_too(tmp_path: Path) -> None:
    """The same lane: those who wait are told what the first one found."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as mute:
        mute.bind(("127.0.0.1", 0))
        kept, target = Kept(), Target("srv-0", "default", f"ipmi://127.0.0.1:{mute.getsockname()[1]}", SIZES)
        askers = [await open_ipmi(target, Credential(USER, PASSWORD), tmp_path, kept) for _ in range(3)]
        asked = [asyncio.create_task(each.power(a_mark(), Deadline.after(60))) for each in askers]
        outcomes = await asyncio.gather(*asked, return_exceptions=True)
        assert all(isinstance(each, Unreachable) for each in outcomes), outcomes
        assert sum("did not answer what was asked of it before" in str(each) for each in outcomes) == 2
        await kept.close()
