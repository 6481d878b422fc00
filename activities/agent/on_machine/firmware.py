"""What starts the disk: an entry of UEFI's boot menu; best effort, because firmware finds most disks by itself.

A BIOS takes nothing from here; where it says which disk it starts first, and that is another one, that is told.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from .disk_io import read_at
from .hardware import SYS, Disk
from .partitions import table
from .tools import Failed, read, run

LABEL = "Mulligan"
LOADER = r"\EFI\BOOT\BOOTX64.EFI"
VARIABLES = Path("/sys/firmware/efi/efivars")


def set_boot_entry(path: str) -> str:
    """Put the disk first in the boot order, in place of what an earlier machine left; what was done, for people."""
    if not any(VARIABLES.glob("*")) if VARIABLES.is_dir() else True:
        return "the firmware keeps no boot entries that can be set from here"
    esp = table(path).efi_system
    if esp is None:
        return "the image has no EFI system partition; no boot entry was set"
    try:
        for line in run("efibootmgr").splitlines():
            if found := re.match(rf"Boot([0-9A-Fa-f]{{4}})[* ] {LABEL}(\s|$)", line):
                run("efibootmgr", "--quiet", "--bootnum", found[1], "--delete-bootnum")
        run(
            "efibootmgr",
            "--quiet",
            "--create",
            "--disk",
            path,
            "--part",
            str(esp.number),
            "--label",
            LABEL,
            "--loader",
            LOADER,
        )
    except Failed as failed:
        return f"the firmware did not take a boot entry: {failed}"
    return f"the firmware boots partition {esp.number} of {path} first"


def first_of_bios(disks: Sequence[Disk], sys: Path = SYS) -> Disk | None:
    """The fixed disk that the BIOS starts first, by what it said at power-on (EDD 3.0); None where that is not known.

    To be asked before a disk is written: it is known by its beginning. A stick that was booted is none of the fixed.
    """
    first = sys / "firmware/edd/int13_dev80"
    fixed = [disk for disk in disks if not disk.removable]
    signature, controller = int(read(first / "mbr_signature") or "0", 16), first / "pci_dev"
    found = [disk for disk in disks if signature and _signature(disk.path) == signature]
    if any(disk.removable for disk in found):
        return None
    if not found and controller.exists():
        name = controller.resolve().name
        found = [disk for disk in fixed if name in (sys / "block" / Path(disk.path).name).resolve().parts]
    return found[0] if len(found) == 1 else None


def another_first(written: Disk, first: Disk | None) -> str:
    """What is to be known where the BIOS starts another disk than the written one; empty where nothing says so."""
    if first is None or first.path == written.path or (first.wwn and first.wwn == written.wwn):
        return ""
    return f"; its BIOS starts {first.named} first: put the written disk first in its boot order, or empty that one"


def _signature(path: str) -> int:
    """What an MBR names its disk by; 0 where it names none."""
    with suppress(Failed):
        head = read_at(path, 0, 512)
        return int.from_bytes(head[440:444], "little") if head[510:] == b"\x55\xaa" else 0
    return 0
