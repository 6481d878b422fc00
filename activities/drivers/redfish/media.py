"""Virtual drives, under the system or under its manager. What they say of themselves is read, and not believed."""

from __future__ import annotations

import time
from datetime import UTC, datetime

from sushy import exceptions
from sushy.resources.manager.constants import VirtualMediaType
from sushy.resources.manager.virtual_media import VirtualMedia
from sushy.resources.system.system import System

from mulligan.activities.drivers.base import Deadline, MediaReading
from mulligan.activities.drivers.redfish.shown import shown
from mulligan.activities.errors import InvalidRequest, Leftover, Unsupported
from mulligan.activities.values import Mark

SETTLE_SECONDS = 5.0
_LOOK_SECONDS = 0.5
_DISCS = frozenset({VirtualMediaType.CD, VirtualMediaType.DVD})


def drives_of(system: System) -> list[VirtualMedia]:
    """Every drive that can hold a CD or DVD, read afresh; where the system has none, its managers' drives."""
    collections = [_collection(system), *(_collection(manager) for manager in _managers(system))]
    for drives in collections:
        discs = [drive for drive in drives if not drive.media_types or _DISCS & set(drive.media_types)]
        if discs:
            return discs
    return []


def read_drive(drive: VirtualMedia) -> MediaReading:
    """A drive that was read just now."""
    inserted = drive.inserted if isinstance(drive.inserted, bool) else None
    return MediaReading(str(drive.identity), str(drive.image or ""), inserted, datetime.now(UTC))


def eject_all(system: System, deadline: Deadline, but: str = "") -> list[VirtualMedia]:
    """Eject everything but the URL `but`, and see every other drive empty; gives the drives."""
    drives = drives_of(system)
    for drive in drives:
        if _holds_other(drive, but):
            _eject(drive, but, deadline)
    return drives


def insert(system: System, mark: Mark, url: str, deadline: Deadline) -> MediaReading:
    """Insert the URL into an empty drive, and see that the drive names it."""
    if mark.run_id not in url:
        raise InvalidRequest(
            f"the image to insert must hold the run's id {mark.run_id} in its URL, so that no older is taken for it",
            violations=[("url", "does not hold the run's id")],
        )
    drives = eject_all(system, deadline, but=url)
    if not drives:
        raise Unsupported("the machine has no virtual drive for a CD or DVD; boot it from the network")
    for drive in drives:
        if drive.image == url:
            return read_drive(drive)
    drive, lost = next((each for each in drives if _action(each, "Insert")), drives[0]), None
    try:
        drive.insert_media(url)
    except exceptions.ConnectionError as error:
        lost = error
    if not _settled(drive, url, deadline):
        if lost is not None:
            raise lost
        named = shown(drive.image or "nothing")
        raise Leftover(
            f"drive {drive.identity} was given the run's image, and names {named}; tried again",
            objects=[str(drive.identity)],
        )
    return read_drive(drive)


def _eject(drive: VirtualMedia, but: str, deadline: Deadline) -> None:
    lost: exceptions.ConnectionError | None = None
    try:
        action = _action(drive, "Eject")
        if action:
            drive._conn.post(action, data={})  # not sushy's own, which keeps silent about a refusal
        else:
            drive._conn.patch(drive.path, data={"Image": None, "Inserted": False}, etag=drive._get_etag())
    except exceptions.ConnectionError as error:
        lost = error
    if not _settled(drive, "", deadline):
        if lost is not None:
            raise lost
        left = shown(drive.image or "nothing")
        raise Leftover(
            f"drive {drive.identity} was asked to eject, and still names {left}; tried again; else reset the BMC",
            objects=[f"{drive.identity}: {left}"],
        )


def _settled(drive: VirtualMedia, url: str, deadline: Deadline) -> bool:
    """Whether the drive comes to name the URL (or nothing, where that is empty) within a few seconds."""
    until = Deadline.after(min(SETTLE_SECONDS, max(0.0, deadline.remaining - 1.0)))
    while True:
        drive.refresh()
        if str(drive.image or "") == url:
            return True
        if until.remaining <= 0:
            return False
        time.sleep(min(_LOOK_SECONDS, until.remaining))


def _holds_other(drive: VirtualMedia, but: str) -> bool:
    """Whether it names an image that is not `but`, or says that it holds one without naming it."""
    image = str(drive.image or "")
    return image != but if image else drive.inserted is True and not but


def _action(drive: VirtualMedia, verb: str) -> str:
    """Where the drive takes the action; empty where it has none, as OpenBMC's for media of the operator's own."""
    actions = drive.json.get("Actions") or {}
    return str((actions.get(f"#VirtualMedia.{verb}Media") or {}).get("target") or "")


def _collection(owner: object) -> list[VirtualMedia]:
    """The drives below a system or manager; none where it has none, or has the link and not the thing."""
    try:
        return list(owner.virtual_media.get_members())  # type: ignore[attr-defined]  # sushy has no types
    except (exceptions.MissingAttributeError, exceptions.ResourceNotFoundError):
        return []


def _managers(system: System) -> list[object]:
    try:
        return list(system.managers)
    except (exceptions.MissingAttributeError, exceptions.ResourceNotFoundError):
        return []
