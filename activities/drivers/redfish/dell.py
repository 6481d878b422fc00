"""The first boot device of Dell's iDRACs, by which alone they boot a virtual CD once, or always.

Their "Cd" is the physical drive: told that, a server goes on to its old disk (dell/iDRAC-Redfish-Scripting#90,
ansible-collections/community.general#494). The virtual one is `VCD-DVD`, in the attributes of the manager.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sushy import exceptions
from sushy.resources.system.system import System

NORMAL, VIRTUAL_CD = "Normal", "VCD-DVD"
_FIRST, _ONCE = "ServerBoot.1.FirstBootDevice", "ServerBoot.1.BootOnce"


@dataclass(frozen=True, slots=True)
class FirstBoot:
    """What an iDRAC says of it, and where."""

    path: str
    etag: str | None
    device: str
    once: bool

    @property
    def is_virtual(self) -> bool:
        """Whether it is the virtual CD; some spell it `vCD-DVD`."""
        return self.device.upper() == VIRTUAL_CD

    @property
    def words(self) -> str:
        """The same for people, in Redfish's words as far as there are any."""
        return f"{self.device}, {'Once' if self.once else 'Continuous'}"


def first_boot(system: System) -> FirstBoot | None:
    """Read it afresh; None for a server of another maker, or whose manager does not offer it."""
    if not str(system.manufacturer or "").lower().startswith("dell"):
        return None
    return next((found for manager in _managers(system) for found in _offered(system, manager)), None)


def change_first_boot(system: System, found: FirstBoot, device: str, *, once: bool) -> FirstBoot:
    """Send it once, then read; when the answer was lost, what is there then decides."""
    lost: exceptions.ConnectionError | None = None
    wanted = {_FIRST: device, _ONCE: "Enabled" if once else "Disabled"}
    try:
        system._conn.patch(found.path, data={"Attributes": wanted}, etag=found.etag)
    except exceptions.ConnectionError as error:
        lost = error
    now = next(_read(system, found.path), found)
    if lost is not None and (now.device.upper(), now.once) != (device.upper(), once):
        raise lost
    return now


def _offered(system: System, manager: Any) -> Iterator[FirstBoot]:
    """From the attributes that the manager links. Older firmware links none, and has them below the manager."""
    dell = (((manager.json or {}).get("Links") or {}).get("Oem") or {}).get("Dell") or {}
    linked = dell.get("DellAttributes") or []
    for each in linked:
        yield from _read(system, each["@odata.id"])
    if not linked:
        try:
            yield from _read(system, f"{manager.path.rstrip('/')}/Attributes")
        except exceptions.ResourceNotFoundError:
            return


def _read(system: System, path: str) -> Iterator[FirstBoot]:
    """What these attributes say; nothing where they are about other things."""
    answer = system._conn.get(path)
    said = answer.json().get("Attributes") or {}
    if _FIRST in said:
        yield FirstBoot(path, answer.headers.get("ETag"), str(said[_FIRST]), said.get(_ONCE) != "Disabled")


def _managers(system: System) -> list[Any]:
    """None where the system links none. One that is linked and not there is waited for: without it "Cd" would do."""
    try:
        return list(system.managers)
    except exceptions.MissingAttributeError:
        return []
