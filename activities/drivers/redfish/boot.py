"""The one-time boot override: asked for, and read back afresh, because BMCs forget it."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import Enum
from typing import Any, TypeVar

from sushy import exceptions
from sushy.resources.system.constants import BootSource, BootSourceOverrideEnabled, BootSourceOverrideMode
from sushy.resources.system.system import System

from mulligan.activities.drivers.base import BootDevice, BootReading
from mulligan.activities.drivers.redfish.refusals import asks_for_patience
from mulligan.activities.errors import Leftover, Unsupported
from mulligan.activities.values import Firmware

Word = TypeVar("Word", bound=Enum)

SOURCES: dict[BootDevice, tuple[BootSource, ...]] = {
    BootDevice.DISK: (BootSource.HDD,),
    BootDevice.NETWORK: (BootSource.PXE,),
    BootDevice.VIRTUAL_MEDIA: (BootSource.CD, BootSource.USB_CD),
}
"""Redfish's words for each device, the one that is asked for first."""

MODES = {BootSourceOverrideMode.UEFI: Firmware.UEFI, BootSourceOverrideMode.LEGACY: Firmware.BIOS}
_OVERRIDE = ("BootSourceOverrideTarget", "BootSourceOverrideEnabled", "BootSourceOverrideMode")
_MODE_OF = {firmware: mode for mode, firmware in MODES.items()}


def devices_of(system: System) -> tuple[BootDevice, ...]:
    """What the system says that it can be told to boot from; all of it where it does not say."""
    allowed = set(system.get_allowed_system_boot_source_values())
    return tuple(device for device, sources in SOURCES.items() if allowed & set(sources))


def read_boot(system: System, asked: BootDevice | None = None, asked_firmware: Firmware = Firmware.ANY) -> BootReading:
    """The override of a system that was read just now; its settings resource, where it has one, is read here."""
    target, enabled, mode = _override(system)
    off = _is_off(target, enabled)
    device = None if off else next((each for each, sources in SOURCES.items() if target in sources), None)
    words = ", ".join(str(each.value) for each in (target, enabled, mode) if each is not None)
    if not off and device is None:
        words = f"{words} (none of ours)"
    once = enabled is BootSourceOverrideEnabled.ONCE
    firmware = MODES.get(mode, Firmware.ANY)
    return BootReading(device, firmware, once, datetime.now(UTC), words or "nothing", asked, asked_firmware)


def boot_next(system: System, device: BootDevice, firmware: Firmware, *, always: bool = False) -> BootReading:
    """Ask for one boot from the device, or for every boot from now on, unless the system says so already."""
    before = read_boot(system, device, firmware)
    so = before.agrees and before.once is not always and firmware in (Firmware.ANY, before.firmware)
    if so and not _is_applied(system):
        return before
    if device not in devices_of(system):
        raise Unsupported(f"the machine cannot be told to boot from {device}; it can from {_told(system)}")
    allowed = system.get_allowed_system_boot_source_values()
    source = next(each for each in SOURCES[device] if each in allowed)
    enabled = BootSourceOverrideEnabled.CONTINUOUS if always else BootSourceOverrideEnabled.ONCE
    _change(system, source, enabled, _MODE_OF.get(firmware), device)
    return read_boot(system, device, firmware)


def boot_always(system: System, device: BootDevice, firmware: Firmware) -> BootReading:
    """Ask for every boot from the device; for one where the system says, or answers, that it offers no more."""
    boot = (system.json or {}).get("Boot") or {}
    offered = boot.get("BootSourceOverrideEnabled@Redfish.AllowableValues")
    if offered and BootSourceOverrideEnabled.CONTINUOUS.value not in offered:
        return boot_next(system, device, firmware)
    try:
        return boot_next(system, device, firmware, always=True)
    except exceptions.BadRequestError as error:
        if asks_for_patience(error):
            raise
        return boot_next(system, device, firmware)


def clear_boot(system: System) -> None:
    """Remove the override, and see that it is gone; a BMC that knows no "none" is told to boot from disk."""
    if _is_off(*_override(system)[:2]):
        return
    try:
        _change(system, None, BootSourceOverrideEnabled.DISABLED, None, None)
        cleared = _is_off(*_override(system)[:2])
    except exceptions.BadRequestError as error:
        if asks_for_patience(error) or BootDevice.DISK not in devices_of(system):
            raise
        cleared = boot_next(system, BootDevice.DISK, Firmware.ANY).agrees
    if not cleared:
        left = read_boot(system).detail
        raise Leftover(f"the BMC was asked to forget the boot override, and still says {left}", objects=[left])


def _change(
    system: System,
    source: BootSource | None,
    enabled: BootSourceOverrideEnabled,
    mode: BootSourceOverrideMode | None,
    device: BootDevice | None,
) -> None:
    """Send it once, then read: when the answer was lost, whether the device is there then decides."""
    lost = _send(system, source, enabled, mode)
    system.refresh()
    if lost is not None and read_boot(system).device is not device:
        raise lost


def _send(
    system: System,
    source: BootSource | None,
    enabled: BootSourceOverrideEnabled,
    mode: BootSourceOverrideMode | None,
) -> exceptions.ConnectionError | None:
    """Send it; gives the error when the answer was lost.

    HPE's refuse the mode, which cannot be written there, also where it is so already: it is then left out. It is not
    left out before, because Supermicro's fall back to another mode without it (DMTF/Redfishtool#106).
    """
    try:
        system.set_system_boot_options(target=source, enabled=enabled, mode=mode)
    except exceptions.ConnectionError as error:
        return error
    except exceptions.BadRequestError as error:
        about_mode = mode is not None and "BootSourceOverrideMode" in f"{error.detail} {error.extended_info}"
        if not about_mode or read_boot(system).firmware is not MODES[mode]:
            raise
        return _send(system, source, enabled, None)
    return None


def _override(
    system: System,
) -> tuple[BootSource | None, BootSourceOverrideEnabled | None, BootSourceOverrideMode | None]:
    """What waits in the settings resource, else what the system says.

    AMI's take an override in the settings resource (`.../SD`), where sushy sends it too. The firmware takes it from
    there at its next start, and only then the system says so (https://pubs.lenovo.com/tsm/boot_object).
    """
    said = _own(system) | _pending(system)
    target, enabled, mode = (said.get(name) for name in _OVERRIDE)
    return _word(BootSource, target), _word(BootSourceOverrideEnabled, enabled), _word(BootSourceOverrideMode, mode)


def _is_off(target: BootSource | None, enabled: BootSourceOverrideEnabled | None) -> bool:
    return enabled in (None, BootSourceOverrideEnabled.DISABLED) or target in (None, BootSource.NONE)


def _is_applied(system: System) -> bool:
    """Whether the system says what its settings resource does: it may have booted so already, and is asked again."""
    own, pending = _own(system), _pending(system)
    return bool(pending) and own | pending == own


def _own(system: System) -> dict[str, Any]:
    return (system.json or {}).get("Boot") or {}


def _pending(system: System) -> dict[str, Any]:
    """What the settings resource says of the override; nothing where there is none, or it has none of it."""
    settings = (system.json or {}).get("@Redfish.Settings") or {}
    path = (settings.get("SettingsObject") or {}).get("@odata.id")
    boot = (system._conn.get(path).json().get("Boot") or {}) if path else {}
    return {name: value for name, value in boot.items() if name in _OVERRIDE and value is not None}


def _word(kind: type[Word], word: object) -> Word | None:
    """The word as one of those that are known."""
    return next((each for each in kind if each.value == word), None)


def _told(system: System) -> str:
    return ", ".join(devices_of(system)) or "nothing"
