"""What a server has, read from its BMC: inventory, capabilities, and facts for people. BMCs leave much of it out."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from sushy import exceptions
from sushy.resources.system.constants import BootSourceOverrideMode, InstructionSet, ProcessorArchitecture
from sushy.resources.system.system import System

from mulligan.activities.cards import MAC, distinctive
from mulligan.activities.drivers.base import BootDevice
from mulligan.activities.drivers.booting import MOST_MACS, agent_capabilities
from mulligan.activities.drivers.redfish.address import Address
from mulligan.activities.drivers.redfish.boot import MODES, devices_of
from mulligan.activities.drivers.redfish.media import drives_of, takers
from mulligan.activities.drivers.redfish.systems import serial_to_keep
from mulligan.activities.errors import Unsupported
from mulligan.activities.values import RESOURCES, Inspection, InventoryRow, Kind

T = TypeVar("T")

GIB = 1 << 30
MOST_LISTED = 16
"""Network cards and disks that the facts name."""

_ABSENT = (exceptions.MissingAttributeError, exceptions.ResourceNotFoundError, exceptions.MalformedAttributeError)
_X86 = (InstructionSet.X86_64, ProcessorArchitecture.X86)
"""A server with processors of the older 32 bit set only is not met any more."""


def inspect_system(system: System, address: Address) -> Inspection:
    """Look at a system that was read just now."""
    processors = [each for each in _each(lambda: system.processors) if _is_cpu(each)]
    _require_x86(processors, address.provider)
    disks = _disks(system)
    found = {"vcpu": _threads(system, processors), "memory_mib": _memory_mib(system), "disk_gib": _largest_gib(disks)}
    amounts = found | dict(address.sizes)
    rows = tuple(InventoryRow(name, amounts[name]) for name in RESOURCES if amounts[name] > 0)
    boots, macs = _boots(system), address.booting.macs or _macs(system)
    firmware = _firmware(system)
    agent = agent_capabilities(boots, address.booting.boot_from, macs, firmware)
    told = {"serial": _optional(lambda: serial_to_keep(system), ""), "macs": ",".join(macs)}
    missing = [*(name for name in RESOURCES if amounts[name] <= 0), *(["macs"] if boots and not agent else [])]
    return Inspection(
        Kind.BARE_METAL,
        rows,
        tuple(sorted({"arch.x86_64", "driver.redfish", *firmware, *boots, *agent, *_progress(system)})),
        {name: value for name, value in told.items() if value},
        _facts(system, processors, disks, missing),
    )


def _macs(system: System) -> tuple[str, ...]:
    """The MAC addresses of its network cards, as far as they are told; without those to the BMC itself, whose locally
    administered address many makers give to every server."""
    told = (str(each.permanent_mac_address or each.mac_address).strip().lower() for each in _cards(system))
    found = tuple(dict.fromkeys(mac for mac in told if MAC.fullmatch(mac)))
    return distinctive(found)[:MOST_MACS]


def _is_cpu(processor: Any) -> bool:
    """Whether it is a CPU, or of no type that is told: BMCs list GPUs and FPGAs among the processors too."""
    return (processor.json or {}).get("ProcessorType") in (None, "", "CPU")


def _require_x86(processors: Iterable[Any], provider: str) -> None:
    for each in processors:
        said = each.instruction_set or each.processor_architecture
        if said is not None and said not in _X86:
            raise Unsupported(
                f"{provider}: its processors are {said.value}; Mulligan makes machines of x86-64",
                architecture=said.value,
            )


def _threads(system: System, processors: Iterable[Any]) -> int:
    """Threads, as far as they are told; else cores; 0 where neither is."""
    by_part = sum(each.total_threads or each.total_cores or 0 for each in processors)
    summary = (system.json or {}).get("ProcessorSummary") or {}
    return by_part or _whole(summary.get("LogicalProcessorCount")) or _whole(summary.get("CoreCount"))


def _memory_mib(system: System) -> int:
    summary = (system.json or {}).get("MemorySummary") or {}
    return _whole(summary.get("TotalSystemMemoryGiB"), 1024)


def _disks(system: System) -> list[tuple[str, int]]:
    """Name and bytes of each disk, from Storage, or from SimpleStorage where that has none."""
    drives = [drive for storage in _each(lambda: system.storage) for drive in _drives(storage)]
    found = [(str(each.model or each.name or each.identity), each.capacity_bytes or 0) for each in drives]
    if not found:
        devices = [device for each in _each(lambda: system.simple_storage) for device in each.devices or []]
        found = [(str(each.model or each.name), each.capacity_bytes or 0) for each in devices]
    return [(name, size) for name, size in found if size > 0]


def _drives(storage: Any) -> list[Any]:
    return _optional(lambda: list(storage.drives), [])


def _largest_gib(disks: Iterable[tuple[str, int]]) -> int:
    """An image goes on one disk: the largest one bounds it."""
    return max((size // GIB for _name, size in disks), default=0)


def _firmware(system: System) -> set[str]:
    """The boot modes: those that may be asked for, else the present one, else UEFI, which all with Redfish have."""
    boot = (system.json or {}).get("Boot") or {}
    words = boot.get("BootSourceOverrideMode@Redfish.AllowableValues") or [boot.get("BootSourceOverrideMode")]
    known = {mode.value: firmware for mode, firmware in MODES.items()}
    found = {f"firmware.{known[word]}" for word in words if word in known}
    return found or {f"firmware.{MODES[BootSourceOverrideMode.UEFI]}"}


def _boots(system: System) -> set[str]:
    devices = devices_of(system)
    found = {"boot.network"} if BootDevice.NETWORK in devices else set()
    media = BootDevice.VIRTUAL_MEDIA in devices and takers(drives_of(system))
    return found | ({"boot.virtual-media"} if media else set())


def _progress(system: System) -> set[str]:
    """Those that say how far a boot came have a word for it also when they are off."""
    return {"boot.progress"} if isinstance((system.json or {}).get("BootProgress"), dict) else set()


def _facts(system: System, processors: list[Any], disks: list[tuple[str, int]], missing: list[str]) -> dict[str, str]:
    cards = [f"{each.identity} {each.permanent_mac_address or each.mac_address}" for each in _cards(system)]
    models = dict.fromkeys(str(each.model).strip() for each in processors if each.model)
    secure = _optional(lambda: system.secure_boot, None)
    bmcs = [str(each.firmware_version) for each in _managers(system) if each.firmware_version]
    told = {
        "vendor": system.manufacturer,
        "model": system.model,
        "serial": system.serial_number,
        "uuid": system.uuid,
        "bios": system.bios_version,
        "bmc": ", ".join(bmcs),
        "processors": ", ".join(models) and f"{len(processors)} x {', '.join(models)}",
        "disks": ", ".join(f"{name} {size // GIB} GiB" for name, size in disks[:MOST_LISTED]),
        "nics": ", ".join(cards[:MOST_LISTED]),
        "secure-boot": "" if secure is None or secure.enabled is None else "on" if secure.enabled else "off",
        "not-told": ", ".join(missing) and f"{', '.join(missing)}: say it with --set, e.g. --set {missing[0]}=...",
    }
    return {name: str(value).strip()[:500] for name, value in told.items() if value and str(value).strip()}


def _managers(system: System) -> list[Any]:
    return _optional(lambda: list(system.managers), [])


def _cards(system: System) -> list[Any]:
    return [
        each for each in _each(lambda: system.ethernet_interfaces) if each.permanent_mac_address or each.mac_address
    ]


def _each(collection: Callable[[], Any]) -> list[Any]:
    """The members of what a system may have; none where it has not."""
    return list(_optional(lambda: collection().get_members(), []))


def _optional(read: Callable[[], T], without: T) -> T:
    """A part that not every system has; some BMCs answer 500 for what they have not."""
    try:
        return read()
    except _ABSENT:
        return without
    except exceptions.ServerSideError as error:
        if error.status_code not in (500, 501):
            raise
        return without


def _whole(value: object, times: int = 1) -> int:
    """A number from a document, as a whole one; 0 for anything else."""
    return int(value * times) if isinstance(value, int | float) and not isinstance(value, bool) and value > 0 else 0
