"""Addresses, and whether somebody listens on them already."""

from __future__ import annotations

import errno
import socket

from mulligan.activities.errors import HostNotReady


def split(address: str) -> tuple[str, int]:
    """host:port as its two parts."""
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def problem(address: str) -> str:
    """Why nobody could listen on the address now; empty when it is free. Port 0 is always free."""
    host, port = split(address)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind((host, port))
            sock.listen(1)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return "another process listens there"
            return error.strerror or str(error)
    return ""


def require_free(setting: str, address: str, what: str) -> None:
    """Raise `HostNotReady`, naming the setting, unless `what` could listen on the address."""
    why = problem(address)
    if why:
        port = split(address)[1]
        raise HostNotReady(
            f"{what} should listen on {address}, but cannot: {why}. See who with `ss -ltnp 'sport = :{port}'`, or set "
            f"{setting} to another address",
            remedy=f"ss -ltnp 'sport = :{port}'",
            setting=setting,
            address=address,
        )
