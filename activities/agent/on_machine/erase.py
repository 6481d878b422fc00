"""Erasing disks: what is left readable afterwards is what was asked to be left, and that is looked at."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from . import disk_io
from .ata import UNSUPPORTED, hidden, is_locked, native_bytes
from .choose import hands_off
from .forget import ways
from .hardware import DEV, SYS, Disk, disks
from .home import Home
from .known import find
from .marks import SAMPLES, Marks, ends, reads_zeros
from .partitions import reread, table
from .reporter import Reporter
from .side_by_side import Erasing, at_once
from .tools import Failed

UNTOLD = "the disk does not tell whether it hides a part of it (HPA)"


def erase(home: Home, reporter: Reporter, asked: Mapping[str, Any], sys: Path = SYS, dev: Path = DEV) -> dict[str, Any]:
    """Erase every fixed disk, or those that `only` tells of; what was done to each.

    What cannot be erased keeps no other disk from it. Raises `Failed` at the end then, and whatever the reporter raises
    when the work must stop.
    """
    mode, only = str(asked["erase"]), asked.get("only")
    there = disks(sys, dev)
    fixed = [disk for disk in there if not disk.removable]
    chosen, left = (fixed, []) if only is None else _written(only, fixed)
    if not chosen and not left:
        raise Failed("NO_DISK", "there is no fixed disk to erase that the drivers of this machine see")
    able = []
    for disk in chosen:
        if why := hands_off(disk):
            print(f"erasing: {disk.path} is not erased: {why}", flush=True)
            left.append(f"{disk.named}: {why}")
        else:
            reporter.at("erasing", f"asking whether {disk.named} may be erased")
            home.permit(disk.as_json(), "erase")
            able.append(disk)
    done = []
    for disk, how in _all_erased(able, mode, reporter):
        if isinstance(how, Failed):
            left.append(f"{disk.named}: {how}")
        else:
            done.append({"disk": disk.as_json(), "how": how})
    if left:
        raise Failed("NOT_ERASED", _told_left(left, len(done)))
    skipped = [{"disk": disk.as_json(), "why": hands_off(disk)} for disk in there if only is None and disk.removable]
    return {"erase": mode, "disks": done, "skipped": skipped}


def _written(only: Iterable[Mapping[str, Any]], fixed: list[Disk]) -> tuple[list[Disk], list[str]]:
    """The disks that it tells of, and why not of each that is not found."""
    found: list[Disk] = []
    left: list[str] = []
    for each in only:
        try:
            found.append(find(each, fixed))
        except Failed as failed:
            left.append(str(failed))
    return list(dict.fromkeys(found)), left


def _told_left(left: list[str], done: int) -> str:
    """What to do comes first: a run keeps the beginning of what is said."""
    return (
        f"{len(left)} disk(s) could not be erased, {done} were. Replace or remove what is named here and release the "
        f"machine again, or leave disks as they are with `--erase none`: {'; '.join(left)}"
    )


def _all_erased(able: list[Disk], mode: str, reporter: Reporter) -> list[tuple[Disk, str | Failed]]:
    """At once; but what leads to one disk, by its WWN, one after the other."""
    erasing = Erasing(reporter, able, passes=2 if mode == "full" else 1)
    paths: dict[str, list[Disk]] = {}
    for disk in able:
        paths.setdefault(disk.wwn or disk.path, []).append(disk)

    def of_one(disks: list[Disk]) -> list[tuple[Disk, str | Failed]]:
        return [(disk, _erased(disk, mode, erasing)) for disk in disks]

    ended = [each for group in at_once([partial(of_one, group) for group in paths.values()]) for each in group]
    return sorted(ended, key=lambda each: able.index(each[0]))


def _erased(disk: Disk, mode: str, erasing: Erasing) -> str | Failed:
    """What was done to the disk, or why it is not erased."""
    try:
        how = _whole(disk, erasing) if mode == "full" else _metadata(disk, erasing)
    except Failed as failed:
        print(f"erasing: {disk.path} is not erased: {failed}", flush=True)
        erasing.ended(disk, "{} not erased")
        return failed
    erasing.ended(disk, "{} erased")
    return how


def _metadata(disk: Disk, erasing: Erasing) -> str:
    """Zero the first and last mebibyte of the disk and of every partition, which also ends the partition table."""
    places = [(0, disk.size_bytes)] + [(each.start, each.size) for each in table(disk.path).partitions]
    spots = sorted({spot for start, size in places for spot in ends(start, size, disk.size_bytes)}, reverse=True)
    for done, (offset, size) in enumerate(spots):
        erasing.at(disk, "wiping {}", done, len(spots))
        disk_io.write_at(disk.path, offset, bytes(size))
    reread(disk.path)
    if table(disk.path).label:
        raise Failed("NOT_ERASED", "it still has a partition table after it was overwritten")
    return f"the first and last MiB of the disk and of its {len(places) - 1} partition(s) read as zeros"


def _whole(disk: Disk, erasing: Erasing) -> str:
    """Let the disk forget everything by itself where it can, and see that it did; else overwrite all of it.

    What was done, and what was not and why, for people.
    """
    native = native_bytes(disk) if disk.ata else disk.size_bytes
    if why := hidden(disk, native):
        raise Failed("NOT_ERASED", why)
    before = [] if native else [UNTOLD]
    marks = Marks(disk)
    for way in ways(disk):
        erasing.at(disk, way.name + " of {}")
        try:
            marks.write(erasing.check)
        except Failed as failed:
            before.append(f"not left to the disk, whose erasing could not be proved: {failed}")
            break
        try:
            way.go(erasing.check)
        except Failed as failed:
            print(f"erasing: no {way.name}: {str(failed).splitlines()[-1]}", flush=True)
            if failed.name == UNSUPPORTED:
                before.append(f"no {way.name}: {failed}")
            continue
        if marks.are_zeros():
            return _told(f"{way.name}; {SAMPLES} places and both ends, marked before, read as zeros", before)
        before.append(f"after {way.name} not all of it reads as zeros")
    if is_locked(disk):
        raise Failed("NOT_ERASED", "it is locked by an ATA password that is not ours; unlock or replace it")
    _overwrite(disk, erasing)
    return _told("overwritten with zeros, and read back whole", before)


def _told(how: str, before: list[str]) -> str:
    return f"{how} ({'; '.join(before)})" if before else how


def _overwrite(disk: Disk, erasing: Erasing) -> None:
    size = disk.size_bytes
    disk_io.overwrite(disk.path, size, lambda done: erasing.at(disk, "overwriting {}", done, size))
    if not reads_zeros(
        disk.path, [(0, size)], lambda done: erasing.at(disk, "reading {} back", done, size, phase="checking")
    ):
        raise Failed("NOT_ERASED", "it does not read as zeros after it was overwritten; the disk may be broken")
