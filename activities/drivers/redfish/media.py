"""Virtual drives, under the system or under its manager. What they say of themselves is read, and not believed."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

from sushy import exceptions
from sushy.resources.manager.constants import ConnectedVia, VirtualMediaType
from sushy.resources.manager.virtual_media import VirtualMedia
from sushy.resources.system.system import System

from mulligan.activities.drivers.base import Deadline, MediaReading
from mulligan.activities.drivers.orders import Orders, refuses
from mulligan.activities.drivers.redfish.names import is_end, is_url
from mulligan.activities.drivers.redfish.refusals import asks_for_patience, reason_of
from mulligan.activities.drivers.redfish.shown import shown
from mulligan.activities.errors import Busy, InvalidRequest, Leftover, Unsupported
from mulligan.activities.values import Mark

SETTLE_SECONDS = 5.0
_LOOK_SECONDS = 0.5
_NOT_HERE = frozenset({400, 405})
"""The refusals after which the next drive is tried."""
_DISCS = frozenset({VirtualMediaType.CD, VirtualMediaType.DVD})


def drives_of(system: System) -> list[VirtualMedia]:
    """Every drive that can hold a CD or DVD, read afresh; where the system has none, its managers' drives."""
    collections = [_collection(system), *(_collection(manager) for manager in _managers(system))]
    for drives in collections:
        discs = [drive for drive in drives if not drive.media_types or _DISCS & set(drive.media_types)]
        if discs:
            return discs
    return []


def takers(drives: list[VirtualMedia]) -> list[VirtualMedia]:
    """Those that take a URL: by the action, or, where none has it, by a PATCH. Lenovo's EXT drives do, and not its RDOC
    ones, which may tell only when asked (lenovo/python-redfish-lenovo#21); OpenBMC's for operators' media do not.

    By their names: an iDRAC 10 lists its second one first, and its maker advises the first one
    (dell/iDRAC-Redfish-Scripting#324).
    """
    drives = sorted(drives, key=lambda drive: str(drive.identity))
    by_action = [drive for drive in drives if _action(drive, "Insert")]
    return by_action or [drive for drive in drives if drive._allow_patch()]


def read_drive(drive: VirtualMedia) -> MediaReading:
    """A drive that was read just now."""
    inserted = drive.inserted if isinstance(drive.inserted, bool) else None
    return MediaReading(str(drive.identity), _held(drive), inserted, datetime.now(UTC))


def eject_all(drives: list[VirtualMedia], inserts: Orders, deadline: Deadline, but: str = "") -> None:
    """Eject everything but the URL `but`, and see every other drive empty.

    What was inserted and does not show yet is waited for (`Busy`): a drive that names it late is not empty now.
    """
    for drive in drives:
        late = inserts.awaited(drive.path)
        if late not in (None, but) and not _comes(drive, late, deadline):
            raise Busy(
                f"drive {drive.identity} was given {shown(late)}, and does not name it yet; it is looked at again",
                after_seconds=5.0,
            )
        if _holds_other(drive, inserts, but):
            _eject(drive, deadline)
            inserts.end(drive.path)


def insert(drives: list[VirtualMedia], inserts: Orders, mark: Mark, url: str, deadline: Deadline) -> MediaReading:
    """Insert the URL into an empty drive, and see that the drive names it.

    It is sent once: where its answer is lost, or the drive does not name it yet, later calls only look, for as long as
    it may yet show (`Orders`). Whether the drive calls it inserted counts for nothing: some never do. One that shows
    the file only is believed of what it was given just now; else it is emptied, and filled again.
    """
    if mark.run_id not in url:
        raise InvalidRequest(
            f"the image to insert must hold the run's id {mark.run_id} in its URL, so that no older is taken for it",
            violations=[("url", "does not hold the run's id")],
        )
    eject_all(drives, inserts, deadline, but=url)
    left = [drive for drive in drives if _has(drive, inserts, url)] or takers(drives)
    if not left:
        raise Unsupported(
            "the machine has no virtual drive that takes a CD or DVD by its URL; boot it from the network"
        )
    refused: list[str] = []
    for drive in sorted(left, key=lambda each: inserts.awaited(each.path) != url):
        try:
            return _put(drive, inserts, url, deadline)
        except exceptions.HTTPError as error:
            refused.append(f"drive {drive.identity}: {reason_of(error)}")
            if error.status_code not in _NOT_HERE or asks_for_patience(error) or len(refused) == len(left):
                error.detail = "; ".join(refused)
                raise
    raise AssertionError("the last drive returns or raises")


def _put(drive: VirtualMedia, inserts: Orders, url: str, deadline: Deadline) -> MediaReading:
    """Order it, unless it is there or was ordered, and see it."""
    if not _has(drive, inserts, url):
        lost = _order(drive, inserts, url) if inserts.awaited(drive.path) != url else None
        if not _settled(drive, deadline, lambda: _has(drive, inserts, url)):
            if lost is not None:
                raise lost
            names = shown(drive.image or "nothing")
            raise Leftover(
                f"drive {drive.identity} was given the run's image, and names {names}; tried again",
                objects=[str(drive.identity)],
            )
    if is_url(drive.image, url):
        inserts.end(drive.path)  # else that it was given is what tells of it
    return replace(read_drive(drive), url=url)


def _order(drive: VirtualMedia, inserts: Orders, url: str) -> exceptions.ConnectionError | None:
    """Send it, once; gives the error when the answer was lost."""
    inserts.give(drive.path, url)
    try:
        drive.insert_media(url)
    except exceptions.ConnectionError as error:
        return error
    except exceptions.SushyError as error:
        if refuses(getattr(error, "status_code", None)):
            inserts.end(drive.path)
        raise
    return None


def _eject(drive: VirtualMedia, deadline: Deadline) -> None:
    lost: exceptions.ConnectionError | None = None
    try:
        action = _action(drive, "Eject")
        if action:
            drive._conn.post(action, data={})  # not sushy's own, which keeps silent about a refusal
        else:
            drive._conn.patch(drive.path, data={"Image": None, "Inserted": False}, etag=drive._get_etag())
    except exceptions.ConnectionError as error:
        lost = error
    except exceptions.AccessError:
        raise  # it says nothing of the drive
    except exceptions.HTTPError as error:
        drive.refresh()
        if drive.inserted is True or (_held(drive) and not _says_empty(error)):
            raise
        return  # it was empty, whatever it names
    if not _settled(drive, deadline, lambda: not _held(drive)):
        if lost is not None:
            raise lost
        left = shown(drive.image or "nothing")
        raise Leftover(
            f"drive {drive.identity} was asked to eject, and still names {left}; tried again; else reset the BMC",
            objects=[f"{drive.identity}: {left}"],
        )


def _settled(drive: VirtualMedia, deadline: Deadline, is_so: Callable[[], object]) -> bool:
    """Whether it comes to be so within a few seconds."""
    until = Deadline.after(min(SETTLE_SECONDS, max(0.0, deadline.remaining - 1.0)))
    while True:
        drive.refresh()
        if is_so():
            return True
        if until.remaining <= 0:
            return False
        time.sleep(min(_LOOK_SECONDS, until.remaining))


def _comes(drive: VirtualMedia, url: str | None, deadline: Deadline) -> bool:
    """Whether it comes to name the URL, or to hold anything."""
    return _settled(drive, deadline, lambda: is_url(drive.image, url or "") or _held(drive))


def _has(drive: VirtualMedia, inserts: Orders, url: str) -> bool:
    """Whether it names the URL; what it may have kept of it is enough where it was given it, and was empty before."""
    return is_url(drive.image, url) or (inserts.awaited(drive.path) == url and is_end(_held(drive), url))


def _held(drive: VirtualMedia) -> str:
    """The image that is in the drive; empty when none is. Supermicro's go on naming what was ejected, and say both that
    nothing is inserted and that nothing is connected (ansible-collections/community.general#6969)."""
    gone = drive.inserted is False and drive.connected_via is ConnectedVia.NOT_CONNECTED
    return "" if gone else str(drive.image or "")


def _holds_other(drive: VirtualMedia, inserts: Orders, but: str) -> bool:
    """Whether it names an image that is not `but`, or says that it holds one without naming it. One that it names and
    says not to have counts too: it is asked to eject it, as BMCs deny what they hold."""
    return not _has(drive, inserts, but) if drive.image else drive.inserted is True and not but


def _says_empty(refusal: exceptions.HTTPError) -> bool:
    """Whether there was nothing to eject, as iDRACs say of what a drive still names."""
    return "no virtual media devices" in f"{refusal.detail} {refusal.extended_info}".lower()


def _action(drive: VirtualMedia, verb: str) -> str:
    """Where the drive takes the action; empty where it has none."""
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
