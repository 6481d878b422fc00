"""A connection to the boot server: by one network card where it is known which one leads there."""

from __future__ import annotations

import socket


def connected(place: tuple[str, int], card: str, seconds: float) -> socket.socket:
    """With a card, past all routes that others have; one that tags frames is a card of its own. Raises `OSError`."""
    trouble = OSError("no address")
    for family, kind, protocol, _, where in socket.getaddrinfo(*place, type=socket.SOCK_STREAM):
        line = socket.socket(family, kind, protocol)
        line.settimeout(seconds)
        try:
            if card:
                line.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, card.encode())
            line.connect(where)
            line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError as error:
            line.close()
            trouble = error
        else:
            return line
    raise trouble
