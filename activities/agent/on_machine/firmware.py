"""The entry of UEFI's boot menu that starts the disk; best effort, because firmware finds most disks by itself."""

from __future__ import annotations

import re
from pathlib import Path

from .partitions import table
from .tools import Failed, run

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
