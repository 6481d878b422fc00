"""Proof that an accelerator runs guests: what a hypervisor offers is not always what works.

A tiny guest (see `guest`) is booted for a moment, and must say its line on the serial port. A guest that hangs or dies
is the answer "no", not an error. Nothing of the trial is left: the domain is transient and ends with the connection,
its volumes are deleted whatever happens.
"""

from __future__ import annotations

import time
import uuid
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import dataclass

import libvirt

from mulligan.activities.drivers.base import Deadline, Shape
from mulligan.activities.drivers.libvirt.computers import cut
from mulligan.activities.drivers.libvirt.definition import DiskFile, Parts, domain_xml
from mulligan.activities.drivers.libvirt.disks import CONSOLE, delete_parts, volume_name
from mulligan.activities.drivers.libvirt.faults import is_absent
from mulligan.activities.drivers.libvirt.guest import boot_sector
from mulligan.activities.drivers.libvirt.marks import machine_uuid
from mulligan.activities.drivers.libvirt.pools import Pool
from mulligan.activities.drivers.libvirt.transfer import create_volume, download, upload_bytes
from mulligan.activities.errors import HostNotReady, InvalidRequest
from mulligan.activities.values import Firmware, ImageFormat, Mark, Resources

KVM, TCG, AUTO = "kvm", "tcg", "auto"
LINE = "mulligan: alive"
TRIAL_SECONDS = 8.0
"""A guest that runs says its line in well under a second, also under emulation."""
DISK_BYTES = 1 << 20
_DISK = "trial.raw"
_LOOK_EVERY = 0.05


@dataclass(frozen=True, slots=True)
class Trial:
    """How a guest did under an accelerator."""

    accelerator: str
    works: bool
    observed: str


def candidates(connection: libvirt.virConnect, wanted: str) -> Sequence[str]:
    """The accelerators to try, the fastest first, of those that the hypervisor offers."""
    if wanted not in {AUTO, KVM, TCG}:
        raise InvalidRequest(
            f"accelerator {wanted!r} is not known; use auto, kvm or tcg",
            violations=[("settings.accelerator", "must be auto, kvm or tcg")],
        )
    root = ET.fromstring(connection.getCapabilities())  # noqa: S314 - libvirt wrote it
    offered = {each.get("type") for each in root.iterfind("guest/arch[@name='x86_64']/domain")}
    names = [name for name, kind in ((KVM, "kvm"), (TCG, "qemu")) if kind in offered]
    return [name for name in names if wanted in {AUTO, name}]


def prove(connection: libvirt.virConnect, pool: Pool, wanted: str, deadline: Deadline) -> tuple[str, list[Trial]]:
    """The first accelerator under which a guest lives, and all trials. Raises `HostNotReady` when none does."""
    trials = []
    for accelerator in candidates(connection, wanted):
        trials.append(try_out(connection, pool, accelerator, deadline))
        if trials[-1].works:
            return accelerator, trials
    seen = "; ".join(f"{each.accelerator}: {each.observed}" for each in trials) or "the hypervisor offers none of it"
    remedy = "mulligan doctor --mend" if wanted == AUTO else "mulligan provider set <name> --setting accelerator=auto"
    raise HostNotReady(
        f"{pool.provider}: accelerator {wanted} was asked for, but no guest lives under it ({seen}); try `{remedy}`",
        remedy=remedy,
        accelerator=wanted,
    )


def try_out(connection: libvirt.virConnect, pool: Pool, accelerator: str, deadline: Deadline) -> Trial:
    """Boot the tiny guest and look for its line."""
    mark = Mark("mulligan", f"trial-{accelerator}", str(uuid.uuid4()), "", 0)
    try:
        works, observed = _boot(connection, pool, mark, accelerator, deadline)
    finally:
        _clean(connection, pool, mark)
    return Trial(accelerator, works, observed)


def _boot(
    connection: libvirt.virConnect, pool: Pool, mark: Mark, accelerator: str, deadline: Deadline
) -> tuple[bool, str]:
    """Whether the guest spoke, and what was seen."""
    begun = time.monotonic()
    disk = create_volume(pool, volume_name(mark.machine_id, _DISK), DISK_BYTES)
    upload_bytes(connection, disk, boot_sector(LINE).ljust(DISK_BYTES, b"\0"))
    parts = Parts(DiskFile(disk.path(), ImageFormat.RAW), f"{pool.path}/{volume_name(mark.machine_id, CONSOLE)}")
    xml, _fingerprint = domain_xml(mark, Shape(Resources(1, 64, 0), Firmware.BIOS), accelerator, parts)
    try:
        domain = connection.createXML(xml, libvirt.VIR_DOMAIN_START_AUTODESTROY)
    except libvirt.libvirtError as error:
        return False, f"a guest did not start: {' '.join(str(error).split())[:300]}"
    until = min(time.monotonic() + TRIAL_SECONDS, deadline.at)
    while time.monotonic() < until:
        if LINE.encode() in _said(connection, pool, mark):
            return True, f"a guest spoke {time.monotonic() - begun:.1f} s after it was asked for"
        if not domain.isActive():
            return False, "the guest died before it said anything"
        time.sleep(_LOOK_EVERY)
    return False, f"the guest said nothing within {TRIAL_SECONDS:.0f} s"


def _said(connection: libvirt.virConnect, pool: Pool, mark: Mark) -> bytes:
    log = pool.volume(volume_name(mark.machine_id, CONSOLE))
    if log is None:
        pool.refresh(must=False)
        return b""
    return download(connection, log, 0, 4096)


def _clean(connection: libvirt.virConnect, pool: Pool, mark: Mark) -> None:
    try:
        cut(connection.lookupByUUID(machine_uuid(mark.machine_id).bytes))
    except libvirt.libvirtError as error:
        if not is_absent(error):
            raise
    pool.refresh(must=False)
    delete_parts(pool, mark.machine_id, _DISK, CONSOLE)
