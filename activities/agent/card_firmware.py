"""Firmware that the agent's drivers load into network cards and controllers: what they ask for, and no more.

It is in Debian's component `non-free-firmware`: free to be passed on, without its source. The licences come along.
"""

from __future__ import annotations

import re
from pathlib import Path

from mulligan.activities.images.build.tree import copy

COMPONENT = "non-free-firmware"
PACKAGES = (
    *("firmware-bnx2", "firmware-bnx2x", "firmware-cavium", "firmware-misc-nonfree", "firmware-myricom"),
    *("firmware-netronome", "firmware-netxen", "firmware-qlogic", "firmware-realtek"),
)
"""Those that hold something for a driver of the agent's."""

LIBRARY = Path("lib/firmware")
LICENCES = Path("usr/share/doc")
_ASKED = re.compile(rb"\0firmware=([^\0]+)")


def asked_by(driver: Path) -> set[str]:
    """The files that a kernel module says it may load, as paths below the firmware's folder."""
    return {name.decode() for name in _ASKED.findall(driver.read_bytes())}


def install_firmware(packages: Path, tree: Path) -> int:
    """Add what the drivers of the tree ask for and the packages have, with the licences; how many files were asked for
    and found."""
    asked = {name for driver in (tree / "lib/modules").rglob("*.ko") for name in asked_by(driver)}
    found = sorted(name for name in asked if (packages / LIBRARY / name).exists())
    for name in found:
        _bring(packages, tree, LIBRARY / name)
    for package in PACKAGES if found else ():
        copy(packages / LICENCES / package / "copyright", tree / LICENCES / package / "copyright")
    return len(found)


def _bring(packages: Path, tree: Path, path: Path) -> None:
    """Copy a file, and the links that lead to it as links: many names stand for few files."""
    source, target = packages / path, tree / path
    if target.exists():
        return
    if not source.is_symlink():
        copy(source, target)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    target.symlink_to(source.readlink())
    _bring(packages, tree, (source.parent / source.readlink()).resolve().relative_to(packages.resolve()))
