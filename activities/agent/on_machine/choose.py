"""Which disk the image is written to: by what was asked, and never one that does not belong to the machine."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from .hardware import SECTOR, Disk
from .tools import Failed

GIB = 1024**3


def choose(
    disks: Iterable[Disk], hints: Mapping[str, Any], image_bytes: int, seed_bytes: int, sector: int = SECTOR
) -> Disk:
    """The smallest disk that all hints are true of and that is large enough; of equals the first by path.

    `sector` is the size of the sectors that the image was made for. Raises `Failed` with every disk and why it is not
    taken.
    """
    needed = max(int(hints.get("min_gib") or 0) * GIB, image_bytes + seed_bytes)
    against = [(disk, why_not(disk, hints, needed, sector)) for disk in disks]
    good = [disk for disk, why in against if not why]
    if not good:
        told = "; ".join(
            f"{disk.path} ({disk.model or 'no model'}, {disk.serial or 'no serial'}): {why}" for disk, why in against
        )
        raise Failed("NO_DISK", f"no disk can take the image: {told or 'the machine has none that its drivers see'}")
    return min(good, key=lambda disk: (disk.size_bytes, disk.path))


def why_not(disk: Disk, hints: Mapping[str, Any], needed: int, sector: int = SECTOR) -> str:
    """Why a disk is not taken; empty when it may be."""
    if untouchable := hands_off(disk):
        return untouchable
    serial, model = str(hints.get("serial") or ""), str(hints.get("model") or "")
    wwn, kind = str(hints.get("wwn") or ""), hints.get("kind") or "any"
    checks = (
        (serial and disk.serial.lower() != serial.lower(), f"its serial number is not {serial}"),
        (wwn and _plain(disk.wwn) != _plain(wwn), f"its WWN is not {wwn}"),
        (model and model.lower() not in disk.model.lower(), f"its model does not contain {model}"),
        (kind == "rotational" and not disk.rotational, "it is not rotational"),
        (kind == "solid-state" and disk.rotational, "it is rotational"),
        (disk.size_bytes < needed, f"it has {disk.size_bytes} bytes, and {needed} are needed"),
        (
            disk.sector_bytes != sector,
            f"its sectors have {disk.sector_bytes} bytes, and the image is made for {sector}: nothing would find its "
            "partitions there. Use an image for such sectors, or format the disk to others",
        ),
    )
    return next((why for wrong, why in checks if wrong), "")


def hands_off(disk: Disk) -> str:
    """Why a disk is never changed, whatever was asked; empty when it may be."""
    if disk.removable:
        return "it is removable"
    if not disk.size_bytes:
        return "it tells no size: it is broken, or in a format that Linux does not read"
    return "it is read-only" if disk.read_only else ""


def _plain(wwn: str) -> str:
    return wwn.lower().removeprefix("naa.").removeprefix("eui.").removeprefix("0x")
