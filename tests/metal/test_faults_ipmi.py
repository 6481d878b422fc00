"""Every lie of a BMC that speaks IPMI, at every step of whole runs: made, released, and nothing sent twice.

What one case stands for, and what is looked at, is as in `test_faults_redfish`. The BMC is a process that speaks RMCP+,
which the real driver speaks with; it boots its server from the network.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import AsyncIterator

import pytest

from mulligan.activities.drivers.ipmi import conversation, driver, faults
from mulligan.activities.values import Outcome
from tests.drivers.ipmi_parts import PASSWORD
from tests.metal.cases import Case, Mending, lasting, passing
from tests.metal.ipmi_lies import LyingIpmi
from tests.metal.ipmi_steps import LASTING, LIES, steps_of
from tests.metal.matrix import Ended, Guested, Known, Lot, Pool, chosen, stacked

PASSING = {name: steps_of(kinds, looks=looks) for name, (kinds, looks) in LIES.items()}
LASTS = {name: steps_of(kinds, looks=looks) for name, (kinds, looks) in LASTING.items()}


@pytest.fixture(scope="module")
async def pool(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Pool]:
    """All chosen cases on one stack."""
    numbers, known, folder = itertools.count(1), Known(), tmp_path_factory.mktemp("bmcs")
    brief = (
        (driver, "SETTLE_SECONDS", 1.0),
        (conversation, "LINGER_SECONDS", 5.0),
        (conversation, "OTHER_SECONDS", 5.0),
        (faults, "BUSY_SECONDS", 1.0),
        (faults, "SESSION_SECONDS", 1.0),
    )
    async with stacked(tmp_path_factory.mktemp("stack"), PASSWORD, *brief) as stack:

        @contextlib.asynccontextmanager
        async def begin(case: Case) -> AsyncIterator[Lot]:
            number = next(numbers)
            mac = f"52:54:00:00:{number // 256:02x}:{number % 256:02x}"
            bmc = LyingIpmi(folder / str(number), case.lie, case.steps, lasts=case.lasts, mac=mac)
            async with bmc.listening():
                server = Guested(
                    bmc,
                    consumes=False,
                    hears_orders=False,
                    look_seconds=0.05,
                    report_seconds=1.0,
                    mac=mac,
                    worked=bmc.worked,
                )
                server.base = f"http://127.0.0.1:{stack.boot_port}/v1/ipxe"
                yield Lot(stack, f"metal-{number}", bmc, server, known, case.mending, case.steps)

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
