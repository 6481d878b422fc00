"""The partition table of a disk that is larger than its image: its end found again, and room for the seed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from .disk_io import write_at
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
    sector = int(said.get("sectorsize") or 512)
    return Table(str(said["label"]), tuple(_partition(each, sector) for each in said.get("partitions", ())))


def _partition(said: Mapping[str, Any], sector: int) -> Partition:
    digits = str(said["node"])[len(str(said["node"]).rstrip("0123456789")) :]
    return Partition(
        int(digits or 0), int(said["start"]) * sector, int(said["size"]) * sector, str(said.get("type", ""))
    )


def add_seed(path: str, seed: bytes) -> Partition:
    """Put the seed into a partition of its own at the disk's end, where it is in no growing file system's way."""
    before = table(path)
    size = -(-len(seed) // MIB) + 1
    if before.label == "gpt":
        run("sgdisk", "--move-second-header", path)
        run("sgdisk", f"--new=0:-{size}M:0", "--typecode=0:8300", "--change-name=0:cidata", path)
    elif before.label == "dos":
        _append(path, size)
    else:
        raise Failed(
            "IMAGE_WITHOUT_TABLE",
            f"the image has no partition table on {path}, so there is no place for its seed; give an image with one",
        )
    known = {each.start for each in before.partitions}
    new = [each for each in table(path).partitions if each.start not in known]
    if len(new) != 1:
        raise Failed(
            "NO_ROOM", f"no partition for the seed could be made on {path}; the disk has no {size} MiB to spare"
        )
    write_at(path, new[0].start, seed)
    reread(path)
    return new[0]


def _append(path: str, mib: int) -> None:
    """One more of the four that an MBR has, in the last mebibytes that it can name."""
    sectors = int(run("blockdev", "--getsz", path)) if path.startswith("/dev/") else _sectors_of_file(path)
    start = (min(sectors, MBR_SECTORS) * 512 // MIB - mib) * MIB // 512
    script = f"start={start}, size={mib * MIB // 512}, type=83\n"
    run("sfdisk", "--append", "--no-reread", "--force", path, said=script)


def _sectors_of_file(path: str) -> int:
    with open(path, "rb") as file:  # noqa: PTH123 - a path of the system's
        return file.seek(0, 2) // 512


def reread(path: str) -> None:
    """Let the kernel see the new table, where it can."""
    with suppress(Failed):
        run("blockdev", "--rereadpt", path)
