"""What the machine has, as the kernel says: for the report, and to choose the disk from."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .tools import read

SYS, DEV, PROC = Path("/sys"), Path("/dev"), Path("/proc")
SECTOR = 512
"""The unit of /sys/block/*/size, whatever the disk's own sectors are."""
NO_DISKS = ("loop", "ram", "zram", "sr", "fd", "md", "dm-", "nbd", "mtdblock")
"""What names of block devices begin with that are no disks of the machine."""
NO_MEDIA = tuple(name for name in NO_DISKS if name != "sr")
_FIRMWARES = re.compile(r"mmcblk\d+(boot\d+|rpmb)")
"""Parts of an eMMC that are kept for the firmware, and listed as disks of their own."""


@dataclass(frozen=True)
class Disk:
    """One fixed or removable disk."""

    path: str
    size_bytes: int
    serial: str = ""
    wwn: str = ""
    model: str = ""
    rotational: bool = False
    removable: bool = False
    """Also whatever hangs on USB: sticks, and the drives that a BMC pretends to plug in, from which the agent boots."""
    read_only: bool = False
    sector_bytes: int = SECTOR
    """The least that it reads and writes (its logical blocks), and the unit of its partition table."""
    physical_bytes: int = SECTOR
    """The least that it writes without reading first."""
    ata: bool = False

    @property
    def named(self) -> str:
        """The disk for people."""
        return f"{self.path} ({self.model or 'no model'}, {self.serial or 'no serial number'}, {self.size_bytes} bytes)"

    def as_json(self) -> dict[str, Any]:
        """The disk as it is reported."""
        return asdict(self)


def disks(sys: Path = SYS, dev: Path = DEV) -> list[Disk]:
    """Every disk, by its path; one of size 0 is there and cannot be used. Of removable drives those with a medium."""
    found = [_disk(block, dev) for block in sorted((sys / "block").iterdir()) if _is_disk(block)]
    sized = {disk.wwn for disk in found if disk.size_bytes}
    # What has no size, and the WWN of what has one, is another path to that disk, which stands by.
    return [disk for disk in found if disk.size_bytes or not (disk.removable or (disk.wwn and disk.wwn in sized))]


def media(sys: Path = SYS, dev: Path = DEV) -> list[Disk]:
    """Whatever the system that is booted may find a file system on: besides the disks what is in a CD drive, every path
    to a disk, and what an eMMC keeps for the firmware."""
    found = [block for block in sorted((sys / "block").iterdir()) if not block.name.startswith(NO_MEDIA)]
    return [disk for block in found if read(block / "hidden") != "1" and (disk := _disk(block, dev)).size_bytes]


def _is_disk(block: Path) -> bool:
    hidden = read(block / "hidden") == "1"  # one of the paths to an NVMe disk, which has another name for all
    other = block.name.startswith(NO_DISKS) or _FIRMWARES.fullmatch(block.name) is not None
    is_there = read(block / "size", "0") != "0" or (block / "device").exists()
    return is_there and not (hidden or other)


def _disk(block: Path, dev: Path) -> Disk:
    device = block / "device"
    serial = read(device / "serial") or read(block / "serial") or _page(device / "vpd_pg80")
    wwn = read(block / "wwid") or read(device / "wwid")
    makers = (read(device / "vendor"), read(device / "model"))
    return Disk(
        path=str(dev / block.name),
        size_bytes=int(read(block / "size") or 0) * SECTOR,
        serial=serial,
        wwn=wwn.removeprefix("naa.").removeprefix("eui.").removeprefix("0x").lower(),
        model=" ".join(part for part in makers if part and not part.startswith("0x")),
        rotational=read(block / "queue/rotational") == "1",
        removable=read(block / "removable") == "1" or "/usb" in str(block.resolve()),
        read_only=read(block / "ro") == "1",
        sector_bytes=int(read(block / "queue/logical_block_size") or SECTOR),
        physical_bytes=int(read(block / "queue/physical_block_size") or SECTOR),
        ata=makers[0] == "ATA",
    )


def _page(path: Path) -> str:
    """The unit serial number of a SCSI or ATA disk: a page of four bytes of head, then text."""
    try:
        return path.read_bytes()[4:].decode("ascii", "replace").strip("\0 ")
    except OSError:
        return ""


def uefi(sys: Path = SYS) -> bool:
    """Whether UEFI started the kernel."""
    return (sys / "firmware/efi").is_dir()


def hardware(sys: Path = SYS, dev: Path = DEV, proc: Path = PROC) -> dict[str, Any]:
    """The report: who made the machine, processors, memory, disks, network cards, firmware."""
    dmi = sys / "class/dmi/id"
    names = {"vendor": "sys_vendor", "model": "product_name", "serial": "product_serial", "uuid": "product_uuid"}
    names |= {"board_serial": "board_serial", "bios": "bios_version"}
    processors = [line for line in read(proc / "cpuinfo").splitlines() if line.startswith("model name")]
    memory = next(
        (line for line in read(proc / "meminfo").splitlines() if line.startswith("MemTotal")), "MemTotal: 0 kB"
    )
    return {
        **{name: read(dmi / file) for name, file in names.items()},
        "processor": processors[0].partition(":")[2].strip() if processors else "",
        "threads": len(processors),
        "memory_mib": int(memory.split()[1]) // 1024,
        "firmware": "uefi" if uefi(sys) else "bios",
        "disks": [disk.as_json() for disk in disks(sys, dev)],
        "nics": [_card(card) for card in sorted((sys / "class/net").iterdir()) if (card / "device").exists()],
    }


def _card(card: Path) -> dict[str, Any]:
    return {"name": card.name, "mac": read(card / "address"), "link": read(card / "carrier") == "1"}
