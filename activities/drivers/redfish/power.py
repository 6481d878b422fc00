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
from mulligan.activities.drivers.orders import refuses
from mulligan.activities.drivers.redfish.bmc import Bmc
from mulligan.activities.errors import Busy
from mulligan.activities.values import PowerState

SETTLE_SECONDS = 8.0
"""How long one call waits for the BMC to say what it was asked to bring about."""
_LOOK_SECONDS = 0.5

_SERVER_ERROR = 500
_UNSEEN = (-1, 0)
"""The contact of what was ordered on and not seen on yet."""

_ON = frozenset({Theirs.ON, Theirs.POWERING_ON})
_VERBS = {PowerState.ON: ResetType.ON, PowerState.OFF: ResetType.FORCE_OFF}


def read_power(system: System) -> PowerReading:
    """The power of a system that was read just now. What is being switched off still is on."""
    state = system.power_state
    if state is None:
        raise Busy("the BMC does not say whether the machine is on; it is asked again", after_seconds=5.0)
    on = state is not Theirs.OFF
    return PowerReading(PowerState.ON if on else PowerState.OFF, datetime.now(UTC), str(state.value))


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
    was left on, and where it never showed an order for that, "off" is not believed: it is switched off all the same.
    """
    orders, before = bmc.orders, bmc.orders.awaited(system.path)
    if before is not None and before is not wanted and not _is(system, before):
        _settle(system, before, deadline, None)
    left = bmc.left_on.get(system.path, bmc.contact)
    doubted = wanted is PowerState.OFF and _is(system, wanted) and left != bmc.contact
    if doubted or not _is(system, wanted):
        send = _make_sure if doubted else _order
        lost = send(bmc, system, wanted) if before is not wanted else None
        _settle(system, wanted, deadline, lost)
    orders.end(system.path)
    if wanted is PowerState.ON:
        bmc.left_on[system.path] = bmc.contact
    else:
        bmc.left_on.pop(system.path, None)


def _order(bmc: Bmc, system: System, wanted: PowerState) -> exceptions.ConnectionError | None:
    """Send it, once; gives the error when the answer was lost."""
    left_on = dict(bmc.left_on)
    bmc.orders.give(system.path, wanted)
    if wanted is PowerState.ON:
        bmc.left_on[system.path] = _UNSEEN
    try:
        system.reset_system(_VERBS[wanted])
    except exceptions.ConnectionError as error:
        return error
    except exceptions.SushyError as error:
        if refuses(getattr(error, "status_code", None)):
            bmc.orders.end(system.path)
            bmc.left_on = left_on
        raise
    return None


def _make_sure(bmc: Bmc, system: System, wanted: PowerState) -> exceptions.ConnectionError | None:
    """Send it although the BMC says that it is so. Where it refuses, as some do then, what it says when it is read once
    more counts."""
    try:
        return _order(bmc, system, wanted)
    except exceptions.AccessError:
        raise
    except exceptions.HTTPError as error:
        if error.status_code >= _SERVER_ERROR:
            raise
        bmc.left_on.pop(system.path, None)
        raise Busy(
            f"the BMC says that the machine is {wanted}, and may have restarted since it was on; it does not take the "
            f"order (HTTP {error.status_code}), and is looked at again",
            after_seconds=5.0,
        ) from None


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
