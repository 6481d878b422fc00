"""What the deploy agent may say, and the limits within which it is believed.

It runs on a machine that nobody vouches for. What it says is kept and shown to people, so control characters are
removed, texts are cut, and numbers are whole and not negative.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from mulligan.activities.bootserver.job import PermitGiven, Phase, Report
from mulligan.activities.values import DiskIdentity

BODY_BYTES = 1024**2
TEXT = 500
DEEPEST = 16
"""How deep a result, or hardware, may be nested; what the agent says is half as deep."""
_MOST_BYTES = 2**63


class Malformed(ValueError):
    """The body is not what the protocol asks for; the message says why."""


@dataclass(frozen=True, slots=True)
class Told:
    """One report."""

    report: Report
    result: dict[str, Any] | None
    """What was done, when it is done."""
    hardware: dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class Asked:
    """The wish to change a disk for good."""

    disk: Mapping[str, Any]
    what: str
    """`write` or `erase`."""

    @property
    def named(self) -> str:
        """The disk for people."""
        return name_disk(self.disk)

    def given(self, at: datetime) -> PermitGiven:
        """The permit for it."""
        path, serial, wwn, model = (text(self.disk.get(name) or "") for name in ("path", "serial", "wwn", "model"))
        return PermitGiven(self.named, self.what, at, path, serial, wwn, model, identity(self.disk).size_bytes)


def parse_report(body: bytes, at: datetime) -> Told:
    """Read a report. Raises `Malformed`."""
    said = _object(body)
    try:
        phase = Phase(str(said.get("phase")))
    except ValueError:
        raise Malformed(f"phase is none of {', '.join(Phase)}") from None
    error = said.get("error")
    if phase is Phase.FAILED and not isinstance(error, dict):
        error = {"name": "UNKNOWN", "message": said.get("said", "")}
    why = {key: text(error.get(key, "")) for key in ("name", "message")} if isinstance(error, dict) else None
    report = Report(at, phase, text(said.get("said", "")), _number(said, "done"), _number(said, "total"), why)
    result, hardware = said.get("result"), said.get("hardware")
    _require_sound((result, hardware))
    if phase is Phase.WAITING and not isinstance(result, dict):
        raise Malformed("a report of phase waiting needs a result")
    return Told(
        report,
        result if phase is Phase.WAITING and isinstance(result, dict) else None,
        hardware if isinstance(hardware, dict) else None,
    )


def parse_permit(body: bytes) -> Asked:
    """Read the wish to change a disk. Raises `Malformed`."""
    said = _object(body)
    disk, what = said.get("disk"), said.get("what")
    if not isinstance(disk, dict) or not isinstance(disk.get("path"), str):
        raise Malformed("disk is not an object with a path")
    if what not in ("write", "erase"):
        raise Malformed("what is neither write nor erase")
    return Asked(disk, str(what))


def identity(disk: Mapping[str, Any]) -> DiskIdentity:
    """By what the disk is told from others, as far as that is said in a form that can be believed."""
    size = disk.get("size_bytes")
    known = isinstance(size, int) and not isinstance(size, bool) and 0 < size < _MOST_BYTES
    path, serial, wwn, model = (text(disk.get(name) or "", 80) for name in ("path", "serial", "wwn", "model"))
    return DiskIdentity(path, serial, wwn, model, size if known and isinstance(size, int) else 0)


def name_disk(disk: Mapping[str, Any]) -> str:
    """The disk for people."""
    return identity(disk).named


def text(value: object, limit: int = TEXT) -> str:
    """The value as one line for people."""
    return "".join(character for character in str(value) if character.isprintable())[:limit]


def _object(body: bytes) -> dict[str, Any]:
    try:
        said = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Malformed("the body is not JSON") from error
    if not isinstance(said, dict):
        raise Malformed("the body is not a JSON object")
    return said


def _require_sound(value: object, depth: int = 0) -> None:
    """What is kept must be text that can be written, and not be nested without end. Raises `Malformed`."""
    if depth > DEEPEST:
        raise Malformed(f"it is nested more than {DEEPEST} deep")
    if isinstance(value, str) and not value.isascii() and any("\ud800" <= each <= "\udfff" for each in value):
        raise Malformed("it holds half of a character (a lone surrogate)")
    if isinstance(value, dict):
        value = (*value, *value.values())
    if isinstance(value, list | tuple):
        for each in value:
            _require_sound(each, depth + 1)


def _number(said: Mapping[str, Any], name: str) -> int:
    value = said.get(name, 0)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < _MOST_BYTES:
        raise Malformed(f"{name} is not a whole number from 0 on")
    return value
