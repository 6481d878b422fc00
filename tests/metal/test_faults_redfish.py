"""Every lie of a BMC that speaks Redfish, at every step of whole runs: made, released, and nothing sent twice.

One case is one lie at some steps of the runs that register a server, make a machine of it and release it (which, says
`cases.py`). All of that must end well; what the runs say must be so on the BMC, on the disk and in the inventory; and
the BMC's own log must show that no change was sent twice (`tests/drivers/bmc/once.py` says what that means).
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import AsyncIterator

import pytest

from mulligan.activities.drivers import logins
from mulligan.activities.drivers.redfish import bmc as redfish_bmc
from mulligan.activities.drivers.redfish import faults, media, power, systems, wire
from mulligan.activities.values import Outcome
from tests.drivers.bmc.server import PASSWORD
from tests.metal.cases import Case, Mending, lasting, passing
from tests.metal.matrix import Ended, Guested, Known, Lot, Pool, chosen, stacked
from tests.metal.redfish_lies import LASTING, LIES, LyingRedfish

PASSING = {name: lie.steps() for name, lie in LIES.items()}
LASTS = {name: lie.steps() for name, lie in LASTING.items()}


@pytest.fixture(scope="module")
async def pool(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Pool]:
    """All chosen cases on one stack."""
    numbers, known = itertools.count(1), Known()
    brief = (
        (power, "SETTLE_SECONDS", 0.5),
        (power, "_LOOK_SECONDS", 0.2),
        (media, "SETTLE_SECONDS", 0.5),
        (media, "_LOOK_SECONDS", 0.2),
        (wire, "READ_SECONDS", 2.0),
        (redfish_bmc, "LINGER_SECONDS", 2.0),
        (faults, "COOL_DOWN_SECONDS", 1.0),
        (systems, "ABSENT_SECONDS", 1.0),
        (logins, "REFUSED_SECONDS", (1.0, 1.0, 1.0)),
        (logins, "WRONG_SECONDS", 1.0),
        (logins, "LOST_SECONDS", 1.0),
    )
    async with stacked(tmp_path_factory.mktemp("stack"), PASSWORD, *brief) as stack:

        @contextlib.asynccontextmanager
        async def begin(case: Case) -> AsyncIterator[Lot]:
            lie = (LASTING if case.lasts else LIES)[case.lie]
            with LyingRedfish(lie, case.steps).listening() as bmc:
                server = Guested(
                    bmc, consumes=False, mac=bmc.machine.mac, hears_orders=False, look_seconds=0.05, report_seconds=1.0,
                    worked=bmc.worked,
                )  # fmt: skip
                yield Lot(stack, f"metal-{next(numbers)}", bmc, server, known, case.mending, case.steps)

        pool = Pool(begin, chosen(request))
        yield pool
        await pool.close()


@pytest.mark.parametrize("case", passing(PASSING), ids=str)
async def test_a_lie_at_any_step_ends_well_and_nothing_is_sent_twice(pool: Pool, case: Case) -> None:
    """A lie that passes costs patience: the machine is made, it is released, and each change was sent once."""
    ended = await pool.ended(case)
    assert ended == Ended(Outcome.READY, Outcome.RELEASED), ended


@pytest.mark.parametrize("case", lasting(LASTS), ids=str)
async def test_a_lie_that_lasts_ends_rolled_back_or_quarantined(pool: Pool, case: Case) -> None:
    """What cannot be done is given up and undone once the BMC is mended; or it is quarantined, and the command that the
    quarantine names cleans up."""
    ended = await pool.ended(case)
    assert ended.wrong == []
    assert ended.release is (Outcome.OPEN if ended.provision is Outcome.FAILED else Outcome.RELEASED)
    assert case.lie == "forbidden" or case.mending is Mending.GIVEN_UP or not ended.quarantined
