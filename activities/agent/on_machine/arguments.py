"""What the kernel's command line says of the run: where to report to, and the network where there is no DHCP."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

PREFIX = "mulligan."


class BadArguments(Exception):
    """The command line names no run; the message says what is missing."""


@dataclass(frozen=True)
class Arguments:
    """What a run gives to the agent that it boots."""

    url: str
    """Where its configuration is and its reports go, without a slash at the end."""
    address: str = ""
    """Address and prefix length, e.g. `10.0.0.5/24`; empty for DHCP."""
    gateway: str = ""
    mac: str = ""
    """The network card that has the address; empty for any."""
    vlan: str = ""
    """The tag of the network's frames, 1 to 4094; empty where they have none."""

    @property
    def place(self) -> tuple[str, int]:
        """Host and port of the boot server."""
        parts = urlsplit(self.url)
        return parts.hostname or "", parts.port or 80


def read_arguments(command_line: str) -> Arguments:
    """The run's arguments among those of the kernel. Raises `BadArguments`."""
    pairs = (word[len(PREFIX) :].partition("=") for word in command_line.split() if word.startswith(PREFIX))
    said = {name: value for name, _, value in pairs}
    url = said.get("url", "").rstrip("/")
    parts = urlsplit(url)
    if parts.scheme != "http" or not parts.hostname:
        raise BadArguments(f"the kernel's command line has no {PREFIX}url=http://...: this boot belongs to no run")
    address, gateway, mac, vlan = (said.get(name, "") for name in ("address", "gateway", "mac", "vlan"))
    return Arguments(url, address, gateway, mac.lower(), vlan)
