"""Where the boot server listens: fixed addresses, or loopback and every libvirt bridge that comes up on this host."""

from __future__ import annotations

import asyncio
import fcntl
import socket
import struct
from collections.abc import Callable

import structlog

from mulligan.activities.bootserver.server import BootServer
from mulligan.activities.errors import HostNotReady
from mulligan.api.config import Settings
from mulligan.api.processes.ports import split

BOOT_PORT = 7421
"""The boot server's port where the settings name none."""

_LOOK_SECONDS = 3.0
_SIOCGIFADDR = 0x8915

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


def bridge_addresses() -> tuple[str, ...]:
    """The IPv4 addresses of libvirt's bridges (virbr0, ...) that this host has now."""
    found = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for _, name in socket.if_nameindex():
            if not name.startswith("virbr"):
                continue
            try:
                answer = fcntl.ioctl(sock.fileno(), _SIOCGIFADDR, struct.pack("256s", name.encode()))
            except OSError:
                continue  # the bridge has no address, or has gone
            found.append(socket.inet_ntoa(answer[20:24]))
    return tuple(found)


def fixed_addresses(boot_listen: str) -> tuple[str, ...]:
    """The addresses that must be had from the start: those that the setting names, or loopback for `auto`."""
    if boot_listen == "auto":
        return (f"127.0.0.1:{BOOT_PORT}",)
    return tuple(part.strip() for part in boot_listen.split(",") if part.strip())


def boot_url(settings: Settings, host: str) -> str:
    """The boot server's URL for guests that see this host at the address `host`; empty when they cannot reach it."""
    if settings.boot_url:
        return settings.boot_url
    if not host:
        return ""
    if settings.boot_listen == "auto":
        return f"http://{_in_url(host)}:{BOOT_PORT}"
    for address in fixed_addresses(settings.boot_listen):
        bound, port = split(address)
        if bound in {host, "0.0.0.0", "::"}:  # noqa: S104 - compared with, not listened on
            return f"http://{_in_url(host)}:{port}"
    return ""


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host


class BootListeners:
    """One boot server per address, all alike; `make` makes one."""

    def __init__(self, boot_listen: str, make: Callable[[], BootServer]) -> None:
        self._setting = boot_listen
        self._make = make
        self._servers: dict[str, BootServer] = {}
        self._refused: dict[str, str] = {}

    async def start(self) -> None:
        """Listen on the fixed addresses; raises `HostNotReady`, naming the setting, when one cannot be had."""
        for address in fixed_addresses(self._setting):
            try:
                await self._listen(address)
            except HostNotReady as error:
                await self.stop()
                raise HostNotReady(
                    f"{error.message} (the setting is MULLIGAN_BOOT_LISTEN)", remedy=error.remedy, address=address
                ) from error
        await self._listen_on_bridges()

    async def follow_bridges(self) -> None:
        """With `auto`, listen on each bridge that comes up later too; runs until cancelled."""
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            await self._listen_on_bridges()

    async def stop(self) -> None:
        """Stop listening everywhere."""
        servers, self._servers = self._servers, {}
        await asyncio.gather(*(server.stop() for server in servers.values()))

    async def _listen_on_bridges(self) -> None:
        if self._setting != "auto":
            return
        for host in bridge_addresses():
            address = f"{host}:{BOOT_PORT}"
            if address in self._servers:
                continue
            try:
                await self._listen(address)
            except HostNotReady as error:
                if self._refused.get(address) != error.message:
                    log.error("guests on this bridge cannot call home", address=address, why=error.message)
                self._refused[address] = error.message

    async def _listen(self, address: str) -> None:
        server = self._make()
        await server.start([split(address)])
        self._servers[address] = server
