"""Servers behind a BMC that speaks Redfish, through sushy.

`driver` satisfies the Protocols. Behind it `bmc` holds the session, the thread and the BMC's lane; `wire` sends each
change once and reads with patience, by connections that `transport` cuts in time; `faults` names the errors, `refusals`
reads what a BMC says when it refuses, and `shown` leaves out what opens a medium; `absences` says when what is not
there is gone, and `ornaments` what nothing hangs on; `address` reads URL and settings; `systems` finds the one system
that is meant; `power`, `boot` and `media` change it, `inspection` looks; `fences` refuses who lost the claim.
"""

from __future__ import annotations

from pathlib import Path

from mulligan.activities.credentials import Credential
from mulligan.activities.drivers.fences import Fences
from mulligan.activities.drivers.kept import Kept
from mulligan.activities.drivers.logins import LoginGates
from mulligan.activities.drivers.redfish.address import read_address
from mulligan.activities.drivers.redfish.bmc import Bmc
from mulligan.activities.drivers.redfish.driver import RedfishDriver
from mulligan.activities.drivers.redfish.ornaments import read_leniently
from mulligan.activities.values import Target

__all__ = ["RedfishDriver", "open_redfish"]

read_leniently()


async def open_redfish(target: Target, credential: Credential, state_dir: Path, kept: Kept | None) -> RedfishDriver:
    """A driver; the BMC is spoken to when the first thing is asked of it.

    With `kept`, all openings share the BMC's session and its lane, and with those over IPMI when it is logged in to.
    Raises `InvalidRequest` for settings that are wrong.
    """
    address = read_address(target)

    gates = kept.gates if kept is not None else LoginGates()
    gate = gates.of(address.host.bmc, credential)

    def make() -> Bmc:
        return Bmc(address, credential, state_dir, gate)

    bmc = kept.get(("redfish", address.host, credential), make) if kept is not None else make()
    return RedfishDriver(target.name, address, bmc, Fences(state_dir / "redfish"), shared=kept is not None)
