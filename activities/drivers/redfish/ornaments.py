"""Parts of a BMC's documents without which a server is what it is, which sushy reads as strictly as the others.

A date of "N/A", or "0000-00-00T00:00:00Z", made it refuse the whole system. What is odd in them counts as not told.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sushy.resources.base import CompositeField, Field
from sushy.resources.common import OperationApplyTimeSupportField
from sushy.resources.settings import MaintenanceWindowField, SettingsApplyTimeField
from sushy.resources.system.system import BootProgressField, MemorySummaryField, System

ORNAMENTS: tuple[type[CompositeField], ...] = (
    BootProgressField,
    MemorySummaryField,
    MaintenanceWindowField,
    SettingsApplyTimeField,
    OperationApplyTimeSupportField,
)
"""Fields with parts; dates, lengths of time, sizes that are read elsewhere."""


def read_leniently() -> None:
    """Let sushy read them so, from now on, in this process."""
    for kind in ORNAMENTS:
        for field in vars(kind).values():
            if isinstance(field, Field):
                field._adapter, field._required = _if_it_can(field._adapter), False
    for field in (System.boot_progress, System.memory_summary, System.maintenance_window):
        field._adapter = _document


def _if_it_can(read: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def lenient(said: Any) -> Any:
        try:
            return read(said)
        except (ValueError, TypeError, OverflowError):
            return None

    return lenient


def _document(said: Any) -> Any:
    return said if isinstance(said, dict) else None
