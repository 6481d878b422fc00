"""Whether the server that the deploy agent runs on is the one that was booted: its own word against its BMC's.

The system's UUID decides where both tell one. Else the serial number does; as a BMC may tell the board's for the
system's, one that is the board's says that it is the same server, and an agent that does not tell the board's, as older
ones, says nothing by its system's. What makers leave in place of either counts as not known (`serials.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mulligan.activities.bootserver.reports import text
from mulligan.activities.serials import other_uuid, plain_serial
from mulligan.activities.values import Identity


def mistaken(known: Identity, hardware: Mapping[str, Any]) -> str:
    """Why this is another server than the known one, naming both; empty where it is not known to be."""
    if (two := other_uuid(known.uuid, hardware.get("uuid"))) is not None:
        return _told("UUID", text(hardware["uuid"], 80), known.uuid) if two else ""
    serial, board = (plain_serial(hardware.get(name)) for name in ("serial", "board_serial"))
    if not serial or "board_serial" not in hardware or plain_serial(known.serial) in {"", serial, board}:
        return ""
    return _told("serial number", text(hardware["serial"], 80), text(known.serial, 80))


def untold(known: Identity, hardware: Mapping[str, Any]) -> str:
    """That the agent did not tell which server it runs on, where that is to be checked; empty where it did."""
    if hardware or not (known.serial or known.uuid):
        return ""
    return "the agent did not tell in this boot on which server it runs"


def _told(what: str, theirs: str, ours: str) -> str:
    return f"the agent runs on a server with {what} {theirs}, and the BMC says that the server has {ours}"
