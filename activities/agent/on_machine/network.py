"""The network, until the boot server is reached: by the address that the run gives, or by DHCP on every card."""

from __future__ import annotations

import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path

from .arguments import Arguments
from .hardware import SYS
from .tools import Failed, read, run

CONNECT_SECONDS = 3.0
PAUSE_SECONDS = 1.0
TELL_EVERY = 15


def reach(arguments: Arguments, sys: Path = SYS) -> str:
    """Bring the network up until the boot server takes a connection; which address of ours reached it.

    Waits for as long as that takes: cards come up late, and whoever booted this has a deadline of its own.
    """
    clients: dict[str, subprocess.Popen[bytes]] = {}
    tries = 0
    while not (mine := _connects(arguments)):
        cards = _cards(sys)
        for card in cards:
            with suppress(Failed):
                _bring_up(card, arguments, clients, sys)
        if tries % TELL_EVERY == 0:
            told = ", ".join(f"{card} ({_state(sys, card)})" for card in cards) or "none that a driver knows"
            print(f"network: {arguments.place[0]} is not reached yet; cards: {told}", flush=True)
        tries += 1
        time.sleep(PAUSE_SECONDS)
    return mine


def _connects(arguments: Arguments) -> str:
    try:
        with socket.create_connection(arguments.place, timeout=CONNECT_SECONDS) as line:
            return str(line.getsockname()[0])
    except OSError:
        return ""


def _cards(sys: Path) -> list[str]:
    return [card.name for card in sorted((sys / "class/net").iterdir()) if (card / "device").exists()]


def _state(sys: Path, card: str) -> str:
    link = {"1": "link", "0": "no link"}.get(read(sys / "class/net" / card / "carrier"), "down")
    return f"{read(sys / 'class/net' / card / 'address')}, {link}"


def _bring_up(card: str, arguments: Arguments, clients: dict[str, subprocess.Popen[bytes]], sys: Path) -> None:
    run("ip", "link", "set", card, "up")
    if read(sys / "class/net" / card / "carrier") != "1":
        return
    if not arguments.address:
        if card not in clients or clients[card].poll() is not None:
            clients[card] = subprocess.Popen(
                ("udhcpc", "-f", "-i", card, "-t", "5", "-T", "2", "-A", "2", "-s", "/etc/udhcpc/default.script"),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        return
    if arguments.mac and read(sys / "class/net" / card / "address").lower() != arguments.mac:
        return
    run("ip", "address", "replace", arguments.address, "dev", card)
    if arguments.gateway:
        run("ip", "route", "replace", "default", "via", arguments.gateway, "dev", card)
