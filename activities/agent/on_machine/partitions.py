"""The partition table of a disk that is larger than its image: its end found again, and room for the seed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from .disk_io import read_back, write_at
from .hardware import SECTOR
from .tools import Complained, Failed, run

MIB = 1024**2
MBR_SECTORS = 2**32 - 1
"""An MBR counts no further: on larger disks the seed ends where it can still be found."""
_MBR_ENTRIES, _MBR_TYPE, _MBR_SIGNATURE = slice(446, 510), 4, b"\x55\xaa"
_ACTIVE = 0x80
"""The flag with which an entry begins that BIOSes boot from."""
_PROTECTIVE = 0xEE
"""The type of the one partition of an MBR that stands before a GPT (UEFI 2.10, section 5.2.3)."""
EFI_SYSTEM = "C12A7328-F81F-11D2-BA4B-00A0C93EC93B"


@dataclass(frozen=True)
class Partition:
    """One partition; sizes in bytes."""

    number: int
    start: int
    size: int
    type: str


@dataclass(frozen=True)
class Table:
    """A disk's partition table."""

    label: str
    """`gpt`, `dos`, or empty where there is none."""
    partitions: tuple[Partition, ...] = ()
    sector: int = SECTOR
    """What it counts in: the disk's logical blocks, in bytes."""

    @property
    def efi_system(self) -> Partition | None:
        """Where UEFI's boot loaders are."""
        return next((each for each in self.partitions if each.type.upper() in (EFI_SYSTEM, "EF")), None)


def table(path: str) -> Table:
    """The partition table as it is now."""
    try:
        said = json.loads(run("sfdisk", "--json", path))["partitiontable"]
    except (Failed, ValueError, KeyError):
        return Table("")
    sector = int(said.get("sectorsize") or SECTOR)
    return Table(str(said["label"]), tuple(_partition(each, sector) for each in said.get("partitions", ())), sector)


def _partition(said: Mapping[str, Any], sector: int) -> Partition:
    digits = str(said["node"])[len(str(said["node"]).rstrip("0123456789")) :]
    return Partition(
        int(digits or 0), int(said["start"]) * sector, int(said["size"]) * sector, str(said.get("type", ""))
    )


def sector_of(head: bytes) -> int:
    """Which sectors an image was made for, by its first bytes: a GPT begins at the second one.

    An MBR does not say; those are made for 512 bytes, as BIOSes know no others.
    """
    return _gpt_sector(head) or SECTOR


def _gpt_sector(head: bytes) -> int:
    return next((size for size in (SECTOR, 4096) if head[size : size + 8] == b"EFI PART"), 0)


HEAD_BYTES = 8192
"""So much of an image `sector_of` and `require_place` look at."""


def require_place(head: bytes) -> None:
    """Raise `Failed` for an image with no place for a seed, by its first bytes: no disk is touched for it."""
    if _gpt_sector(head):
        return  # whatever its MBR says: it stands there for those who know no GPT
    table = head[_MBR_ENTRIES]
    entries = [table[at : at + 16] for at in range(0, len(table), 16)]
    used = [entry[_MBR_TYPE] for entry in entries if any(entry)]
    if head[_MBR_ENTRIES.stop : 512] != _MBR_SIGNATURE or set(used) == {_PROTECTIVE}:
        raise _without_table("the image")
    if len(used) == 4:
        raise Failed(
            "IMAGE_TABLE_FULL",
            "the image's MBR has four partitions, and no place for another one with its seed; give an image with at "
            "most three, or with a GPT",
        )


def _without_table(what: str) -> Failed:
    return Failed(
        "IMAGE_WITHOUT_TABLE",
        f"{what} has no partition table, so there is no place for its seed; give an image with one",
    )


def add_partition(path: str, mib: int) -> Partition:
    """Make a partition for the seed at the disk's end, where it is in no growing file system's way."""
    before, complaint = table(path), ""
    broken_gpt = {each.type for each in before.partitions} == {f"{_PROTECTIVE:x}"}
    if before.label not in ("gpt", "dos") or broken_gpt:
        raise _without_table(f"the image, as it is on {path},")
    try:
        _make(path, mib, before)
    except Complained as complained:
        complaint = f": {complained}"
    known = {each.start for each in before.partitions}
    new = [each for each in table(path).partitions if each.start not in known]
    if complaint or len(new) != 1:
        _require_readable(path)
        raise Failed(
            "IMAGE_TABLE_UNFIT",
            f"the image's partition table takes no partition for the seed ({mib} MiB) at the end of {path}, which has "
            f"room behind the image{complaint}",
        )
    return new[0]


def _make(path: str, mib: int, before: Table) -> None:
    if before.label == "gpt":
        mbr = _mbr(path)
        run("sgdisk", "--move-second-header", path)
        run("sgdisk", f"--new=0:-{mib}M:0", "--typecode=0:8300", "--change-name=0:cidata", path)
        _keep_flags(path, mbr)
    else:
        _append(path, mib, before.sector)


def _mbr(path: str) -> bytes:
    return b"".join(bytes(piece) for _, piece in read_back(path, 0, SECTOR))


def _keep_flags(path: str, before: bytes) -> None:
    """Let the entries of the MBR before a GPT be active that were: sgdisk has none active, and some BIOSes boot no disk
    without. An entry of another type is another one."""
    now = bytearray(_mbr(path))
    for at in range(_MBR_ENTRIES.start, _MBR_ENTRIES.stop, 16):
        if before[at] == _ACTIVE and before[at + _MBR_TYPE] == now[at + _MBR_TYPE] != 0:
            now[at] = _ACTIVE
    if now != _mbr(path):
        write_at(path, 0, bytes(now))


def _require_readable(path: str) -> None:
    """Raise `Failed` where it is the disk's fault: it gives nothing back where its table is, at both ends."""
    for offset in (0, max(0, _size(path) - MIB)):
        for _ in read_back(path, offset, MIB):
            pass


def _append(path: str, mib: int, sector: int) -> None:
    """One more of the four that an MBR has, in the last mebibytes that it can name."""
    start = (min(_size(path) // sector, MBR_SECTORS) * sector // MIB - mib) * MIB // sector
    script = f"start={start}, size={mib * MIB // sector}, type=83\n"
    run("sfdisk", "--append", "--no-reread", "--force", path, said=script)


def _size(path: str) -> int:
    if path.startswith("/dev/"):
        return int(run("blockdev", "--getsize64", path))
    with open(path, "rb") as file:  # noqa: PTH123 - a path of the system's
        return file.seek(0, 2)


def node(path: str, number: int) -> str:
    """The device of a partition."""
    return f"{path}{'p' if path[-1].isdigit() else ''}{number}"


def reread(path: str) -> None:
    """Let the kernel see the new table, where it can."""
    with suppress(Failed):
        run("blockdev", "--rereadpt", path)
