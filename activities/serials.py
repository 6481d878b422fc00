"""Serial numbers and UUIDs of servers: which of them tell servers apart, and not only makers' carelessness."""

from __future__ import annotations

import uuid

_PLACEHOLDERS = (
    "oem", "default", "notspecified", "notavailable", "notapplicable", "notpresent", "none", "unknown", "unspecified",
    "serial", "012345", "12345678", "chassis", "invalid", "xxxx",
)  # fmt: skip
"""What is in the place of a serial number where a maker forgot it, in letters and digits only."""
_MADE_UP = frozenset(map(uuid.UUID, ("03000200-0400-0500-0006-000700080009", "12345678-1234-5678-90ab-cddeefaabbcc")))
"""UUIDs that many boards have."""


def plain_serial(said: object) -> str:
    """Letters and digits, in lower case; empty where it is none that tells machines apart."""
    plain = "".join(each for each in str(said or "").casefold() if each.isalnum())
    made_up = len(plain) < 4 or len(set(plain)) == 1 or any(each in plain for each in _PLACEHOLDERS)
    return "" if made_up else plain


def telling_uuid(said: object) -> uuid.UUID | None:
    """None where it is none that tells machines apart."""
    try:
        found = uuid.UUID(str(said or "").strip())
    except ValueError:
        return None
    made_up = len(set(found.hex)) <= 1 or not _MADE_UP.isdisjoint({found, _swapped(found)})
    return None if made_up else found


def other_uuid(one: object, other: object) -> bool | None:
    """Whether they are of two machines; None where one of them tells none apart. Older firmware swaps bytes."""
    ours, theirs = telling_uuid(one), telling_uuid(other)
    return None if ours is None or theirs is None else theirs not in {ours, _swapped(ours)}


def _swapped(one: uuid.UUID) -> uuid.UUID:
    return uuid.UUID(bytes_le=one.bytes)
