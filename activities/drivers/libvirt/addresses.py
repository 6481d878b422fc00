"""The machine's addresses: DHCP leases, the hypervisor's ARP table and the guest agent, each asked on its own."""

from __future__ import annotations

import ipaddress
import xml.etree.ElementTree as ET
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import libvirt

from mulligan.activities.drivers.base import Sighting
from mulligan.activities.drivers.libvirt.link import is_remote
from mulligan.activities.drivers.libvirt.marks import own_domain
from mulligan.activities.drivers.libvirt.networks import lease_seconds, open_network
from mulligan.activities.errors import NotFound, Unreachable
from mulligan.activities.values import Mark

AGENT_SECONDS = 2
SOURCE_SECONDS = 5.0
"""How long a source is waited for; one that takes longer is silent this time."""
NEIGHBOURS = Path("/proc/net/arp")
_COMPLETE = 0x2
_EPOCH = datetime.fromtimestamp(0, UTC)

Source = Callable[[libvirt.virConnect, Mark, str, str], tuple[Sighting, ...]]


def _running(connection: libvirt.virConnect, mark: Mark) -> libvirt.virDomain:
    owned = own_domain(connection, mark)
    if owned is None or not owned[0].isActive():
        raise NotFound(f"machine {mark.machine_id} does not run")
    return owned[0]


def _macs(domain: libvirt.virDomain) -> frozenset[str]:
    root = ET.fromstring(domain.XMLDesc(0))  # noqa: S314 - libvirt wrote it
    return frozenset(mac.get("address", "").lower() for mac in root.iterfind("devices/interface/mac"))


def _useful(address: str) -> bool:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    return not (parsed.is_loopback or parsed.is_link_local or parsed.is_unspecified or parsed.is_multicast)


def leases(connection: libvirt.virConnect, mark: Mark, network: str, provider: str) -> tuple[Sighting, ...]:
    """What the network's DHCP server gave. A lease's time is its end less its length: when it was given or renewed. A
    lease without end has no time, and is dated so that it proves nothing."""
    macs, handle = _macs(_running(connection, mark)), open_network(connection, network, provider)
    length = lease_seconds(handle)
    found = []
    for lease in handle.DHCPLeases():
        mac, address, ends = (lease.get("mac") or "").lower(), str(lease.get("ipaddr")), int(lease["expirytime"])
        if mac in macs and _useful(address):
            given = datetime.fromtimestamp(ends, UTC) - timedelta(seconds=length) if ends and length else _EPOCH
            found.append(Sighting("dhcp-lease", address, mac, given))
    return tuple(found)


def _interfaces(domain: libvirt.virDomain, source: int, name: str) -> tuple[Sighting, ...]:
    now, macs = datetime.now(UTC), _macs(domain)
    found: Mapping[str, dict[str, object]] = domain.interfaceAddresses(source)
    sightings = []
    for interface in found.values():
        mac, addresses = str(interface.get("hwaddr") or "").lower(), interface.get("addrs")
        for each in addresses if mac in macs and isinstance(addresses, list) else ():
            if _useful(str(each["addr"])):
                sightings.append(Sighting(name, str(each["addr"]), mac, now))
    return tuple(sightings)


def arp(connection: libvirt.virConnect, mark: Mark, _network: str, _provider: str) -> tuple[Sighting, ...]:
    """What the hypervisor's neighbour table says of the machine's interfaces.

    libvirt 9.0 cannot read the table of newer kernels ("wrong nlmsg len"); on the local host it is then read directly.
    """
    domain = _running(connection, mark)
    try:
        return _interfaces(domain, libvirt.VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_ARP, "arp")
    except libvirt.libvirtError:
        if is_remote(connection.getURI()):
            raise
        return neighbours(NEIGHBOURS.read_text(), _macs(domain))


def neighbours(table: str, macs: frozenset[str]) -> tuple[Sighting, ...]:
    """The complete entries of the kernel's table of neighbours (`/proc/net/arp`) that belong to one of `macs`."""
    now, found = datetime.now(UTC), []
    for line in table.splitlines()[1:]:
        address, _hardware, flags, mac, *_rest = line.split()
        if int(flags, 16) & _COMPLETE and mac.lower() in macs and _useful(address):
            found.append(Sighting("arp", address, mac.lower(), now))
    return tuple(found)


def agent(connection: libvirt.virConnect, mark: Mark, _network: str, provider: str) -> tuple[Sighting, ...]:
    """What the QEMU guest agent says, where one runs in the guest."""
    domain = _running(connection, mark)
    root = ET.fromstring(domain.XMLDesc(0))  # noqa: S314 - libvirt wrote it
    states = [each.get("state") for each in root.iterfind("devices/channel/target")]
    if "connected" not in states:
        raise Unreachable(f"{provider}: no guest agent is connected (yet, or the image has none)")
    domain.agentSetResponseTimeout(AGENT_SECONDS, 0)
    return _interfaces(domain, libvirt.VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_AGENT, "guest-agent")


SOURCES: Mapping[str, Source] = {"dhcp-lease": leases, "arp": arp, "guest-agent": agent}
"""Every source by its name. Each gives what it saw, nothing, or raises why it cannot say."""
