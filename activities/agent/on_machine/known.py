"""Which disk of this boot is the one that an earlier boot wrote: names as `/dev/sda` may be swapped from boot to boot.

The boot server compares likewise (`bootserver/known.py`), before it permits anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .hardware import Disk
from .tools import Failed


def find(written: Mapping[str, Any], there: list[Disk]) -> Disk:
    """The disk. Raises `Failed` where none is it for certain, or more than one may be."""
    fits = [disk for disk in there if same(disk, written)]
    if len({_itself(disk) for disk in fits}) == 1:
        return fits[0]
    named = f"{written.get('path')} ({written.get('serial') or 'no serial number'})"
    if fits:
        many = ", ".join(disk.named for disk in fits)
        raise Failed("NOT_ERASED", f"{named}: which of {many} was written cannot be told, so none of them is erased")
    path = next((disk for disk in there if disk.path == written.get("path") and same(disk, written) is None), None)
    if path is not None:
        raise Failed(
            "NOT_ERASED",
            f"{named}: whether that is {path.named} cannot be told by the name alone, so it is not erased",
        )
    raise Failed("NOT_ERASED", f"{named}: it was to be erased, and no fixed disk of this server is it; put it back")


def _itself(disk: Disk) -> tuple[object, ...]:
    """Both paths to a disk with two are that disk."""
    return (disk.serial, disk.wwn, disk.size_bytes) if disk.serial and disk.wwn else (disk.path,)


def same(disk: Disk, written: Mapping[str, Any]) -> bool | None:
    """Whether it is that disk; None where what both tell does not say, as the path alone never does.

    A serial number that the volumes of a controller share, or a WWN alone, takes model and size besides. Where serial
    number and WWN both agree these may be others: a new firmware's, or a hidden area's that was lifted. Size and model
    alone are good for disks that tell neither.
    """
    known = {name: _text(written.get(name) or "") for name in ("serial", "wwn", "model")}
    serial, wwn = _text(disk.serial), _plain(_text(disk.wwn))
    agreed = [_alike(serial, known["serial"]), _alike_wwn(wwn, _plain(known["wwn"]))]
    if agreed == [True, True]:
        return True
    size = _alike(disk.size_bytes, int(written.get("size_bytes") or 0))
    if False in (*agreed, size, _alike(_text(disk.model), known["model"])):
        return False
    nameless = not (serial or wwn or known["serial"] or known["wwn"])
    return True if True in agreed or (nameless and size) else None


def _alike(one: str | int, other: str | int) -> bool | None:
    return one == other if one and other else None


def _alike_wwn(one: str, other: str) -> bool | None:
    return _alike(one, other) if _kind(one) == _kind(other) else None


def _kind(wwn: str) -> tuple[str, int]:
    """A later kernel may prefer another of a disk's names (NVMe: `uuid.`, NGUID, EUI-64), which tells nothing."""
    scheme, dot, _ = wwn.partition(".")
    return (scheme, 0) if dot else ("", len(wwn))


def _plain(wwn: str) -> str:
    return wwn.lower().removeprefix("naa.").removeprefix("eui.").removeprefix("0x")


def _text(value: object) -> str:
    """As the boot server keeps what it was told."""
    return "".join(character for character in str(value) if character.isprintable())[:500].strip()
