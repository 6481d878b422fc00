"""The virtual network that machines are on: started when it is defined, and asked for leases and its gateway."""

from __future__ import annotations

import ipaddress
import xml.etree.ElementTree as ET

import libvirt

from mulligan.activities.drivers.libvirt.faults import is_absent
from mulligan.activities.errors import HostNotReady

DEFAULT = "default"
LEASE_SECONDS = 3600
"""How long libvirt's DHCP server (dnsmasq) leases an address unless the network says otherwise."""
_UNITS = {"seconds": 1, "minutes": 60, "hours": 3600}


def open_network(connection: libvirt.virConnect, name: str, provider: str) -> libvirt.virNetwork:
    """The network by name, started."""
    try:
        network = connection.networkLookupByName(name)
    except libvirt.libvirtError as error:
        if not is_absent(error):
            raise
        remedy = "virsh net-define /usr/share/libvirt/networks/default.xml && virsh net-start default"
        raise HostNotReady(
            f"{provider}: there is no network {name!r}; define it (for libvirt's own: `{remedy}`), or set the "
            "provider's setting `network` to one of `virsh net-list --all`",
            remedy=remedy,
            network=name,
        ) from error
    if not network.isActive():
        _start(network)
    return network


def _start(network: libvirt.virNetwork) -> None:
    try:
        network.create()
    except libvirt.libvirtError:
        if not network.isActive():  # another run may have started it meanwhile
            raise


def _description(network: libvirt.virNetwork) -> ET.Element:
    return ET.fromstring(network.XMLDesc(0))  # noqa: S314 - libvirt wrote it


def gateway_of(network: libvirt.virNetwork) -> str:
    """The address of the hypervisor on the network, IPv4 before IPv6; empty where libvirt does not own it."""
    addresses = [
        ipaddress.ip_address(text) for each in _description(network).findall("ip") if (text := each.get("address"))
    ]
    return str(min(addresses, key=lambda address: address.version)) if addresses else ""


def lease_seconds(network: libvirt.virNetwork) -> int:
    """The longest lease that the network gives; 0 where some lease never ends."""
    found = []
    for lease in _description(network).iterfind("ip/dhcp//lease"):
        found.append(int(lease.get("expiry", "0")) * _UNITS.get(lease.get("unit", "minutes"), 60))
    if not found:
        return LEASE_SECONDS
    return 0 if 0 in found else max(found)
