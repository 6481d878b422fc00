"""Names and marks: how an object on a hypervisor says whose it is, and whether we may touch it."""

from __future__ import annotations

import hashlib
import re
import uuid
import xml.etree.ElementTree as ET
from dataclasses import dataclass

import libvirt

from mulligan.activities.drivers.libvirt.faults import is_absent
from mulligan.activities.errors import Conflict, StaleFence
from mulligan.activities.values import Mark

NAMESPACE = "urn:mulligan:v1"
PREFIX = "mulligan"
_IDS = uuid.uuid5(uuid.NAMESPACE_URL, NAMESPACE)


@dataclass(frozen=True, slots=True)
class Labelled:
    """A domain's mark, and the fingerprint of the definition that was written with it."""

    mark: Mark
    fingerprint: str


def machine_uuid(machine_id: str) -> uuid.UUID:
    """The machine's UUID: the id itself where it is one."""
    try:
        return uuid.UUID(machine_id)
    except ValueError:
        return uuid.uuid5(_IDS, machine_id)


def volume_prefix(machine_id: str) -> str:
    """What the name of every volume of the machine starts with."""
    return f"{PREFIX}-{machine_uuid(machine_id)}-"


def domain_name(mark: Mark) -> str:
    """A name for people, unique by the machine's id: `mulligan-<project>-<machine>-<8 hex digits>`."""
    words = re.sub(r"[^A-Za-z0-9.-]+", "-", f"{mark.project}-{mark.machine}").strip("-.")[:80]
    return f"{PREFIX}-{words}-{machine_uuid(mark.machine_id).hex[:8]}"


def mac_address(mark: Mark) -> str:
    """The first interface's address: the same for every attempt under one fence, and another one under the next, so
    that a lease or ARP entry of an earlier try is never taken for this one."""
    digest = hashlib.sha256(f"{mark.machine_id}/{mark.fence}".encode()).digest()
    return "52:54:00:" + ":".join(f"{byte:02x}" for byte in digest[:3])


def label(mark: Mark, fingerprint: str) -> ET.Element:
    """The metadata element that carries the mark."""
    attributes = {
        "project": mark.project,
        "machine": mark.machine,
        "id": mark.machine_id,
        "run": mark.run_id,
        "fence": str(mark.fence),
        "fingerprint": fingerprint,
    }
    return ET.Element(f"{{{NAMESPACE}}}machine", attributes)


def label_of(domain: libvirt.virDomain) -> Labelled | None:
    """The mark on a domain; None where it carries none that can be read."""
    try:
        text = domain.metadata(libvirt.VIR_DOMAIN_METADATA_ELEMENT, NAMESPACE)
    except libvirt.libvirtError as error:
        if is_absent(error):
            return None
        raise
    found = ET.fromstring(text)  # noqa: S314 - libvirt wrote it
    get = found.attrib.get
    try:
        fence = int(get("fence", ""))
    except ValueError:
        return None
    mark = Mark(get("project", ""), get("machine", ""), get("id", ""), get("run", ""), fence)
    return Labelled(mark, get("fingerprint", ""))


def guard(mark: Mark, fence: int, what: str) -> None:
    """Refuse to act for an older claim than the one that owns `what`."""
    if fence > mark.fence:
        raise StaleFence(
            f"{what} belongs to claim fence {fence}; this run holds the older fence {mark.fence} and must stop",
            object=what,
            fence=mark.fence,
            found=fence,
        )


def own_domain(connection: libvirt.virConnect, mark: Mark) -> tuple[libvirt.virDomain, Labelled] | None:
    """The machine's domain, None when there is none.

    Raises `Conflict` when what has its UUID is not ours, `StaleFence` when a newer claim owns it.
    """
    try:
        domain = connection.lookupByUUID(machine_uuid(mark.machine_id).bytes)
        labelled = label_of(domain)
    except libvirt.libvirtError as error:
        if is_absent(error):
            return None
        raise
    name = f"domain {domain.name()}"
    if labelled is None or labelled.mark.machine_id != mark.machine_id:
        owner = f"machine {labelled.mark.machine_id}" if labelled else "nobody that Mulligan knows"
        raise Conflict(
            f"{name} has the UUID of machine {mark.machine_id} but belongs to {owner}; it was not touched. "
            f"Look at it with `virsh dumpxml {domain.name()}`",
            object=name,
        )
    guard(mark, labelled.mark.fence, name)
    return domain, labelled
