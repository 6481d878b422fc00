"""IPMI's boot flags as a `BootReading`: what a BMC answers, and how far it can be believed."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from mulligan.activities.drivers.base import BootDevice, BootReading
from mulligan.activities.values import Firmware

NONE = 0
SELECTORS: Mapping[BootDevice, int] = {BootDevice.NETWORK: 1, BootDevice.DISK: 2}
"""Boot device selectors that are asked for (IPMI 2.0, table 28-14)."""

_DEVICES: Mapping[int, BootDevice] = {
    1: BootDevice.NETWORK,
    2: BootDevice.DISK,
    3: BootDevice.DISK,
    5: BootDevice.VIRTUAL_MEDIA,
    8: BootDevice.VIRTUAL_MEDIA,
    11: BootDevice.DISK,
}
_WORDS = {1: "network", 2: "disk", 3: "disk, safe mode", 4: "diagnostics", 5: "CD", 6: "set-up", 8: "remote CD",
          11: "remote disk", 15: "floppy"}  # fmt: skip


def reading(
    flags: Mapping[str, Any],
    asked: BootDevice | None = None,
    asked_firmware: Firmware = Firmware.ANY,
    *,
    fresh: bool = False,
) -> BootReading:
    """What the flags say.

    Flags that are not marked valid are what an earlier boot left, and mean nothing. Only right after the BMC was asked
    (`fresh`) is the device believed that was asked for: OpenIPMI's simulator never marks its flags as valid, nor says
    by which firmware.
    """
    device = _DEVICES.get(flags["selector"])
    unmarked = not flags["valid"]
    believed = flags["valid"] or (fresh and asked is not None and device is asked)
    firmware = (Firmware.UEFI if flags["uefi"] else Firmware.BIOS) if flags["valid"] else Firmware.ANY
    name = _WORDS.get(flags["selector"], f"device {flags['selector']}") if flags["selector"] else "no device"
    words = [name, "persistent" if flags["persistent"] else "once", "UEFI" if flags["uefi"] else "BIOS"]
    return BootReading(
        device if believed else None,
        firmware if flags["selector"] else Firmware.ANY,
        not flags["persistent"],
        datetime.now(UTC),
        ", ".join([*words, *(["not marked valid"] if unmarked else [])]),
        asked,
        asked_firmware,
    )


def mode_is(flags: Mapping[str, Any], firmware: Firmware) -> bool:
    """Whether the flags already say that firmware; any does where none is asked for."""
    return firmware is Firmware.ANY or bool(flags["uefi"]) is (firmware is Firmware.UEFI)


def uefi_flag(flags: Mapping[str, Any], asked: Firmware, offered: tuple[Firmware, ...]) -> bool:
    """The flag to set. IPMI knows no "as it is": where that is asked, a machine with one firmware is told that one."""
    if asked is not Firmware.ANY:
        return asked is Firmware.UEFI
    return offered == (Firmware.UEFI,) if len(offered) == 1 else bool(flags["uefi"])


def is_clear(flags: Mapping[str, Any], tried: int | None) -> bool:
    """Whether nothing is overridden any more, after `tried` was asked for (None: nothing yet)."""
    if flags["selector"] == NONE:
        return True
    return tried is not None and (not flags["valid"] or tried == SELECTORS[BootDevice.DISK] == flags["selector"])
