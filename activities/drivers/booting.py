"""How a server boots the deploy agent, as its provider's settings say; the same for all drivers of BMCs.

boot_url=http://HOST[:PORT]    how BMC and server reach the boot server; else what MULLIGAN_BOOT_URL says
macs=MAC[,MAC...]              by which of its network cards it boots from the network
boot_from=auto|virtual-media|network
agent_address=ADDRESS/LENGTH agent_gateway=ADDRESS agent_mac=MAC
                               the agent's network where there is no DHCP; the MAC says which card has it
agent_vlan=ID                  the tag of the agent's network, 1 to 4094, where its frames are tagged
transfer=raw|zstd              how the image goes to the server: as it is, or compressed for a slow network
check_identity=on|off          whether the agent must run on the server whose serial number, or UUID, the BMC tells, and
                               an IPMI BMC must tell the GUID that it told when it was added
"""

from __future__ import annotations

import difflib
import ipaddress
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from urllib.parse import urlsplit

from mulligan.activities.cards import MAC

SETTINGS = (
    "boot_url", "macs", "boot_from", "agent_address", "agent_gateway", "agent_mac", "agent_vlan", "transfer",
    "check_identity",
)  # fmt: skip
"""Every setting that is read here."""
MOST_MACS = 16
BOOT_URL = "http://HOST or http://HOST:PORT (not https: the deploy agent speaks no TLS)"
"""What a boot server's URL must be, for people."""

_VLANS = frozenset(map(str, range(1, 4095)))
_NO_ADDRESS = ipaddress.ip_address(0)


class BootFrom(StrEnum):
    """What the agent is booted from; AUTO takes virtual media where the machine has them, else the network."""

    AUTO = "auto"
    VIRTUAL_MEDIA = "virtual-media"
    NETWORK = "network"


class Transfer(StrEnum):
    """How the image goes to the server."""

    RAW = "raw"
    ZSTD = "zstd"


@dataclass(frozen=True, slots=True)
class Booting:
    """The settings as values; empty where nothing is said."""

    boot_url: str = ""
    """Without a slash at its end."""
    macs: tuple[str, ...] = ()
    """Lower case, with colons."""
    boot_from: BootFrom = BootFrom.AUTO
    address: str = ""
    """With the length of its prefix: `10.0.0.5/24`."""
    gateway: str = ""
    mac: str = ""
    vlan: str = ""
    transfer: Transfer = Transfer.RAW
    check_identity: bool = True


def read_booting(settings: Mapping[str, str]) -> Booting:
    """The settings as values; of those in which `wrong_booting` finds nothing."""
    return Booting(
        settings.get("boot_url", "").rstrip("/"),
        tuple(dict.fromkeys(_macs(settings.get("macs", "")))),
        BootFrom(settings.get("boot_from", BootFrom.AUTO)),
        settings.get("agent_address", ""),
        settings.get("agent_gateway", ""),
        _mac(settings.get("agent_mac", "")),
        settings.get("agent_vlan", ""),
        Transfer(settings.get("transfer", Transfer.RAW)),
        settings.get("check_identity", "on") == "on",
    )


def wrong_booting(settings: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """What is wrong with the settings: (setting, what about it)."""
    if not _is_url(settings.get("boot_url", "http://host")):
        yield "boot_url", f"must be {BOOT_URL}, as BMC and server reach the boot server"
    macs = _macs(settings["macs"]) if "macs" in settings else ["00:00:00:00:00:00"]
    if not 0 < len(macs) <= MOST_MACS or not all(map(MAC.fullmatch, macs)):
        yield "macs", f"must be 1 to {MOST_MACS} MAC addresses with commas between: 52:54:00:12:34:56,52:54:00:12:34:57"
    if settings.get("boot_from", BootFrom.AUTO) not in set(BootFrom):
        yield "boot_from", f"must be one of {', '.join(BootFrom)}"
    if settings.get("transfer", Transfer.RAW) not in set(Transfer):
        yield "transfer", f"must be one of {', '.join(Transfer)}"
    if settings.get("check_identity", "on") not in ("on", "off"):
        yield "check_identity", "must be on or off"
    yield from _wrong_network(settings)


def _wrong_network(settings: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    if settings.get("agent_vlan", "1") not in _VLANS:
        yield "agent_vlan", "must be the number of a VLAN, from 1 to 4094"
    if "agent_address" not in settings:
        for name in ("agent_gateway", "agent_mac"):
            if name in settings:
                yield name, "needs the setting agent_address beside it"
        return
    try:
        address = ipaddress.ip_interface(settings["agent_address"])
    except ValueError:
        address = None
    if address is None or "/" not in settings["agent_address"]:
        yield "agent_address", "must be an address with the length of its network's prefix, such as 10.0.0.5/24"
    gateway = settings.get("agent_gateway", "")
    if gateway and address is not None and _address(gateway) not in address.network:
        yield "agent_gateway", f"must be an address in the network of agent_address, {address.network}"
    if "agent_mac" in settings and not MAC.fullmatch(_mac(settings["agent_mac"])):
        yield "agent_mac", "must be one MAC address, such as 52:54:00:12:34:56"


def agent_capabilities(
    boots: Collection[str], boot_from: BootFrom, macs: Collection[str], firmware: Collection[str]
) -> frozenset[str]:
    """What a machine that can boot so can do besides, where that boots the deploy agent; nothing where it does not.

    `boots` are its capabilities `boot.*`, `firmware` those `firmware.*`. From the network the boot server must know it
    by one of its MACs, and iPXE boots an ISO by BIOS only.
    """
    media = "boot.virtual-media" in boots and boot_from is not BootFrom.NETWORK
    network = "boot.network" in boots and boot_from is not BootFrom.VIRTUAL_MEDIA and bool(macs)
    if not (media or network):
        return frozenset()
    iso = {"boot.live-iso"} if media or "firmware.bios" in firmware else set()
    return frozenset({"boot.disk", "boot.live", "deploy.agent", *iso})


def unknown(settings: Mapping[str, str], known: Collection[str], driver: str) -> Iterator[tuple[str, str]]:
    """A word for each setting that the driver does not know, with the nearest that it does."""
    for name in sorted(set(settings) - set(known)):
        near = difflib.get_close_matches(name, known, n=3)
        nearest = f"nearest are {', '.join(near)}" if near else f"known are {', '.join(known)}"
        yield name, f"is unknown to the {driver} driver; {nearest}"


def _macs(text: str) -> list[str]:
    return [_mac(part) for part in text.split(",") if part.strip()]


def _mac(text: str) -> str:
    return text.strip().lower().replace("-", ":")


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """The address; 0.0.0.0 for what is none, which no network of machines holds."""
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return _NO_ADDRESS


def _is_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError:
        return False
    rest = (parts.query, parts.fragment, parts.username, parts.path.strip("/"))
    return parts.scheme == "http" and bool(parts.hostname) and not any(rest) and text.isprintable()
