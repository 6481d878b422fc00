"""The events of a run, as its story tells them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, NamedTuple

from mulligan.activities.levers import Lever
from mulligan.activities.values import Erase, Evidence, Outcome

LAST = 2**53
"""The cursor of a run's last event, whichever log it is read from."""


class EventKind(StrEnum):
    """What a run event tells."""

    RUN_STARTED = "run-started"
    ACTION_STARTED = "action-started"
    ACTION_FINISHED = "action-finished"
    ACTION_FAILED = "action-failed"
    SLOW = "slow"
    CALLED_HOME = "called-home"
    CANCEL_REQUESTED = "cancel-requested"
    DEADLINE_PASSED = "deadline-passed"
    HELD = "held"
    RUN_FINISHED = "run-finished"
    LEVER_PULLED = "lever-pulled"
    LEVER_REFUSED = "lever-refused"
    RESUMED = "resumed"
    AWAITING = "awaiting"


@dataclass(frozen=True, slots=True)
class RunEvent:
    """One event of a run. `id` orders it within the run."""

    id: int
    at: datetime
    kind: EventKind
    try_number: int = 0
    step: str = ""
    action: str = ""
    message: str = ""
    provider: str = ""
    attempts: int = 0
    evidence: tuple[Evidence, ...] = ()
    reason: str = ""
    outcome: Outcome = Outcome.OPEN
    explanation: Mapping[str, Any] | None = None
    """Why a claim found no provider: the inventory's explanation as plain data."""
    lever: Lever | None = None
    pinned: bool = False
    """Whether the run may use one named provider only, so that it can take no mulligan."""
    erase: Erase | None = None
    """Of the beginning of a run that takes a server down: what is done to its disks; None where disks are removed."""
    forgets: bool = False
    """Of the beginning of a run that takes a machine down: whether nothing is asked of its provider."""
    cause: str = ""
    """Of a cancel: who asked for it and why, in one line; empty where Temporal was asked and told nothing."""
    times_held: int = 0
    """Of a hold: how often the run has been held, this time too."""
    off: bool = False
    """Of a hold: whether it is because the machine, which was switched on, was found to be off."""
    mended: bool = False
    """Of a run's end, when it is told: whether what it left behind is settled since."""


class Due(NamedTuple):
    """Until when a step has time."""

    step: str
    at: datetime


def last_event(at: datetime, outcome: Outcome, message: str, reason: str, provider: str) -> RunEvent:
    """The event that ends every story."""
    return RunEvent(
        LAST, at, EventKind.RUN_FINISHED, message=message, provider=provider, reason=reason, outcome=outcome
    )
