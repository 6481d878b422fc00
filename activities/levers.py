"""Levers: what an operator can do to a run, by workflow id, each a Temporal update of the lever's own name.

    lever        when                                   does
    retry-now    something waits for its next attempt   begins that attempt now
    hold         before a step begins                   keeps everything as it is until someone resumes, aborts or
                                                        cancels; with `off` takes back what was not reached yet
    resume       held                                   goes on with the step, or an earlier one of the same try
    extend       a step, or the run, has a deadline     moves it
    mulligan     a provider is claimed                  undoes this try and takes another provider, if there is one
    abort        always                                 stops trying: fails, undoes, quarantines what cannot be undone

A lever that cannot do what is asked is refused with a reason and changes nothing. The history keeps who pulled it, when
and why.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

GIVEN_UP = "the undo that cannot be done is not tried any longer; what is left will be quarantined"
"""What a run says that is aborted while it undoes."""

UNKNOWN = "unknown"
"""Who pulls a lever without a name."""

UPDATE_LIMIT = "limit"
"""In what Temporal says where a run has taken all the updates that it may. With the same status it refuses those of a
run whose workflow task fails, which goes on when its code is mended."""

NOTE_CANCEL = "note-cancel"
"""The signal that keeps in a run's history who else asked to cancel it: Temporal keeps the first request only."""

HOLDABLE = ("image", "boot", "verify")
"""The steps before which a run can be held, and from which a held one can go on; in order."""


class LeverKind(StrEnum):
    """Which lever; also the name of the workflow's update."""

    RETRY_NOW = "retry-now"
    HOLD = "hold"
    RESUME = "resume"
    EXTEND = "extend"
    MULLIGAN = "mulligan"
    ABORT = "abort"


def command(lever: LeverKind, workflow_id: str) -> str:
    """The command that pulls this lever of that run."""
    return f"mulligan run {lever} {workflow_id}{' --by 10m' if lever is LeverKind.EXTEND else ''}"


def held_before(step: str) -> str:
    """How the reason of a hold begins that operators asked for."""
    return f"held before {step}"


def will_be_held(ahead: Iterable[tuple[str, str]]) -> str:
    """The holds that are ahead, for people: before which step, by whom; empty where there is none."""
    asked = list(ahead)
    by = {step: " and ".join(dict.fromkeys(actor for at, actor in asked if at == step)) for step in HOLDABLE}
    said = "; and ".join(f"before {step}, by {who}" for step, who in by.items() if who)
    return f"it will be held {said}" if said else ""


@dataclass(frozen=True, slots=True)
class LeverIn:
    """What is sent with a lever. Every field may be left out, so that it can be typed by hand."""

    actor: str = UNKNOWN
    """Who asks; taken at their word."""
    reason: str = ""
    """Why, in their words."""
    step: str = ""
    """For `hold`: before which step; for `resume`: from which. Empty for the next, or for the one that is held."""
    seconds: int = 0
    """For `extend`: how much more."""
    whole_run: bool = False
    """For `extend`: the run's deadline only."""
    holds: int = -1
    """For `resume`: how often the run had been held when it was asked for, so that it is not taken for a later hold.
    -1 where not known."""
    off: bool = False
    """For `hold`: do not hold any more before `step`, or before any where that is empty."""


def cause_of_cancel(actor: str, reason: str) -> str:
    """What Temporal keeps of who cancelled a run, and why."""
    return ": ".join(part for part in (f"by {actor}" if actor else "", reason) if part) or f"by {UNKNOWN}"


@dataclass(frozen=True, slots=True)
class Pulled:
    """What a lever did."""

    said: str


@dataclass(frozen=True, slots=True)
class Lever:
    """A lever as the run's story tells it."""

    kind: LeverKind
    actor: str
    reason: str = ""
    step: str = ""
    """Of a hold: before which step; empty for the next one, or for all that are taken back."""
    off: bool = False
    """Of a hold: whether it was taken back."""
