"""The boot override, for one boot or for every: asked for, and read back afresh, because BMCs forget it."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import Enum
from typing import Any, TypeVar

from sushy import exceptions
from sushy.resources.system.constants import BootSource, BootSourceOverrideEnabled, BootSourceOverrideMode
from sushy.resources.system.system import System

from mulligan.activities.drivers.base import BootDevice, BootReading
from mulligan.activities.drivers.redfish.dell import NORMAL, VIRTUAL_CD, FirstBoot, change_first_boot, first_boot
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
    """The override of a system that was read just now; what is told elsewhere (settings, Dell's) is read here."""
    return _reading(system, first_boot(system), asked, asked_firmware)


def boot_next(system: System, device: BootDevice, firmware: Firmware, *, always: bool = False) -> BootReading:
    """Ask for one boot from the device, or for every boot from now on, unless the system says so already."""
    first = first_boot(system)
    before = _reading(system, first, device, firmware)
    so = before.agrees and before.once is not always and firmware in (Firmware.ANY, before.firmware)
    by_dell = first is not None and device is BootDevice.VIRTUAL_MEDIA
    if so and (by_dell or not _is_applied(system)):
        return before
    if device not in devices_of(system):
        raise Unsupported(f"the machine cannot be told to boot from {device}; it can from {_told(system)}")
    mode = _MODE_OF.get(firmware)
    if first is not None and by_dell:
        _boot_virtual(system, first, mode if firmware is not before.firmware else None, once=not always)
        return read_boot(system, device, firmware)
    _forget_virtual(system, first)
    allowed = system.get_allowed_system_boot_source_values()
    source = next(each for each in SOURCES[device] if each in allowed)
    enabled = BootSourceOverrideEnabled.CONTINUOUS if always else BootSourceOverrideEnabled.ONCE
    _change(system, source, enabled, mode, device)
    return read_boot(system, device, firmware)


def boot_always(system: System, device: BootDevice, firmware: Firmware) -> BootReading:
    """Ask for every boot from the device; for one where the system says, or answers, that it offers no more."""
    boot = (system.json or {}).get("Boot") or {}
    offered = boot.get("BootSourceOverrideEnabled@Redfish.AllowableValues")
    if offered and BootSourceOverrideEnabled.CONTINUOUS.value not in offered and not _is_dells(system, device):
        return boot_next(system, device, firmware)
    try:
        return boot_next(system, device, firmware, always=True)
    except exceptions.BadRequestError as error:
        if asks_for_patience(error):
            raise
        return boot_next(system, device, firmware)


def clear_boot(system: System) -> None:
    """Remove the override, and see that it is gone; a BMC that knows no "none" is told to boot from disk."""
    _forget_virtual(system, first_boot(system))
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
        raise _left(read_boot(system).detail)


def _reading(
    system: System, first: FirstBoot | None, asked: BootDevice | None, asked_firmware: Firmware
) -> BootReading:
    """On a Dell the attributes decide about the virtual CD; its own "Cd" is none of ours."""
    target, enabled, mode = _override(system)
    words = [str(each.value) for each in (target, enabled) if each is not None]
    once, off = enabled is BootSourceOverrideEnabled.ONCE, _is_off(target, enabled)
    device = None if off else next((each for each, sources in SOURCES.items() if target in sources), None)
    if first is not None and first.is_virtual:
        device, once, words, off = BootDevice.VIRTUAL_MEDIA, first.once, [first.words], False
    elif first is not None and device is BootDevice.VIRTUAL_MEDIA:
        device = None
    detail = ", ".join([*words, *([str(mode.value)] if mode is not None else [])])
    if not off and device is None:
        detail = f"{detail} (none of ours)"
    firmware = MODES.get(mode, Firmware.ANY)
    return BootReading(device, firmware, once, datetime.now(UTC), detail or "nothing", asked, asked_firmware)


def _boot_virtual(system: System, first: FirstBoot, mode: BootSourceOverrideMode | None, *, once: bool) -> None:
    """By Dell's attributes, once no other override stands; the mode, where it is another, is only in Redfish's."""
    if mode is not None or not (first.is_virtual or _is_off(*_override(system)[:2])):
        _change(system, None, BootSourceOverrideEnabled.DISABLED, mode, None)
        first = first_boot(system) or first
    change_first_boot(system, first, VIRTUAL_CD, once=once)
    system.refresh()


def _forget_virtual(system: System, first: FirstBoot | None) -> None:
    """Take the virtual CD back on a Dell, and see it. "For one boot" is how Dell delivers them."""
    if first is None or not first.is_virtual:
        return
    left = change_first_boot(system, first, NORMAL, once=True)
    if left.is_virtual:
        raise _left(left.words)
    system.refresh()


def _left(said: str) -> Leftover:
    return Leftover(f"the BMC was asked to forget the boot override, and still says {said}", objects=[said])


def _is_dells(system: System, device: BootDevice) -> bool:
    """Whether the device is booted by Dell's attributes."""
    return device is BootDevice.VIRTUAL_MEDIA and first_boot(system) is not None


def _change(
    system: System,
    source: BootSource | None,
    enabled: BootSourceOverrideEnabled,
    mode: BootSourceOverrideMode | None,
    device: BootDevice | None,
) -> None:
    """Send it once, then read: when the answer was lost, whether it is so then decides."""
    lost = _send(system, source, enabled, mode)
    system.refresh()
    if lost is not None and not _is_so(system, enabled, mode, device):
        raise lost


def _is_so(
    system: System,
    enabled: BootSourceOverrideEnabled,
    mode: BootSourceOverrideMode | None,
    device: BootDevice | None,
) -> bool:
    """Whether the system says so: the device, for how many boots, and the mode where it was asked for and is told."""
    target, said, in_mode = _override(system)
    if device is None:
        return _is_off(target, said)
    return target in SOURCES[device] and said is enabled and (mode is None or in_mode in (None, mode))


def _send(
    system: System,
    source: BootSource | None,
    enabled: BootSourceOverrideEnabled,
    mode: BootSourceOverrideMode | None,
) -> exceptions.ConnectionError | None:
    """Send it; gives the error when the answer was lost.

    sushy asks Supermicro's for a CD over USB where they offer that, as others do not boot a virtual medium there; one
    that does not say what it offers is taken to offer all.

    HPE's refuse the mode, which cannot be written there, also where it is so already: it is then left out. It is not
    left out before, because Supermicro's fall back to another mode without it (DMTF/Redfishtool#106).
    """
    if system.boot is not None and system.boot.allowed_values is None:
        system.boot.allowed_values = [each.value for each in BootSource]
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
