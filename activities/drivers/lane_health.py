"""How a BMC answers, kept beside its lane: a small file that all workers of the directory write in their turns.

It is written when something changed, and else at most every three seconds, by a rename, so that a reader always finds a
whole one. Nothing depends on it: where it cannot be written, or was lost, the next turn begins it anew.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import structlog
from pydantic import TypeAdapter, ValidationError

from mulligan.activities.bmc_health import BmcHealth, BmcState
from mulligan.activities.drivers.directory import lane_file
from mulligan.activities.errors import (
    AccessDenied,
    Busy,
    Conflict,
    Leftover,
    NotFound,
    Unreachable,
    Unsupported,
)

WRITE_SECONDS = 3.0
COUNT_SECONDS = 3600.0
"""What was asked and what failed is counted for so long, then anew."""
MOST_ERROR = 400
"""Characters of an error that are kept."""

ANSWERS = (AccessDenied, Busy, Conflict, Leftover, NotFound, Unsupported)
"""What a BMC is the reason of that answers. Any other error but `Unreachable`, or a cancel, says nothing of it.

What is raised because nothing may be sent yet never comes here: see `may_ask` of `Lane.turn`."""

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Known:
    """The file's content. Moments are seconds since 1970; 0 for never."""

    answered_at: float = 0.0
    silent_since: float = 0.0
    busy_until: float = 0.0
    error: str = ""
    asked: int = 0
    failed: int = 0
    counted_since: float = 0.0

    def state(self, now: float) -> BmcState:
        """How it answers, as far as is known at this moment."""
        if self.silent_since:
            return BmcState.SILENT
        if self.busy_until:
            return BmcState.BUSY if self.busy_until > now else BmcState.ANSWERS
        if self.error:
            return BmcState.REFUSES
        return BmcState.ANSWERS if self.answered_at else BmcState.NOT_ASKED

    def after(self, error: BaseException | None, now: float) -> Known:
        """What is known when a turn ended at this moment, well or with this error."""
        told = str(error)[:MOST_ERROR] if error is not None else ""
        if isinstance(error, Unreachable):
            return replace(self, silent_since=self.silent_since or now, error=told, busy_until=0.0)
        if error is None or isinstance(error, ANSWERS):
            until = now + error.after_seconds if isinstance(error, Busy) else 0.0
            return replace(self, answered_at=now, silent_since=0.0, error=told, busy_until=until)
        return self


_KNOWN = TypeAdapter(Known)


class HealthFile:
    """One BMC's file, as one worker writes it. Blocks for a moment; used in the BMC's lane only."""

    def __init__(self, directory: Path, bmc: str) -> None:
        self._path = _path(directory, bmc)
        self._latest = Known()
        self._asked = self._failed = 0
        self._written = 0.0
        """When, on the monotonic clock; 0 for never."""

    def note(self, error: BaseException | None) -> None:
        """A turn ended, well or with this error; one that says nothing of the BMC is not counted."""
        now = time.time()
        latest = self._latest.after(error, now)
        if latest is self._latest:
            return
        changed = latest.state(now) is not self._latest.state(now) or latest.error != self._latest.error
        self._latest = latest
        self._asked += 1
        self._failed += error is not None
        if changed or not self._written or time.monotonic() - self._written > WRITE_SECONDS:
            self.write()

    def write(self) -> None:
        """Bring what was noted since the last time to the others."""
        if not self._asked:
            return
        now, before = time.time(), _read(self._path)
        if now - before.counted_since > COUNT_SECONDS:
            before = replace(before, asked=0, failed=0, counted_since=now)
        since = before.silent_since or self._latest.silent_since
        new = replace(
            self._latest,
            answered_at=max(self._latest.answered_at, before.answered_at),
            silent_since=since if self._latest.silent_since else 0.0,
            asked=before.asked + self._asked,
            failed=before.failed + self._failed,
            counted_since=before.counted_since,
        )
        fresh = self._path.with_suffix(".new")
        try:
            fresh.unlink(missing_ok=True)
            fresh.touch(0o600)  # it repeats what BMCs say
            fresh.write_text(json.dumps(asdict(new)))
            fresh.replace(self._path)
        except OSError as error:  # a full disk must not keep a BMC from being asked
            log.warning("the health of a BMC could not be kept", file=str(self._path), why=error.strerror)
            return
        self._asked = self._failed = 0
        self._written = time.monotonic()


def health_of(directory: Path, bmc: str) -> BmcHealth:
    """What is known of the BMC whose lane has this name, below the drivers' directory. Blocks."""
    kept, now = _read(_path(directory, bmc)), time.time()
    return BmcHealth(
        bmc=bmc,
        state=kept.state(now),
        answered_at=_moment(kept.answered_at),
        silent_since=_moment(kept.silent_since),
        busy_until=_moment(kept.busy_until if kept.busy_until > now else 0.0),
        error="" if kept.state(now) is BmcState.ANSWERS else kept.error,
        asked=kept.asked,
        failed=kept.failed,
        counted_since=_moment(kept.counted_since),
    )


def _path(directory: Path, bmc: str) -> Path:
    return lane_file(directory, bmc).with_suffix(".json")


def _read(path: Path) -> Known:
    """What the file says; as of a BMC that was never asked when it says nothing, e.g. after a power cut."""
    try:
        return _KNOWN.validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return Known()


def _moment(seconds: float) -> datetime | None:
    return datetime.fromtimestamp(seconds, UTC) if seconds else None
