"""What was ordered of a BMC, and which machines it left on: what it says afterwards is held against that.

An answer may be lost, and a BMC may tell of a change long after it was made. So what was asked is remembered until it
is seen, or until it can no more be expected, and is not given again meanwhile. A BMC that restarted may call a machine
off that runs; so it is remembered too in which contact with the BMC a machine was seen on.

Kept in a file for each BMC, beside the fences: the next step, or the undo, may be another worker's, or come after a
restart. It is read and written in the BMC's lane, and is on the disk before an order is sent. Its moments are those of
the wall clock; one that lies ahead, since a clock was put back, counts as now.
"""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from mulligan.activities.drivers.whole import read_whole, write_whole

PATIENCE_SECONDS = 45.0
"""How long an order may yet show, whether its answer came or not."""
APART_SECONDS = 10.0
"""How far two refusals to switch off what the BMC calls off must be apart, to count as its word that it is off."""
BALKED_SECONDS = 60.0
"""A BMC that refuses to switch off what it calls off is believed after this, whatever its reason."""
UNSEEN = ""
"""The contact of a machine that was not seen on, or whose BMC was silent since. As a contact: not known, so that the
BMC may have restarted at any time."""
_UNCERTAIN = frozenset({500, 502, 504})


def refuses(status: int | None) -> bool:
    """Whether this HTTP status says that nothing was done. A server that failed, or a gateway that gave up waiting for
    what acts, does not."""
    return status not in _UNCERTAIN


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of a part of a BMC: of a system's power, or of a drive."""

    ordered: str = ""
    """What it was last asked to be; empty once that was seen, or refused."""
    at: float = 0.0
    """When that was sent, in seconds since 1970."""
    answered: bool = False
    """Whether the BMC answered that it does it."""
    left_on: str | None = None
    """In which contact with the BMC it was seen on, and not off since; None where nobody left it on."""
    refused_at: float = 0.0
    """When the BMC first refused to switch off what it calls off, as one does of what is off."""
    balked_at: float = 0.0
    """When it first refused that for whatever reason; it has called it off ever since."""

    @property
    def balks(self) -> bool:
        """Whether it has refused for so long that its word is all that there is to go by."""
        return bool(self.balked_at) and time.time() - self.balked_at >= BALKED_SECONDS

    @property
    def pending(self) -> bool:
        """Whether what was ordered may yet show."""
        return bool(self.ordered) and time.time() - self.at < PATIENCE_SECONDS

    def doubts_off(self, contact: str) -> bool:
        """Whether a BMC that calls it off may have restarted since it was on."""
        return self.left_on is not None and (self.left_on == UNSEEN or self.left_on != contact)


_FILE = TypeAdapter(dict[str, Known])
_NOTHING = Known()


class Orders:
    """What is known of the parts of one BMC, by part. Blocks; used in the BMC's lane only."""

    def __init__(self, directory: Path, bmc: str) -> None:
        self._path = directory / f"{hashlib.sha256(bmc.encode()).hexdigest()[:32]}.orders"

    def of(self, part: str) -> Known:
        """What is known of the part."""
        parts, now = self._read(), time.time()
        known = parts.get(part, _NOTHING)
        if max(known.at, known.refused_at, known.balked_at) > now:
            known = replace(known, at=min(known.at, now), refused_at=min(known.refused_at, now))
            known = replace(known, balked_at=min(known.balked_at, now))
            self._write({**parts, part: known})
        return known

    def awaited(self, part: str) -> str | None:
        """What was ordered and may yet show; None when nothing was, or too long ago."""
        known = self.of(part)
        return known.ordered if known.pending else None

    def give(self, part: str, wanted: str, left_on: str | None = None) -> None:
        """The order is about to be sent. For power: in which contact the machine was seen on, or will have been."""
        self._put(part, replace(self.of(part), ordered=wanted, at=time.time(), answered=False, left_on=left_on))

    def answered(self, part: str) -> None:
        """The BMC answered that it does it."""
        self._put(part, replace(self.of(part), answered=True))

    def refused(self, part: str, left_on: str | None) -> None:
        """Nothing was done; the machine is as it was before."""
        self._put(part, replace(self.of(part), ordered="", left_on=left_on))

    def end(self, part: str, left_on: str | None = None) -> None:
        """What was ordered was seen; a machine that is on now, in this contact."""
        self._put(part, Known(left_on=left_on))

    def seen_on(self, part: str, contact: str) -> None:
        """A machine that was left on still is."""
        known = self.of(part)
        if known.left_on is not None:
            with contextlib.suppress(OSError):  # it is doubted then; a full disk must not keep it from being read
                self._put(part, replace(known, left_on=contact, refused_at=0.0, balked_at=0.0))

    def refused_off(self, part: str, *, as_off: bool) -> None:
        """The BMC refused to switch off what it calls off; `as_off` says that it did so as one does of what is off."""
        known, now = self.of(part), time.time()
        self._put(part, replace(known, refused_at=now if as_off else 0.0, balked_at=known.balked_at or now))

    def starts(self, part: str) -> None:
        """The BMC says that the machine starts: what it refused before said nothing of its power."""
        self._put(part, replace(self.of(part), refused_at=0.0, balked_at=0.0))

    def silent(self) -> None:
        """The BMC did not answer, so that it may have restarted since any of its machines was seen on."""
        parts = self._read()
        unseen = {name: each if each.left_on is None else _unseen(each) for name, each in parts.items()}
        with contextlib.suppress(OSError):  # a full disk must not hide that it is silent
            self._write(unseen, parts)

    def _put(self, part: str, known: Known) -> None:
        parts = self._read()
        self._write({**parts, part: known}, parts)

    def _write(self, parts: Mapping[str, Known], before: Mapping[str, Known] | None = None) -> None:
        """All parts of which anything is to be remembered; nothing where that is as before."""
        worth = {name: each for name, each in parts.items() if each.pending or each.left_on is not None}
        if worth != before:
            write_whole(self._path, _FILE.dump_json(worth))

    def _read(self) -> dict[str, Known]:
        try:
            return _FILE.validate_json(read_whole(self._path))
        except ValidationError:  # a file that is empty says nothing
            return {}


def _unseen(known: Known) -> Known:
    return replace(known, left_on=UNSEEN, refused_at=0.0, balked_at=0.0)
