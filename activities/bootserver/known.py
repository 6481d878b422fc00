"""Whether two boots of the deploy agent speak of one disk: names as `/dev/sda` may be swapped from boot to boot.

The agent compares likewise (`agent/on_machine/known.py`), before it asks.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mulligan.activities.bootserver.job import PermitGiven
from mulligan.activities.bootserver.reports import identity, text


def same(disk: Mapping[str, Any], known: PermitGiven) -> bool | None:
    """Whether it is that disk; None where what both tell does not say, as the path alone never does.

    A serial number that the volumes of a controller share, or a WWN alone, takes model and size besides. Where serial
    number and WWN both agree these may be others: a new firmware's, or a hidden area's that was lifted. Size and model
    alone are good for disks that tell neither: whoever asks sees to it that only one fits.
    """
    serial, wwn, model = (text(disk.get(name) or "").strip() for name in ("serial", "wwn", "model"))
    agreed = [_alike(serial, known.serial.strip()), _alike_wwn(_plain(wwn), _plain(known.wwn))]
    if agreed == [True, True]:
        return True
    size = _alike(identity(disk).size_bytes, known.size_bytes)
    if False in (*agreed, size, _alike(model, known.model.strip())):
        return False
    nameless = not (serial or wwn or known.serial or known.wwn)
    return True if True in agreed or (nameless and size) else None


def itself(disk: Mapping[str, Any]) -> tuple[str, ...]:
    """What is alike for both paths to a disk with two, and for no two disks that were told in one boot."""
    serial, wwn = (text(disk.get(name) or "") for name in ("serial", "wwn"))
    return (serial, wwn, str(disk.get("size_bytes"))) if serial and wwn else (text(disk.get("path")),)


def _alike(one: str | int, other: str | int) -> bool | None:
    return one == other if one and other else None


def _alike_wwn(one: str, other: str) -> bool | None:
    return _alike(one, other) if _kind(one) == _kind(other) else None


def _kind(wwn: str) -> tuple[str, int]:
    """A later kernel may prefer another of a disk's names (NVMe: `uuid.`, NGUID, EUI-64), which tells nothing."""
    scheme, dot, _ = wwn.partition(".")
    return (scheme, 0) if dot else ("", len(wwn))


def _plain(wwn: str) -> str:
    return wwn.strip().lower().removeprefix("naa.").removeprefix("eui.").removeprefix("0x")
