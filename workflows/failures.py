"""Why steps fail: what an exception in a step means, in one line for people and by name for programs."""

from __future__ import annotations

from dataclasses import dataclass

from temporalio import exceptions, workflow
from temporalio.exceptions import ActivityError, ApplicationError, FailureError, TimeoutType

with workflow.unsafe.imports_passed_through():
    from mulligan.activities import calls

DEADLINE_PASSED = "DEADLINE_PASSED"
CLAIM_LOST = "CLAIM_LOST"
MULLIGAN_ASKED = "MULLIGAN_ASKED"
ABORTED = "ABORTED"
"""Reasons for which a step is ended from outside it: its claim went to others, or an operator said so."""

SPARES_WHO_WAS_NOT_ASKED = "spares-who-was-not-asked"
"""Of an action that no worker began in time: since November 2026 it is not held against the provider."""

NO_LONGER_OURS = "STALE_FENCE"
"""An undo that meets a newer claim's fence has nothing left to undo: what is there belongs to someone else."""


@dataclass(frozen=True)
class Failure:
    """Why a step failed: in one line for people, and by name for programs."""

    step: str
    action: str
    reason: str
    message: str
    blame: str = ""
    """`image` when the image's source, not the provider, is to blame, `operator` when nothing of it had failed."""

    @classmethod
    def of(cls, error: BaseException, step: str = "", action: str = "") -> Failure:
        """What an exception in a step means."""
        if isinstance(error, ActivityError):
            _, step, action = (error.activity_id or "//").split("/")
        cause: BaseException = error
        while isinstance(cause, FailureError) and not isinstance(cause, ApplicationError) and cause.cause is not None:
            cause = cause.cause
        if isinstance(cause, ApplicationError):
            return cls(step, action, cause.type or "ERROR", cause.message, blame_of(cause))
        if isinstance(cause, exceptions.TimeoutError):
            if not (silent := unheard(cause)):
                return cls(step, action, "NO_ANSWER", f"no worker or no answer in time ({cause.message})")
            blame = calls.OPERATOR if workflow.patched(SPARES_WHO_WAS_NOT_ASKED) else ""
            said = f"{silent} ({cause.message}); see that the workers run: `mulligan doctor`"
            return cls(step, action, "NO_ANSWER", said, blame)
        return cls(step, action, "ERROR", str(cause) or type(cause).__name__)


def unheard(error: exceptions.TimeoutError) -> str:
    """That no worker was at an action whose time was over; empty where one was: it is heard of from its first seconds
    on."""
    if error.type is TimeoutType.HEARTBEAT:
        return "its worker fell silent, and no other began it again in time"
    waited = error.type in (TimeoutType.SCHEDULE_TO_START, TimeoutType.SCHEDULE_TO_CLOSE)
    return "no worker was heard of in time" if waited and not error.last_heartbeat_details else ""


def blame_of(error: ApplicationError) -> str:
    """Whom the error's metadata blames, if anyone."""
    metadata = error.details[0] if error.details else None
    return str(metadata.get("blame", "")) if isinstance(metadata, dict) else ""


class UndoFailed(Exception):
    """An undo could not be done; what is left is quarantined."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


def would_be_tried_again(error: BaseException | None) -> bool:
    """Whether a step that was stopped failed with what another attempt might have mended: it was too late for that."""
    cause = error.cause if isinstance(error, ActivityError) else None
    return isinstance(cause, ApplicationError) and not cause.non_retryable
