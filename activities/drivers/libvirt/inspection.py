"""What a hypervisor has to give, read from libvirt: inventory, capabilities, and facts for people."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence

import libvirt

from mulligan.activities.drivers.libvirt.accelerator import KVM, Trial
from mulligan.activities.drivers.libvirt.definition import MACHINE_TYPES
from mulligan.activities.drivers.libvirt.disks import GIB
from mulligan.activities.drivers.libvirt.marks import PREFIX
from mulligan.activities.drivers.libvirt.pools import Pool
from mulligan.activities.errors import Unsupported
from mulligan.activities.values import Inspection, InventoryRow, Kind

VCPU_OVERCOMMIT_PERCENT = 400
"""Guests seldom use all their processors at once; operators set their own with `mulligan provider set`."""


def inspection_of(
    connection: libvirt.virConnect, pool: Pool, network: str, accelerator: str, trials: Sequence[Trial]
) -> Inspection:
    """The inspection, with the accelerator that was proved."""
    architecture = str(connection.getInfo()[0])
    if architecture not in MACHINE_TYPES:
        raise Unsupported(
            f"{pool.provider}: the host is {architecture}; the libvirt driver makes machines of "
            f"{', '.join(MACHINE_TYPES)}",
            architecture=architecture,
        )
    firmware = ["firmware.bios", *(["firmware.uefi"] if _has_uefi(connection, architecture, accelerator) else [])]
    capabilities = (
        f"arch.{architecture}",
        *firmware,
        f"accel.{accelerator}",
        "boot.disk",
        "boot.live",
        "boot.live-iso",
        "console.serial",
        "driver.libvirt",
    )
    settings = {"accelerator": accelerator, "pool": pool.name, "network": network}
    return Inspection(
        Kind.VIRTUAL, _inventory(connection, pool), capabilities, settings, _facts(connection, pool, trials)
    )


def _has_uefi(connection: libvirt.virConnect, architecture: str, accelerator: str) -> bool:
    kind = "kvm" if accelerator == KVM else "qemu"
    text = connection.getDomainCapabilities(None, architecture, MACHINE_TYPES[architecture], kind, 0)
    values = ET.fromstring(text).iterfind("os/enum[@name='firmware']/value")  # noqa: S314 - libvirt wrote it
    return "efi" in {value.text for value in values}


def _inventory(connection: libvirt.virConnect, pool: Pool) -> tuple[InventoryRow, ...]:
    """Totals are the host's own. Kept back: memory for the host (a tenth, at least 1 GiB), and of the disk a twentieth
    and what others than Mulligan have stored there."""
    info = connection.getInfo()
    memory, processors = _memory_mib(connection), int(info[2])
    _state, capacity, allocation, _available = pool.handle.info()
    disk = capacity // GIB
    others = -(-max(0, allocation - _our_bytes(pool)) // GIB)
    return (
        InventoryRow("vcpu", processors, 0, VCPU_OVERCOMMIT_PERCENT),
        InventoryRow("memory_mib", memory, min(memory, max(1024, memory // 10))),
        InventoryRow("disk_gib", disk, min(disk, others + disk // 20)),
    )


def _memory_mib(connection: libvirt.virConnect) -> int:
    """The host's memory. `getInfo` adds up NUMA nodes, which misses memory that was plugged in later."""
    total = connection.getMemoryStats(libvirt.VIR_NODE_MEMORY_STATS_ALL_CELLS).get("total", 0)
    return total // 1024 or int(connection.getInfo()[1])


def _our_bytes(pool: Pool) -> int:
    volumes = [pool.volume(name) for name in pool.names(f"{PREFIX}-")]
    return sum(int(volume.info()[2]) for volume in volumes if volume is not None)


def _facts(connection: libvirt.virConnect, pool: Pool, trials: Sequence[Trial]) -> Mapping[str, str]:
    info = connection.getInfo()
    facts = {
        "hostname": connection.getHostname(),
        "libvirt": _version(connection.getLibVersion()),
        "hypervisor": f"{connection.getType()} {_version(connection.getVersion())}",
        "cpu": _processor(connection) or str(info[0]),
        "cpu_mhz": str(info[3]),
        "pool_path": pool.path,
    }
    return facts | {f"accelerator.{trial.accelerator}": trial.observed for trial in trials}


def _version(number: int) -> str:
    return f"{number // 1_000_000}.{number // 1_000 % 1_000}.{number % 1_000}"


def _processor(connection: libvirt.virConnect) -> str:
    root = ET.fromstring(connection.getCapabilities())  # noqa: S314 - libvirt wrote it
    vendor, model = (root.findtext(f"host/cpu/{name}", "") for name in ("vendor", "model"))
    return f"{vendor} {model}".strip()
