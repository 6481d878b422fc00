"""What the deploy agent wants to do, and what it says that it did, looked at again: nobody vouches for it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mulligan.activities.bootserver.job import Job, JobKind, PermitGiven
from mulligan.activities.bootserver.known import itself, same
from mulligan.activities.bootserver.reports import Asked, name_disk, text
from mulligan.activities.values import DiskKind

GIB = 1024**3
_NO_DISKS = re.compile(r"/dev/(mmcblk\d+(boot\d+|rpmb)|mtdblock)")
"""What older agents list among the disks, and rightly do not erase: parts of a chip with its own firmware in them."""


def forbidden(job: Job, asked: Asked, hardware: Mapping[str, Any]) -> str:
    """Why the agent must not do this to the disk; empty when it may. `hardware` is what this boot of the agent told."""
    against = _against_erasing(job, asked, hardware) if job.kind is JobKind.ERASE else _against_writing(job, asked)
    return "the job is done" if job.result is not None else next(against, "")


def unproved(job: Job, result: Mapping[str, Any], hardware: Mapping[str, Any]) -> str:
    """Why it is not believed that this was done; empty where it may be. `hardware` is what this boot of the agent told.

    Of what was read back the agent's word is all that there is, so it must be the word for what was asked for, and for
    disks that it was permitted to change.
    """
    return _not_erased(job, result, hardware) if job.kind is JobKind.ERASE else _not_written(job, result)


def _not_written(job: Job, result: Mapping[str, Any]) -> str:
    if job.image is None:
        return ""
    digest, size = result.get("digest"), result.get("written_bytes")
    if (digest, size) != (job.image.digest, job.image.bytes):
        said = f"{text(size, 20)} bytes, {text(digest, 80)}"
        return f"it tells of {said}; the image has {job.image.bytes} bytes, {job.image.digest}"
    disk = result.get("disk")
    named = name_disk(disk) if isinstance(disk, dict) else "no disk"
    if not any(each.what == "write" and each.disk == named for each in job.permits):
        return f"it tells of {named}, which it was not permitted to write"
    return ""


def _not_erased(job: Job, result: Mapping[str, Any], hardware: Mapping[str, Any]) -> str:
    if result.get("erase") != job.erase:
        return f"it tells of {text(result.get('erase'), 20)}; to be done was {job.erase}"
    told = _disks(result)
    if not told:
        return "it tells of no disk"
    named = [name_disk(disk) for disk in told]
    permitted = {each.disk for each in job.permits if each.what == "erase"}
    if foreign := [each for each in named if each not in permitted]:
        return f"it tells of {foreign[0]}, which it was not permitted to erase"
    there = _disks(hardware)
    if not job.only and not there:
        return "it did not tell in this boot which disks the server has"
    for disk in () if job.only else there:
        path = str(disk.get("path"))
        if disk.get("removable") is True or _NO_DISKS.match(path) or name_disk(disk) in named:
            continue
        older = "; that is an older agent: `mulligan agent build`" if disk.get("read_only") is True else ""
        return f"it does not tell of {name_disk(disk)}, which it has{older}"
    return ""


def absent(written: Sequence[PermitGiven], result: Mapping[str, Any]) -> tuple[PermitGiven, ...]:
    """Those of the disks of which this erase does not tell. One without a serial number and a WWN is missed only where
    no disk can be it."""
    told = _disks(result)
    return tuple(each for each in written if not any(_may_be(disk, each) for disk in told))


def gone(missing: Sequence[PermitGiven]) -> str:
    """What is said of disks that were written and are not there to be erased; empty for none."""
    if not missing:
        return ""
    named, they, it = ", ".join(each.disk for each in missing), "which was", "it"
    if len(missing) > 1:
        they, it = "which were", "them"
    return (
        f"it does not tell of {named}, {they} written: put {it} back; or see that nobody gets {it}, and release the "
        f"machine again, which then does without {it}"
    )


def _may_be(disk: Mapping[str, Any], known: PermitGiven) -> bool:
    found = same(disk, known)
    return bool(found) if known.serial or known.wwn else found is not False


def _disks(said: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The disks of a report: as they are, or each below `disk`, beside what was done to it."""
    disks = said.get("disks")
    found = [each for each in disks if isinstance(each, dict)] if isinstance(disks, list) else []
    return [inner if isinstance(inner := each.get("disk"), dict) else each for each in found]


def _against_erasing(job: Job, asked: Asked, hardware: Mapping[str, Any]) -> Iterator[str]:
    if asked.what != "erase":
        yield "this job only erases"
    fits = [each for each in job.only if same(asked.disk, each)]
    if job.only and not fits:
        yield "only what this run may have written is to be erased"
    fixed = [disk for disk in _disks(hardware) if disk.get("removable") is not True]
    if job.only and all(len({itself(disk) for disk in fixed if same(disk, each)}) > 1 for each in fits):
        yield "which of the disks that are like it this run has written cannot be told"


def _against_writing(job: Job, asked: Asked) -> Iterator[str]:
    disk, hints = asked.disk, job.root_disk
    if asked.what != "write":
        yield "this job only writes"
    if disk.get("removable") is True:
        yield "it is removable"
    for name in ("serial", "wwn"):
        wanted = getattr(hints, name)
        if wanted and _plain(str(disk.get(name) or "")) != _plain(wanted):
            yield f"its {name} is {disk.get(name) or 'not known'}, and {wanted} was asked for"
    if hints.model and hints.model.lower() not in str(disk.get("model") or "").lower():
        yield f"its model is {disk.get('model') or 'not known'}, and {hints.model} was asked for"
    if hints.kind is not DiskKind.ANY and disk.get("rotational") is not (hints.kind is DiskKind.ROTATIONAL):
        yield f"it is not known to be {hints.kind}, which was asked for"
    size = disk.get("size_bytes")
    least = max(hints.min_gib * GIB, job.image.bytes if job.image is not None else 0)
    if not isinstance(size, int) or size < least:
        yield f"it has {size} bytes, and {least} are needed"


def _plain(name: str) -> str:
    """A serial number or WWN as it is compared: some tools write `0x` or `naa.` before a WWN, others do not."""
    return name.strip().lower().removeprefix("naa.").removeprefix("eui.").removeprefix("0x")
