"""How the command line tool ends: every exit code by name, and what maps to which, in one place.

An error's reason (see `mulligan.activities.errors`) decides first, then the gRPC status code; a run's
outcome decides for the commands that follow a run.
"""

from __future__ import annotations

from enum import IntEnum

NO_ROOM_REASONS = frozenset({"NEVER_FITS", "NOT_NOW"})
"""Why a run failed that found no provider."""


class ExitCode(IntEnum):
    """What the exit code of `mulligan` says."""

    OK = 0
    UNEXPECTED = 1
    USAGE = 2
    NOT_FOUND = 3
    CONFLICT = 4
    NO_ROOM = 5
    RUN_FAILED = 6
    CANCELLED = 7
    QUARANTINED = 8
    UNAVAILABLE = 9
    DENIED = 10
    NOT_READY = 11
    TIMED_OUT = 12
    TERMINATED = 13
    HELD = 14
    DISAGREES = 15
    DETACHED = 130


MEANINGS = {
    ExitCode.OK: "it worked",
    ExitCode.UNEXPECTED: "an error that should not happen",
    ExitCode.USAGE: "the command or the request is wrong",
    ExitCode.NOT_FOUND: "what was named does not exist",
    ExitCode.CONFLICT: "it exists and differs, someone else changed it, or its state forbids this",
    ExitCode.NO_ROOM: "no provider fits, now or ever; the explanation says why",
    ExitCode.RUN_FAILED: "the run failed, and everything was undone",
    ExitCode.CANCELLED: "the run was cancelled, and everything was undone",
    ExitCode.QUARANTINED: "something could not be undone; the reason says what, and how to mend it",
    ExitCode.UNAVAILABLE: "the API does not answer",
    ExitCode.DENIED: "credentials were refused",
    ExitCode.NOT_READY: "a host, provider or driver cannot do it, or not yet",
    ExitCode.TIMED_OUT: "no answer, or no end of the run, within the time allowed",
    ExitCode.TERMINATED: "the run was terminated from outside, without undo",
    ExitCode.HELD: "the run failed and is held for inspection",
    ExitCode.DISAGREES: "today's workflow code would not do what the capsule's history says",
    ExitCode.DETACHED: "stopped watching; what was started goes on",
}

_BY_REASON = {
    "INVALID_REQUEST": ExitCode.USAGE,
    "IMAGE_REJECTED": ExitCode.USAGE,
    "NOT_FOUND": ExitCode.NOT_FOUND,
    "ALREADY_EXISTS": ExitCode.CONFLICT,
    "CONFLICT": ExitCode.CONFLICT,
    "STALE_FENCE": ExitCode.CONFLICT,
    "NEVER_FITS": ExitCode.NO_ROOM,
    "NOT_NOW": ExitCode.NO_ROOM,
    "VERIFY_FAILED": ExitCode.RUN_FAILED,
    "CANCELLED": ExitCode.CANCELLED,
    "LEFTOVER": ExitCode.QUARANTINED,
    "NOT_SHARED": ExitCode.NOT_READY,
    "QUARANTINED": ExitCode.QUARANTINED,
    "ACCESS_DENIED": ExitCode.DENIED,
    "HOST_NOT_READY": ExitCode.NOT_READY,
    "UNSUPPORTED": ExitCode.NOT_READY,
    "UNREACHABLE": ExitCode.NOT_READY,
    "BUSY": ExitCode.NOT_READY,
}

_BY_STATUS = {
    "INVALID_ARGUMENT": ExitCode.USAGE,
    "OUT_OF_RANGE": ExitCode.USAGE,
    "NOT_FOUND": ExitCode.NOT_FOUND,
    "ALREADY_EXISTS": ExitCode.CONFLICT,
    "ABORTED": ExitCode.CONFLICT,
    "FAILED_PRECONDITION": ExitCode.CONFLICT,
    "RESOURCE_EXHAUSTED": ExitCode.NO_ROOM,
    "UNAVAILABLE": ExitCode.UNAVAILABLE,
    "UNAUTHENTICATED": ExitCode.DENIED,
    "PERMISSION_DENIED": ExitCode.DENIED,
    "UNIMPLEMENTED": ExitCode.NOT_READY,
    "DEADLINE_EXCEEDED": ExitCode.TIMED_OUT,
    "CANCELLED": ExitCode.DETACHED,
}

_BY_OUTCOME = {
    "READY": ExitCode.OK,
    "RELEASED": ExitCode.OK,
    "ENROLLED": ExitCode.OK,
    "FAILED": ExitCode.RUN_FAILED,
    "CANCELLED": ExitCode.CANCELLED,
    "QUARANTINED": ExitCode.QUARANTINED,
    "TERMINATED": ExitCode.TERMINATED,
    "OPEN": ExitCode.DETACHED,
}


def of_error(reason: str, status: str = "") -> ExitCode:
    """The exit code of an error, by its reason and else by the name of its gRPC status code."""
    return _BY_REASON.get(reason) or _BY_STATUS.get(status, ExitCode.UNEXPECTED)


def of_outcome(outcome: str, reason: str = "") -> ExitCode:
    """The exit code of a run that ended so, e.g. `FAILED` because of `NEVER_FITS`."""
    if outcome == "FAILED" and reason in NO_ROOM_REASONS:
        return ExitCode.NO_ROOM
    return _BY_OUTCOME.get(outcome, ExitCode.UNEXPECTED)


def table() -> list[tuple[str, str]]:
    """Every exit code as (`number NAME`, meaning), in order."""
    return [(f"{int(code):>3} {code.name}", meaning) for code, meaning in MEANINGS.items()]
