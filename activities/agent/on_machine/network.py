"""The network, until the boot server is reached: by the address that the run gives, or by DHCP.

Of several cards the one is kept by which the boot server answers, whichever that is. The others lose their addresses,
and IPv6, by which routers would give them new ones, so that nothing is sent by a way that leads nowhere. A card without
link is passed over until it has one.
"""

from __future__ import annotations

import http.client
import ipaddress
import os
import signal
import subprocess
import time
from collections.abc import Iterable
from contextlib import closing, suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from .arguments import Arguments
from .hardware import PROC, SYS
from .line import connected
from .tools import Failed, read, run

CONNECT_SECONDS = 3.0
PAUSE_SECONDS = 1.0
TELL_SECONDS = 20.0
STATIC_SECONDS = 6.0
"""So long a card is tried with an address that is given: switches and IPv6 take a moment."""
RESOLVERS, RESOLVER = Path("/run/resolvers"), Path("/etc/resolv.conf")
"""Which name servers each card's DHCP named, and those that are asked."""
CLIENT = (
    *("udhcpc", "-f", "-t", "5", "-T", "2", "-A", "2", "-s", "/etc/udhcpc/default.script"),
    *("-O", "mtu", "-O", "staticroutes", "-O", "msstaticroutes"),
)
"""What is asked for besides what always is: options 26, 121 and 249."""


@dataclass(frozen=True)
class Way:
    """The way to the boot server: our address, and the network card, empty where there is none."""

    address: str
    card: str = ""
    mac: str = ""

    def __str__(self) -> str:
        return f"{self.address} by {self.card} ({self.mac})" if self.card else self.address


def reach(arguments: Arguments, sys: Path = SYS) -> Way:
    """Bring the network up until the boot server answers; by which way it does.

    Waits for as long as that takes: cards come up late, and whoever booted this has a deadline of its own.
    """
    network, next_word = _Network(arguments, sys), 0.0
    while (found := network.look()) is None:
        if time.monotonic() >= next_word:
            next_word = time.monotonic() + TELL_SECONDS
            print(
                f"network: {arguments.place[0]} does not answer yet; cards: {network.told(network.names())}", flush=True
            )
        time.sleep(PAUSE_SECONDS)
    return found


def answers(arguments: Arguments, card: str = "") -> str:
    """Our address from which the boot server answers, by this card if one is given; else empty."""
    with (
        suppress(OSError, http.client.HTTPException),
        closing(connected(arguments.place, card, CONNECT_SECONDS)) as line,
    ):
        mine = str(line.getsockname()[0])
        server = http.client.HTTPConnection(*arguments.place)
        server.sock = line
        server.request("GET", "/healthz")
        if server.getresponse().status == 200:
            return mine
    return ""


class _Network:
    """The cards, and what is tried with them."""

    def __init__(self, arguments: Arguments, sys: Path) -> None:
        self._arguments = arguments
        self._cards = sys / "class/net"
        self._clients: dict[str, subprocess.Popen[bytes]] = {}

    def look(self) -> Way | None:
        """Try every card once."""
        cards = self.names()
        if not cards:
            mine = answers(self._arguments)
            return Way(mine) if mine else None
        for card in cards:
            with suppress(Failed):
                run("ip", "link", "set", card, "up")
        try_link = self._by_address if self._arguments.address else self._by_dhcp
        for card in filter(self._may_lead, cards):
            with suppress(Failed):
                link = self._link(card)
                if mine := try_link(link):
                    self._keep(link, card, [other for other in cards if other != card])
                    return Way(mine, link, self._mac(card))
        return None

    def told(self, cards: Iterable[str]) -> str:
        """The cards, for people."""
        states = {"1": "link", "0": "no link"}
        told = (f"{card} ({self._mac(card)}, {states.get(self._fact(card, 'carrier'), 'down')})" for card in cards)
        return ", ".join(told) or "none that a driver knows"

    def names(self) -> list[str]:
        """Every network card of the machine."""
        return [card.name for card in sorted(self._cards.iterdir()) if (card / "device").exists()]

    def _fact(self, card: str, name: str) -> str:
        return read(self._cards / card / name)

    def _mac(self, card: str) -> str:
        return self._fact(card, "address").lower()

    def _may_lead(self, card: str) -> bool:
        wanted = self._arguments.mac if self._arguments.address else ""
        return self._fact(card, "carrier") == "1" and wanted in ("", self._mac(card))

    def _named(self, card: str) -> str:
        return f"{card}.{self._arguments.vlan}" if self._arguments.vlan else card

    def _link(self, card: str) -> str:
        """The card itself, or what tags its frames."""
        link = self._named(card)
        if not (self._cards / link).exists():
            run("ip", "link", "add", "link", card, "name", link, "type", "vlan", "id", self._arguments.vlan)
            run("ip", "link", "set", link, "up")
        return link

    def _by_dhcp(self, card: str) -> str:
        client = self._clients.get(card)
        if client is None or client.poll() is not None:
            quiet = subprocess.DEVNULL
            self._clients[card] = subprocess.Popen(
                (*CLIENT, "-i", card), stdout=quiet, stderr=quiet, start_new_session=True
            )
        return answers(self._arguments, card) if _addresses(card) else ""

    def _by_address(self, card: str) -> str:
        given = self._arguments
        run("ip", "address", "replace", given.address, "dev", card)
        if given.gateway:
            run("ip", "route", "replace", "default", "via", given.gateway, "dev", card)
        until = time.monotonic() + STATIC_SECONDS
        while not (mine := answers(given, card)) and time.monotonic() < until:
            time.sleep(PAUSE_SECONDS)
        if not mine:
            _forget((card,))
        return mine

    def _keep(self, kept: str, its_card: str, others: list[str]) -> None:
        for card, client in self._clients.items():
            if card != kept:
                with suppress(ProcessLookupError):
                    os.killpg(client.pid, signal.SIGKILL)  # with its script, which must not set an address now
                client.wait()
        unused = {*others, *map(self._named, others), its_card} - {kept}
        for card in unused:
            with suppress(OSError):  # without IPv6, or it has no link that tags
                (PROC / f"sys/net/ipv6/conf/{card}/disable_ipv6").write_text("1")
        _forget(unused)
        if others:
            print(f"network: not used: {self.told(others)}", flush=True)


def _addresses(card: str) -> list[str]:
    """The card's addresses that reach further than its cable."""
    words = run("ip", "-o", "address", "show", "dev", card).split()
    found = (after for word, after in pairwise(words) if word in ("inet", "inet6"))
    return [each for each in found if not ipaddress.ip_interface(each).is_link_local]


def _forget(cards: Iterable[str]) -> None:
    """Take the cards' addresses, routes and name servers away."""
    for card in cards:
        with suppress(Failed):
            run("ip", "address", "flush", "dev", card, "scope", "global")
        (RESOLVERS / card).unlink(missing_ok=True)
    with suppress(OSError):  # without DHCP there are none
        RESOLVER.write_text("".join(each.read_text() for each in sorted(RESOLVERS.iterdir())))
