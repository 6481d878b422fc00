"""The partition table of a disk that is larger than its image: its end found again, and room for the seed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from .hardware import SECTOR
from .tools import Failed, run

MIB = 1024**2
MBR_SECTORS = 2**32 - 1
"""An MBR counts no further: on larger disks the seed ends where it can still be found."""
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
    return next((size for size in (SECTOR, 4096) if head[size : size + 8] == b"EFI PART"), SECTOR)


HEAD_BYTES = 8192
"""So much of an image `sector_of` looks at."""


def add_partition(path: str, mib: int) -> Partition:
    """Make a partition for the seed at the disk's end, where it is in no growing file system's way."""
    before = table(path)
    if before.label == "gpt":
        run("sgdisk", "--move-second-header", path)
        run("sgdisk", f"--new=0:-{mib}M:0", "--typecode=0:8300", "--change-name=0:cidata", path)
    elif before.label == "dos":
        _append(path, mib, before.sector)
    else:
        raise Failed(
            "IMAGE_WITHOUT_TABLE",
            f"the image has no partition table on {path}, so there is no place for its seed; give an image with one",
        )
    known = {each.start for each in before.partitions}
    new = [each for each in table(path).partitions if each.start not in known]
    if len(new) != 1:
        raise Failed(
            "NO_ROOM", f"no partition for the seed could be made on {path}; the disk has no {mib} MiB to spare"
        )
    return new[0]


def _append(path: str, mib: int, sector: int) -> None:
    """One more of the four that an MBR has, in the last mebibytes that it can name."""
    size = int(run("blockdev", "--getsize64", path)) if path.startswith("/dev/") else _size_of_file(path)
    start = (min(size // sector, MBR_SECTORS) * sector // MIB - mib) * MIB // sector
    script = f"start={start}, size={mib * MIB // sector}, type=83\n"
    run("sfdisk", "--append", "--no-reread", "--force", path, said=script)


def _size_of_file(path: str) -> int:
    with open(path, "rb") as file:  # noqa: PTH123 - a path of the system's
        return file.seek(0, 2)


def node(path: str, number: int) -> str:
    """The device of a partition."""
    return f"{path}{'p' if path[-1].isdigit() else ''}{number}"


def reread(path: str) -> None:
    """Let the kernel see the new table, where it can."""
    with suppress(Failed):
        run("blockdev", "--rereadpt", path)
