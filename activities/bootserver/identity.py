"""Whether the server that the deploy agent runs on is the one that was booted: its own word against its BMC's.

The system's UUID decides where both tell one. Else the serial number does; as a BMC may tell the board's for the
system's, one that is the board's says that it is the same server, and an agent that does not tell the board's, as older
ones, says nothing by its system's. What makers leave in place of either tells no machine apart: it counts as not known.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

from mulligan.activities.bootserver.reports import text
from mulligan.activities.values import Identity

_PLACEHOLDERS = (
    "oem", "default", "notspecified", "notavailable", "notapplicable", "notpresent", "none", "unknown", "unspecified",
    "serial", "012345", "12345678", "chassis", "invalid", "xxxx",
)  # fmt: skip
"""What is in the place of a serial number where a maker forgot it, in letters and digits only."""
_MADE_UP = frozenset(map(uuid.UUID, ("03000200-0400-0500-0006-000700080009", "12345678-1234-5678-90ab-cddeefaabbcc")))
"""UUIDs that many boards have."""


def mistaken(known: Identity, hardware: Mapping[str, Any]) -> str:
    """Why this is another server than the known one, naming both; empty where it is not known to be."""
    theirs, ours = _uuid(hardware.get("uuid")), _uuid(known.uuid)
    if theirs is not None and ours is not None:
        same = theirs == ours or uuid.UUID(bytes_le=theirs.bytes) == ours  # older firmware swaps bytes
        return "" if same else _told("UUID", str(theirs), str(ours))
    serial, board = (_serial(hardware.get(name)) for name in ("serial", "board_serial"))
    if not serial or "board_serial" not in hardware or _serial(known.serial) in {"", serial, board}:
        return ""
    return _told("serial number", text(hardware["serial"], 80), text(known.serial, 80))


def untold(known: Identity, hardware: Mapping[str, Any]) -> str:
    """That the agent did not tell which server it runs on, where that is to be checked; empty where it did."""
    if hardware or known == Identity():
        return ""
    return "the agent did not tell in this boot on which server it runs"


def _told(what: str, theirs: str, ours: str) -> str:
    return f"the agent runs on a server with {what} {theirs}, and the BMC says that the server has {ours}"


def _uuid(said: object) -> uuid.UUID | None:
    """None where it is none that tells machines apart."""
    try:
        found = uuid.UUID(str(said or "").strip())
    except ValueError:
        return None
    swapped = uuid.UUID(bytes_le=found.bytes)
    made_up = len(set(found.hex)) <= 1 or not _MADE_UP.isdisjoint({found, swapped})
    return None if made_up else found


def _serial(said: object) -> str:
    """Letters and digits, in lower case; empty where it is none that tells machines apart."""
    plain = "".join(each for each in str(said or "").casefold() if each.isalnum())
    made_up = len(plain) < 4 or len(set(plain)) == 1 or any(each in plain for each in _PLACEHOLDERS)
    return "" if made_up else plain
