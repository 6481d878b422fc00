"""The domain itself: definition, power, and their undo. Every verb reads before it writes."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from datetime import UTC, datetime

import libvirt

from mulligan.activities.drivers.base import PowerReading, Shape
from mulligan.activities.drivers.libvirt.definition import DiskFile, Parts, domain_xml
from mulligan.activities.drivers.libvirt.disks import (
    CONSOLE,
    DISK,
    INITRD,
    KERNEL,
    MEDIUM,
    NVRAM,
    SEED,
    delete_parts,
    fence_of,
    volume_name,
)
from mulligan.activities.drivers.libvirt.faults import is_absent
from mulligan.activities.drivers.libvirt.marks import label_of, own_domain
from mulligan.activities.drivers.libvirt.pools import Pool
from mulligan.activities.errors import Leftover, NotFound, Transient
from mulligan.activities.values import ImageFormat, Mark, PowerState

_STATES = {
    libvirt.VIR_DOMAIN_NOSTATE: (PowerState.OFF, "no state"),
    libvirt.VIR_DOMAIN_RUNNING: (PowerState.ON, "running"),
    libvirt.VIR_DOMAIN_BLOCKED: (PowerState.ON, "blocked"),
    libvirt.VIR_DOMAIN_PAUSED: (PowerState.ON, "paused"),
    libvirt.VIR_DOMAIN_SHUTDOWN: (PowerState.ON, "shutting down"),
    libvirt.VIR_DOMAIN_SHUTOFF: (PowerState.OFF, "shut off"),
    libvirt.VIR_DOMAIN_CRASHED: (PowerState.OFF, "crashed"),
    libvirt.VIR_DOMAIN_PMSUSPENDED: (PowerState.ON, "suspended by the guest"),
}


def parts_of(pool: Pool, mark: Mark, network: str) -> Parts:
    """The files that the machine's domain is made of. Raises `NotFound` when its disks are not there."""
    found = _boots(pool, mark)
    if not found:
        pool.refresh()
        found = _boots(pool, mark)
    if not found:
        raise NotFound(f"pool {pool.name} has no disk and seed of machine {mark.machine_id}; create the disks first")
    inside = f"{pool.path}/{volume_name(mark.machine_id, '')}"
    files = {part: DiskFile(volume.path(), ImageFormat.QCOW2, _below(volume)) for part, volume in found.items()}
    below = {part: file.below.path for part, file in files.items() if file.below is not None}
    return Parts(
        disk=files.get(DISK),
        console_log=inside + CONSOLE,
        seed=found[SEED].path() if SEED in found else "",
        nvram=inside + NVRAM,
        network=network,
        medium=files.get(MEDIUM),
        kernel=below.get(KERNEL, ""),
        initrd=below.get(INITRD, ""),
    )


def _boots(pool: Pool, mark: Mark) -> dict[str, libvirt.virStorageVol]:
    """The volumes that a domain is made of: a disk or a kernel, with its seed, or a medium; empty without these."""
    volumes = {part: pool.volume(volume_name(mark.machine_id, part)) for part in (DISK, KERNEL, INITRD, MEDIUM, SEED)}
    found = {part: volume for part, volume in volumes.items() if volume is not None}
    whole = MEDIUM in found or (SEED in found and (DISK in found or KERNEL in found))
    return found if whole else {}


def _below(disk: libvirt.virStorageVol) -> DiskFile | None:
    """What the volume is built on: raw, unless its name says qcow2."""
    path = ET.fromstring(disk.XMLDesc(0)).findtext("backingStore/path")  # noqa: S314 - libvirt wrote it
    if not path:
        return None
    return DiskFile(path, ImageFormat.QCOW2 if path.endswith(f".{ImageFormat.QCOW2}") else ImageFormat.RAW)


def define(
    connection: libvirt.virConnect, pool: Pool, mark: Mark, shape: Shape, *, accelerator: str, network: str
) -> None:
    """Make the definition, powered off; the very same one that is there already is left alone."""
    fence_of(pool, mark)
    owned = own_domain(connection, mark)
    xml, fingerprint = domain_xml(mark, shape, accelerator, parts_of(pool, mark, network))
    if owned is not None:
        domain, labelled = owned
        if labelled.mark.fence == mark.fence and labelled.fingerprint == fingerprint and domain.isPersistent():
            return
        _erase(domain)
    connection.defineXML(xml)


def _erase(domain: libvirt.virDomain) -> None:
    cut(domain)
    try:
        domain.undefineFlags(
            libvirt.VIR_DOMAIN_UNDEFINE_NVRAM
            | libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE
            | libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
            | libvirt.VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA
        )
    except libvirt.libvirtError as error:
        if not is_absent(error):
            raise


def undefine(connection: libvirt.virConnect, pool: Pool, mark: Mark) -> None:
    """Remove the definition with NVRAM and console log, then list to be sure."""
    fence_of(pool, mark)
    owned = own_domain(connection, mark)
    if owned is not None:
        _erase(owned[0])
    pool.refresh()
    delete_parts(pool, mark.machine_id, CONSOLE, NVRAM)
    left = remaining_domains(connection, mark.machine_id)
    if left:
        raise Leftover(
            f"{', '.join(left)} is still defined after it was removed; remove it with `virsh undefine --nvram <name>`",
            objects=left,
        )


def remaining_domains(connection: libvirt.virConnect, machine_id: str) -> list[str]:
    """Every domain, running or not, that carries the machine's mark."""
    found = []
    for domain in connection.listAllDomains(0):
        try:
            labelled = label_of(domain)
        except libvirt.libvirtError as error:
            if is_absent(error):  # it went away since it was listed
                continue
            raise
        if labelled is not None and labelled.mark.machine_id == machine_id:
            found.append(f"domain {domain.name()}")
    return sorted(found)


def read_power(connection: libvirt.virConnect, mark: Mark) -> PowerReading:
    """The power now."""
    owned = own_domain(connection, mark)
    now = datetime.now(UTC)
    if owned is None:
        return PowerReading(PowerState.ABSENT, now, "no such domain")
    code, _reason = owned[0].state()
    state, detail = _STATES.get(code, (PowerState.OFF, f"state {code}"))
    return PowerReading(state, now, detail)


def power_on(connection: libvirt.virConnect, mark: Mark) -> None:
    """Start the domain, or let it run on when it is paused."""
    owned = own_domain(connection, mark)
    if owned is None:
        raise NotFound(f"machine {mark.machine_id} has no domain to power on; define it first")
    domain = owned[0]
    if not domain.isActive():
        try:
            domain.create()
        except libvirt.libvirtError:
            if not domain.isActive():  # another attempt may have started it meanwhile
                raise
    elif domain.state()[0] == libvirt.VIR_DOMAIN_PAUSED:
        domain.resume()


def power_off(connection: libvirt.virConnect, pool: Pool, mark: Mark) -> None:
    """Cut the power; an absent domain is off."""
    fence_of(pool, mark)
    owned = own_domain(connection, mark)
    if owned is not None:
        cut(owned[0])


def cut(domain: libvirt.virDomain) -> None:
    """Cut a domain's power and see that it is off."""
    try:
        if domain.isActive():
            domain.destroy()
        if not domain.isActive():
            return
    except libvirt.libvirtError as error:
        if is_absent(error) or not _still_active(domain):
            return
        raise
    raise Transient(f"domain {domain.name()} still runs after its power was cut; it will be tried again")


def _still_active(domain: libvirt.virDomain) -> bool:
    try:
        return bool(domain.isActive())
    except libvirt.libvirtError as error:
        if is_absent(error):
            return False
        raise
