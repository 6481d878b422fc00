"""Small texts: words of other parties made harmless, durations, sizes, enum names."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime

import click
from google.protobuf.timestamp_pb2 import Timestamp

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_DURATION = re.compile(r"(?:\d+[smhd])+")
_AMOUNT = re.compile(r"(\d+)\s*([MGT])?(?:i?B)?", re.IGNORECASE)


def clean(text: str, *, lines: bool = False) -> str:
    """The text without control characters (a guest's console may send any); keeps line ends when `lines` is set."""
    return "".join(c if c.isprintable() or (lines and c == "\n") else " " for c in text).rstrip()


def shorten(text: str, most: int) -> str:
    """The text in at most so many characters; an ellipsis stands for what is left out."""
    return text if len(text) <= most else f"{text[: most - 1].rstrip()}…"


class Duration(click.ParamType[int]):
    """Whole seconds, written `90`, `90s`, `10m` or `1h30m`."""

    name = "duration"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """The number of seconds."""
        if isinstance(value, int):
            return value
        text = str(value)
        if text.isdigit():
            return int(text)
        if not _DURATION.fullmatch(text):
            self.fail(f"{text!r} is not a duration; write e.g. 90s, 10m or 1h30m", param, ctx)
        return sum(int(number) * _UNITS[unit] for number, unit in re.findall(r"(\d+)([smhd])", text))


class Amount(click.ParamType[int]):
    """A whole amount of memory or disk in the given unit (`M` or `G`), which may be written, e.g. `2G`."""

    name = "size"

    def __init__(self, unit: str) -> None:
        self.unit = unit

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """The amount in this unit; fails where it is not a whole number of it."""
        if isinstance(value, int):
            return value
        match = _AMOUNT.fullmatch(str(value).strip())
        if match is None:
            self.fail(f"{value!r} is not a size; write e.g. 512M or 4G", param, ctx)
        factors = {"M": 1, "G": 1024, "T": 1024 * 1024}
        mebibytes = int(match[1]) * factors[(match[2] or self.unit).upper()]
        if mebibytes % factors[self.unit]:
            self.fail(f"{value!r} is not a whole number of {self.unit}iB", param, ctx)
        return mebibytes // factors[self.unit]


def elapsed(seconds: float) -> str:
    """How long, for people: `4.2 s`, `3:07`, `1:02:09`."""
    if seconds < 60:
        return f"{max(0.0, seconds):.1f} s"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def size(count: int) -> str:
    """A number of bytes, for people."""
    amount = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1024:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} TiB"


def seconds(moment: Timestamp) -> float:
    """The moment in seconds since the epoch."""
    return moment.seconds + moment.nanos / 1e9


def clock(moment: Timestamp) -> str:
    """The moment as ISO 8601 in UTC, to the second; a dash where it is absent."""
    if not moment.seconds:
        return "-"
    return datetime.fromtimestamp(moment.seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def outcome_text(outcome: str, message: str) -> str:
    """How a run ended and why, without saying the one twice."""
    return message if message.startswith(outcome) else f"{outcome}: {message}" if message else outcome


def ago(moment: Timestamp) -> str:
    """How long ago the moment was, in one unit; a dash where it is absent."""
    if not moment.seconds:
        return "-"
    past = max(0, int(time.time() - moment.seconds))
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if past >= length:
            return f"{past // length}{unit}"
    return f"{past}s"
