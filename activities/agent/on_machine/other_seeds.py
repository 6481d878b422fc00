"""Seeds of machines before, on disks that are not written: cloud-init takes the last by name of all that are labelled
`cidata`, so that the new system would be another machine, with other keys, and never call home.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from .disk_io import read_at
from .hardware import Disk, media
from .partitions import node, table
from .reporter import Reporter
from .side_by_side import within
from .tools import Failed

LABEL = "cidata"
LOOK_SECONDS = 30.0
"""A drive that does not answer for so long holds up no deployment to another one."""
_ISO_FIRST, _ISO_BLOCK, _ISO_MAGIC, _ISO_END = 0x8000, 2048, b"CD001", 255
_HEAD_BYTES = _ISO_FIRST + 16 * _ISO_BLOCK
"""So much of a file system holds its labels; of a FAT besides the beginning of its root directory."""
_ROOT_BYTES, _ENTRY = 64 * 1024, 32
_VOLUME, _FOLDER, _LONG_NAME, _DELETED = 0x08, 0x10, 0x0F, 0xE5


def require_no_other_seed(written: Disk, reporter: Reporter, sys: Path, dev: Path) -> str:
    """Raise `Failed` where a disk that is not written holds a seed; the written one's are overwritten, or lost with its
    partition table. Which drives did not answer in time, for people; empty where all did."""
    others = [disk for disk in media(sys, dev) if not _is(disk, written)]
    named = ", ".join(disk.path for disk in others)
    reporter.at("choosing", f"looking for older seeds on {named}" if others else "choosing the disk")
    looked = within(LOOK_SECONDS, [partial(_seeds, disk) for disk in others], reporter.check)
    found = [told for seeds in looked for told in seeds or ()]
    if found:
        raise Failed(
            "OTHER_SEED",
            "another disk holds a seed, which the new system's cloud-init may take for its own; nothing was written. "
            f"Erase or unplug what is named here, or choose it as the root disk: {'; '.join(found)}",
        )
    silent = [disk.path for disk, seeds in zip(others, looked, strict=True) if seeds is None]
    return f"; whether there is an older seed on {', '.join(silent)} is not known" if silent else ""


def _is(disk: Disk, written: Disk) -> bool:
    """The same, or another path to it."""
    return disk.path == written.path or bool(disk.wwn and disk.wwn == written.wwn)


def _seeds(disk: Disk) -> list[str]:
    """Where on the disk there is a seed, and how it is labelled, for people."""
    found = []
    places = [(disk.path, 0), *((node(disk.path, each.number), each.start) for each in table(disk.path).partitions)]
    for name, start in places:
        for label in labels(disk.path, start):
            if label.lower() == LABEL:
                found.append(f"{name}, labelled {label}, of {disk.named}")
                break
    return found


def labels(path: str, start: int) -> list[str]:
    """How an ISO 9660 or a FAT is labelled that begins there; nothing where none does, or the disk cannot be read."""
    try:
        head = read_at(path, start, _HEAD_BYTES)
        return [*_iso(head), *_fat(path, start, head)]
    except Failed:  # an empty drive, a broken disk: nobody finds a seed there
        return []


def _iso(head: bytes) -> Iterator[str]:
    """Of the volume descriptors (ECMA-119, 8): the primary one's name, and those of Joliet, in UCS-2."""
    for at in range(_ISO_FIRST, len(head), _ISO_BLOCK):
        kind, name = head[at : at + 1], head[at + 40 : at + 72]
        if head[at + 1 : at + 6] != _ISO_MAGIC or kind == bytes([_ISO_END]):
            return
        if kind == b"\1":
            yield name.decode("ascii", "replace").rstrip("\0 ")
        elif kind == b"\2":
            yield name.decode("utf-16-be", "replace").rstrip("\0 ")


def _fat(path: str, start: int, head: bytes) -> Iterator[str]:
    """Of the boot sector, and of the root directory, which may differ; cloud-init takes either."""
    if len(head) < 512 or head[510:512] != b"\x55\xaa":
        return
    sector, cluster, reserved, copies, entries, short = struct.unpack_from("<HBHBH3xH", head, 11)[:6]
    long, first = struct.unpack_from("<I4xI", head, 36)
    if sector not in (512, 1024, 2048, 4096) or not (cluster and reserved and copies and (short or long)):
        return
    for magic, at in ((b"FAT", 43), (b"FAT32", 71)):
        if head[at + 11 : at + 11 + len(magic)] == magic:
            yield _name(head[at : at + 11])
    behind = (reserved + copies * (short or long)) * sector
    root = behind if short else behind + (first - 2) * cluster * sector
    size = entries * _ENTRY if short else cluster * sector
    if root > 0:
        yield from _volumes(read_at(path, start + root, min(size, _ROOT_BYTES)))


def _volumes(root: bytes) -> Iterator[str]:
    for at in range(0, len(root), _ENTRY):
        if root[at] == 0:
            return
        kind = root[at + 11]
        if root[at] != _DELETED and kind != _LONG_NAME and kind & (_VOLUME | _FOLDER) == _VOLUME:
            yield _name(root[at : at + 11])


def _name(raw: bytes) -> str:
    return raw.decode("ascii", "replace").rstrip("\0 ")
