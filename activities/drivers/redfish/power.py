"""Power, by verbs of state. A BMC that acts may say so late, or lose its answer: it is looked at before it is asked."""

from __future__ import annotations

import time
from datetime import UTC, datetime

from sushy import exceptions
from sushy.resources.constants import PowerState as Theirs
from sushy.resources.constants import ResetType
from sushy.resources.system.constants import BootProgressStates
from sushy.resources.system.system import System

from mulligan.activities.drivers.base import Deadline, PowerReading, ProgressReading
from mulligan.activities.drivers.orders import APART_SECONDS, UNSEEN, refuses
from mulligan.activities.drivers.redfish.bmc import Bmc
from mulligan.activities.drivers.redfish.refusals import may_mean_off, says_nothing_of_power, says_that_it_starts
from mulligan.activities.errors import Busy
from mulligan.activities.values import PowerState

SETTLE_SECONDS = 8.0
"""How long one call waits for the BMC to say what it was asked to bring about."""
_LOOK_SECONDS = 0.5

_ON = frozenset({Theirs.ON, Theirs.POWERING_ON})
_VERBS = {PowerState.ON: ResetType.ON, PowerState.OFF: ResetType.FORCE_OFF}


def read_power(bmc: Bmc, system: System) -> PowerReading:
    """The power of a system that was read just now. What is being switched off still is on."""
    state = system.power_state
    if state is None:
        raise Busy("the BMC does not say whether the machine is on; it is asked again", after_seconds=5.0)
    said, now = str(state.value), datetime.now(UTC)
    if state is Theirs.OFF:
        return PowerReading(PowerState.OFF, now, said, doubtful=bmc.orders.of(system.path).doubts_off(bmc.contact))
    bmc.orders.seen_on(system.path, bmc.contact)
    return PowerReading(PowerState.ON, now, said)


def read_progress(system: System) -> ProgressReading | None:
    """The boot progress of a system that was read just now; None where it tells none, or that it does not boot."""
    said = system.boot_progress
    state = said.last_state if said is not None else None
    if state in (None, BootProgressStates.NONE):
        return None
    at = said.last_state_updated_at
    since = at if at is not None and at.tzinfo is not None else None
    running = state is BootProgressStates.OS_RUNNING
    return ProgressReading(str(state.value), since, str(said.oem_last_state or "")[:100], running)


def switch(bmc: Bmc, system: System, wanted: PowerState, deadline: Deadline) -> None:
    """Bring the power into the wanted state, and see it there.

    The change is sent once: when its answer is lost, or the BMC does not show it yet, `Busy` or `Unreachable` is
    raised, and later calls only look, for as long as it may yet show (`Orders`). One that asks for the contrary waits
    for that too: a power that is told late is not to be taken for what is wanted now.

    A BMC that restarted may call a machine off that runs (openbmc/openbmc#2224). So where it may have since the machine
    was on, and where it never showed an order for that, "off" is not believed: it is switched off all the same, and
    again, until the BMC answers that it does it, or has refused it twice as one does of what is off, or for a minute
    for another reason than that the machine starts (`Known.balks`). An order whose answer was lost may be sent more
    than once then, whenever it can no more be expected to show; to one that is off, or is to be, that does no harm.
    """
    orders, path, contact = bmc.orders, system.path, bmc.contact
    before = orders.awaited(path)
    if before not in (None, wanted) and not _is(system, PowerState(before)):
        _settle(system, PowerState(before), deadline, None)
    if not _is(system, wanted):
        lost = _order(bmc, system, wanted) if before != wanted else None
        _settle(system, wanted, deadline, lost)
        if wanted is PowerState.OFF and bmc.contact != contact and not orders.of(path).answered:
            raise _doubted("it is looked at again")
    elif wanted is PowerState.OFF and orders.of(path).doubts_off(contact):
        _make_sure(bmc, system, deadline)
    orders.end(path, bmc.contact if wanted is PowerState.ON else None)


def _order(bmc: Bmc, system: System, wanted: PowerState, *, doubted: bool = False) -> exceptions.ConnectionError | None:
    """Send it, once; gives the error when the answer was lost."""
    orders, path = bmc.orders, system.path
    seen_on = wanted is PowerState.OFF and not doubted
    before = bmc.contact if seen_on else orders.of(path).left_on
    orders.give(path, wanted, before if seen_on else UNSEEN)
    try:
        system.reset_system(_VERBS[wanted])
    except exceptions.ConnectionError as error:
        return error
    except exceptions.SushyError as error:
        if refuses(getattr(error, "status_code", None)):
            orders.refused(path, before)
        raise
    orders.answered(path)
    return None


def _make_sure(bmc: Bmc, system: System, deadline: Deadline) -> None:
    """Switch it off although the BMC says that it is, until that was answered, or refused as of one that is off."""
    orders, known = bmc.orders, bmc.orders.of(system.path)
    if known.pending:
        if known.answered:
            return
        raise _doubted("the answer to the order was lost, and it is given again in a while")
    if time.time() - known.refused_at < APART_SECONDS:
        raise _doubted("it did not take the order, and is asked again")
    try:
        lost = _order(bmc, system, PowerState.OFF, doubted=True)
    except exceptions.HTTPError as error:
        if says_that_it_starts(error):
            orders.starts(system.path)
        if says_nothing_of_power(error):
            raise
        as_off = may_mean_off(error)
        orders.refused_off(system.path, as_off=as_off)
        if known.balks or (as_off and known.refused_at):
            return
        if not as_off:
            raise
        raise _doubted(
            f"it does not take the order (HTTP {error.status_code}), and is asked again", APART_SECONDS
        ) from None
    if lost is not None:
        raise lost
    _settle(system, PowerState.OFF, deadline, None)


def _doubted(then: str, seconds: float = 5.0) -> Busy:
    return Busy(
        f"the BMC says that the machine is off, and may have restarted since it was on; {then}", after_seconds=seconds
    )


def _settle(system: System, wanted: PowerState, deadline: Deadline, lost: exceptions.ConnectionError | None) -> None:
    until = Deadline.after(min(SETTLE_SECONDS, max(0.0, deadline.remaining - 1.0)))
    while True:
        try:
            system.refresh()
        except exceptions.ConnectionError as error:
            raise (lost or error) from None
        if _is(system, wanted):
            return
        if until.remaining <= 0:
            break
        time.sleep(min(_LOOK_SECONDS, until.remaining))
    if lost is not None:
        raise lost
    said = system.power_state.value if system.power_state is not None else "nothing"
    raise Busy(f"the BMC was asked for power {wanted}, and still says {said}; it is looked at again", after_seconds=5.0)


def _is(system: System, wanted: PowerState) -> bool:
    return system.power_state in (_ON if wanted is PowerState.ON else {Theirs.OFF})
