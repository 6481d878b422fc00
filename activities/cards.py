"""MAC addresses of network cards: which of them tell servers apart."""

from __future__ import annotations

import re
from collections.abc import Iterable

MAC = re.compile("[0-9a-f]{2}(:[0-9a-f]{2}){5}")
"""How one is kept: in lower case, with colons."""
_LOCAL_BIT = 0x02


def is_local(mac: str) -> bool:
    """Whether no maker gave it out: it is locally administered. `mac` is in hexadecimal, with colons."""
    return bool(int(mac[:2], 16) & _LOCAL_BIT)


def distinctive(macs: Iterable[str]) -> tuple[str, ...]:
    """Those by which a server is told from others: of makers, where there are any.

    BMCs put a card of their own into every server, and many makers give all of those the same local address.
    """
    all_ = tuple(macs)
    return tuple(mac for mac in all_ if not is_local(mac)) or all_
