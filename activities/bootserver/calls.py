"""What a guest may say when it calls home, and the limits within which it is believed.

A JSON object; every field may be missing, unknown ones are ignored:

    hostname, instance_id, boot_id   strings of up to 256 characters
    addresses                        up to 64 strings of up to 64 characters
    ssh_host_keys                    up to 16 strings of up to 4096 characters
    status                           `done`, `error`, or another word; without one the call counts as `unknown`
    errors                           up to 32 strings; each is cut at 500 characters
    disks                            up to 16 objects, one for each disk beneath `/` and beneath `/boot`: mount (one of
                                     these two), path, serial, wwn, model (each is cut at 128 characters) and size_bytes
                                     (a whole number)

What is said here is kept in the run's history, so control characters are removed.
"""

from __future__ import annotations

import json
from datetime import datetime

from mulligan.activities.values import CallHome, DiskIdentity

MOUNTS = ("/", "/boot")
MOST_DISKS = 16
MOST_BYTES = 2**63


class MalformedCall(ValueError):
    """The body is not a call home; the message says why."""


def parse_call(body: bytes, peer: str, at: datetime) -> CallHome:
    """Read a call home that came from the address `peer` at the moment `at`. Raises `MalformedCall`."""
    try:
        said = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise MalformedCall("the body is not JSON") from error
    if not isinstance(said, dict):
        raise MalformedCall("the body is not a JSON object")
    return CallHome(
        at=at,
        hostname=_text(said, "hostname", 256),
        instance_id=_text(said, "instance_id", 256),
        boot_id=_text(said, "boot_id", 256),
        addresses=_texts(said, "addresses", 64, 64),
        ssh_host_keys=_texts(said, "ssh_host_keys", 16, 4096),
        status=_text(said, "status", 32) or "unknown",
        errors=_texts(said, "errors", 32, 500, cut=True),
        peer=peer,
        disks=_disks(said.get("disks", [])),
    )


def _disks(values: object) -> tuple[DiskIdentity, ...]:
    if not isinstance(values, list) or not all(isinstance(value, dict) for value in values):
        raise MalformedCall("disks is not a list of objects")
    if len(values) > MOST_DISKS:
        raise MalformedCall(f"disks has more than {MOST_DISKS} entries")
    return tuple(_disk(value) for value in values)


def _disk(said: dict[str, object]) -> DiskIdentity:
    mount, size = said.get("mount", "/"), said.get("size_bytes", 0)
    if mount not in MOUNTS:
        raise MalformedCall(f"disks: mount is none of {', '.join(MOUNTS)}")
    if isinstance(size, bool) or not isinstance(size, int) or not 0 <= size < MOST_BYTES:
        raise MalformedCall("disks: size_bytes is not a whole number from 0 on")
    names = ("path", "serial", "wwn", "model")
    texts = {name: _checked(said.get(name, ""), f"disks: {name}", 128, cut=True) for name in names}
    return DiskIdentity(**texts, size_bytes=size, mount=str(mount))


def _text(said: dict[str, object], name: str, limit: int) -> str:
    return _checked(said.get(name, ""), name, limit, cut=False)


def _texts(said: dict[str, object], name: str, count: int, limit: int, *, cut: bool = False) -> tuple[str, ...]:
    values = said.get(name, [])
    if not isinstance(values, list):
        raise MalformedCall(f"{name} is not a list")
    if len(values) > count:
        raise MalformedCall(f"{name} has more than {count} entries")
    return tuple(_checked(value, f"{name}[{i}]", limit, cut=cut) for i, value in enumerate(values))


def _checked(value: object, name: str, limit: int, *, cut: bool) -> str:
    if not isinstance(value, str):
        raise MalformedCall(f"{name} is not a string")
    clean = "".join(character for character in value if character.isprintable())
    if len(clean) > limit and not cut:
        raise MalformedCall(f"{name} has more than {limit} characters")
    return clean[:limit]
