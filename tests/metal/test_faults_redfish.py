"""Every lie of a BMC that speaks Redfish, at every step of whole runs: made, released, and nothing sent twice.

One case is one lie, told once or for a moment, at one step of the runs that register a server, make a machine of it and
release it. All of that must end well; what the runs say must be so on the BMC, on the disk and in the inventory; and
the BMC's own log must show that no change was sent twice (`tests/drivers/bmc/once.py` says what that means).

Without `FAULT_MATRIX=full` a case tells its lie twice, once while the machine is made and once while it is
released, and each lie is told in every second phase of the runs, in other phases and at other steps than the lie before
it; so that every lie, every phase and every step has its cases.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import AsyncIterator

import pytest

from mulligan.activities.drivers.redfish import bmc as redfish_bmc
from mulligan.activities.drivers.redfish import faults, media, power, wire
from mulligan.activities.values import Outcome
from tests.drivers.bmc.server import PASSWORD
from tests.metal.matrix import Ended, Guested, Lot, Mending, Pool, chosen, stacked
from tests.metal.redfish_lies import LASTING, LIES, RELEASING, Lie, LyingRedfish

FULL = os.environ.get("FAULT_MATRIX") == "full"


def passing() -> list[str]:
    """The cases of lies that pass, as `lie at step and step`."""
    found = []
    for number, (name, lie) in enumerate(LIES.items()):
        if FULL:
            found += [f"{name} at {step}" for step in lie.steps()]
            continue
        steps = in_phases(lie, number)
        made = [step for phase, step in steps.items() if phase not in RELEASING]
        released = [step for phase, step in steps.items() if phase in RELEASING]
        pairs = itertools.zip_longest(made[number % 2 :: 2] or made, released[number % 2 :: 2])
        found += [f"{name} at {' and '.join(filter(None, pair))}" for pair in pairs]
    return found


def lasting() -> list[str]:
    """The cases of lies that last, as `lie from step, how it ends`."""
    found = []
    for number, (name, lie) in enumerate(LASTING.items()):
        ways = (Mending.HEALS, Mending.GIVEN_UP)
        if FULL:
            found += [f"{name} at {step}, {way}" for step in lie.steps() for way in ways]
            continue
        steps = list(in_phases(lie, number).values())[number % 3 :: 3]
        found += [f"{name} at {step}, {ways[(number + turn) % 2]}" for turn, step in enumerate(steps)]
    return found


def in_phases(lie: Lie, number: int) -> dict[str, str]:
    """For each phase that has any, one of the steps that this lie can fall on; another one for the next lie."""
    phases: dict[str, list[str]] = {}
    for step in lie.steps():
        phases.setdefault(step.partition(".")[0], []).append(step)
    return {phase: steps[number % len(steps)] for phase, steps in phases.items()}


@pytest.fixture(scope="module")
async def pool(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Pool]:
    """All chosen cases on one stack."""
    numbers = itertools.count(1)
    brief = (
        (power, "SETTLE_SECONDS", 0.5),
        (power, "_LOOK_SECONDS", 0.1),
        (media, "SETTLE_SECONDS", 0.5),
        (media, "_LOOK_SECONDS", 0.1),
        (wire, "READ_SECONDS", 3.0),
        (redfish_bmc, "LINGER_SECONDS", 2.0),
        (faults, "COOL_DOWN_SECONDS", 1.0),
    )
    async with stacked(tmp_path_factory.mktemp("stack"), PASSWORD, *brief) as stack:

        @contextlib.asynccontextmanager
        async def begin(case: str) -> AsyncIterator[Lot]:
            told, _, way = case.partition(", ")
            name, _, steps = told.partition(" at ")
            lie = LASTING[name] if way else LIES[name]
            with LyingRedfish(lie, steps.split(" and ")).listening() as bmc:
                server = Guested(bmc, consumes=False, hears_orders=False, look_seconds=0.05)
                yield Lot(stack, f"metal-{next(numbers)}", bmc, server, Mending(way) if way else Mending.NONE)

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
