"""What a guest's call home proves: that it is up, and which disk it came up from.

On a server the second is worth as much as the first. Another of its disks may hold an older system; when the firmware
boots that one, it finds this run's seed all the same, and calls home with this run's token.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from mulligan.activities.values import CallHome, DiskIdentity, Evidence, VerifyLevel

SOURCE = "disk"
"""Where evidence comes from that tells of the disk."""
MOST_NAMED = 3
"""Disks beneath one file system that are named; of more it is said how many."""
_TEXTS = ("path", "serial", "wwn", "model", "mount")


def call_home_evidence(call: CallHome) -> Evidence:
    """That the guest is up."""
    errors = f"; errors: {'; '.join(call.errors)[:200]}" if call.errors else ""
    observed = f"{call.hostname or 'the guest'} called home from {call.peer or '?'}: {call.status}{errors}"
    return Evidence(VerifyLevel.GUEST, "call-home", observed, call.at)


def disk_evidence(call: CallHome, written: DiskIdentity | None) -> tuple[Evidence, ...]:
    """Which disk it booted from, beside the one that this run wrote; nothing where neither is known."""
    if not call.disks and written is None:
        return ()
    if not call.disks and written is not None:
        told = [f"which disk it booted from was not told; its seed is on the one that was written, {written.named}"]
    else:
        told = [_beside(mount, disks, written) for mount, disks in _mounted(call)]
    return tuple(Evidence(None, SOURCE, each, call.at) for each in told)


def booted_elsewhere(call: CallHome, written: DiskIdentity | None) -> str:
    """Why the guest is not the one that was made: it came up from another disk than the one that was written. Empty
    where it is the same disk, or where that cannot be told: then the token proves the seed that it was given."""
    if written is None:
        return ""
    for mount, disks in _mounted(call):
        if _is_among(written, disks) is False:
            what = "came up from" if mount == "/" else f"has its {mount} on"
            return (
                f"{call.hostname or 'the guest'} {what} {_named(disks)}, and not from the disk that was written, "
                f"{written.named}: that disk holds another system. Put the disk that was written first in the server's "
                "boot order, or empty the other one, and try again"
            )
    return ""


def same_disk(one: DiskIdentity, other: DiskIdentity) -> bool | None:
    """Whether two kernels speak of the same disk; None where what they say does not tell.

    A serial number or a WWN that both say decides. The disks of one controller may share a serial number, and the
    controller may show the WWN in another form: what contradicts itself decides nothing. The size alone can only tell
    that they differ.
    """
    said = [(one.serial, other.serial), (one.wwn, other.wwn)]
    agree = [_plain(mine) == _plain(theirs) for mine, theirs in said if mine and theirs]
    sizes_differ = 0 < one.size_bytes != other.size_bytes > 0
    if any(agree):
        return True if all(agree) and not sizes_differ else None
    return False if agree or sizes_differ else None


def call_of(told: Mapping[str, Any], at: datetime) -> CallHome:
    """The call home, as far as it is evidence, as a run's history has it."""
    disks = told.get("disks")
    return CallHome(
        at=at,
        hostname=str(told.get("hostname", "")),
        status=str(told.get("status", "")),
        errors=tuple(told.get("errors", ())),
        peer=str(told.get("peer", "")),
        disks=tuple(disk_of(each) for each in disks) if isinstance(disks, list) else (),
    )


def disk_of(told: Mapping[str, Any]) -> DiskIdentity:
    """The disk, as a run's history has it."""
    return DiskIdentity(**{name: str(told.get(name, "")) for name in _TEXTS}, size_bytes=int(told.get("size_bytes", 0)))


def _mounted(call: CallHome) -> list[tuple[str, list[DiskIdentity]]]:
    mounts = dict.fromkeys(each.mount or "/" for each in call.disks)
    return [(mount, [each for each in call.disks if (each.mount or "/") == mount]) for mount in mounts]


def _is_among(written: DiskIdentity, disks: Iterable[DiskIdentity]) -> bool | None:
    found = [same_disk(written, each) for each in disks]
    return True if True in found else None if None in found else False


def _beside(mount: str, disks: Sequence[DiskIdentity], written: DiskIdentity | None) -> str:
    told = f"{'booted from' if mount == '/' else f'its {mount} is on'} {_named(disks)}"
    if written is None:
        return told
    match _is_among(written, disks):
        case True:
            return f"{told}, which was written by this run"
        case False:
            return f"{told}, which is not the disk that was written, {written.named}"
        case _:
            return f"{told}; whether that is the disk that was written, {written.named}, cannot be told"


def _named(disks: Sequence[DiskIdentity]) -> str:
    more = [f"{len(disks) - MOST_NAMED} more"] if len(disks) > MOST_NAMED else []
    return " and ".join([*(each.named for each in disks[:MOST_NAMED]), *more])


def _plain(name: str) -> str:
    """A serial number or WWN without what kernels and tools write before it."""
    return name.strip().lower().removeprefix("naa.").removeprefix("eui.").removeprefix("0x")
