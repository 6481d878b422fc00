"""Every lie of a BMC that speaks IPMI, at the steps of whole runs: made, released, and nothing sent twice.

What one case stands for, and what is looked at, is as in `test_faults_redfish`: one lie at one step of the runs, or at
one of each kind where it passes. The BMC is a process that speaks RMCP+, which the real driver speaks with; it boots
its server from the network. Without `FAULT_MATRIX=full` each lie is told once while a machine is made and once
while it is released, at another step than the lie before it.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import AsyncIterator

import pytest

from mulligan.activities.drivers.ipmi import conversation, driver, faults
from mulligan.activities.values import Outcome
from tests.drivers.ipmi_parts import PASSWORD
from tests.metal.ipmi_lies import LyingIpmi
from tests.metal.ipmi_steps import LASTING, LIES, RELEASING, steps_of
from tests.metal.matrix import Ended, Guested, Lot, Mending, Pool, chosen, stacked

FULL = os.environ.get("FAULT_MATRIX") == "full"


def passing() -> list[str]:
    """The cases of lies that pass, as `lie at step and step`."""
    found = []
    for number, (name, (kinds, looks)) in enumerate(LIES.items()):
        steps = steps_of(kinds, looks=looks)
        if FULL:
            found += [f"{name} at {step}" for step in steps]
            continue
        found.append(f"{name} at {' and '.join(each[number % len(each)] for each in _sides(steps))}")
    return found


def lasting() -> list[str]:
    """The cases of lies that last, as `lie at step, how it ends`."""
    found = []
    for number, (name, (kinds, looks)) in enumerate(LASTING.items()):
        steps, ways = steps_of(kinds, looks=looks), (Mending.HEALS, Mending.GIVEN_UP)
        if FULL:
            found += [f"{name} at {step}, {way}" for step in steps for way in ways]
            continue
        side = _sides(steps)[number % 2]
        found.append(f"{name} at {side[number % len(side)]}, {ways[number // 2 % 2]}")
    return found


def _sides(steps: list[str]) -> list[list[str]]:
    """The steps of making a machine, and those of releasing it."""
    released = [step for step in steps if step.partition(".")[0] in RELEASING]
    return [side for side in ([step for step in steps if step not in released], released) if side]


@pytest.fixture(scope="module")
async def pool(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Pool]:
    """All chosen cases on one stack."""
    numbers, folder = itertools.count(1), tmp_path_factory.mktemp("bmcs")
    brief = (
        (driver, "SETTLE_SECONDS", 1.0),
        (conversation, "LINGER_SECONDS", 5.0),
        (faults, "BUSY_SECONDS", 1.0),
        (faults, "SESSION_SECONDS", 1.0),
    )
    async with stacked(tmp_path_factory.mktemp("stack"), PASSWORD, *brief) as stack:

        @contextlib.asynccontextmanager
        async def begin(case: str) -> AsyncIterator[Lot]:
            told, _, way = case.partition(", ")
            name, _, steps = told.partition(" at ")
            number = next(numbers)
            mac = f"52:54:00:00:01:{number:02x}"
            bmc = LyingIpmi(folder / str(number), name, steps.split(" and "), lasts=bool(way), mac=mac)
            async with bmc.listening():
                server = Guested(bmc, consumes=False, hears_orders=False, look_seconds=0.05, mac=mac)
                server.base = f"http://127.0.0.1:{stack.boot_port}/v1/ipxe"
                yield Lot(stack, f"metal-{number}", bmc, server, Mending(way) if way else Mending.NONE)

        pool = Pool(begin, chosen(request))
        yield pool
        await pool.close()


@pytest.mark.parametrize("case", passing())
async def test_a_lie_at_any_step_ends_well_and_nothing_is_sent_twice(pool: Pool, case: str) -> None:
    """A lie that passes costs patience: the machine is made, it is released, and each change was sent once."""
    assert await pool.ended(case) == Ended(Outcome.READY, Outcome.RELEASED)


@pytest.mark.parametrize("case", lasting())
async def test_a_lie_that_lasts_ends_rolled_back_or_quarantined(pool: Pool, case: str) -> None:
    """What cannot be done is given up and undone once the BMC is mended; or it is quarantined, and the command that the
    quarantine names cleans up."""
    ended = await pool.ended(case)
    assert ended.wrong == []
    assert ended.release is (Outcome.OPEN if ended.provision is Outcome.FAILED else Outcome.RELEASED)
    assert "forbidden" in case or case.endswith(Mending.GIVEN_UP) or not ended.quarantined
