"""Domain errors as Temporal sees them, and back: the type alone decides whether an attempt is repeated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from pydantic import TypeAdapter
from temporalio.exceptions import ApplicationError, ApplicationErrorCategory
from temporalio.worker import ActivityInboundInterceptor, ExecuteActivityInput, Interceptor

from mulligan.activities.errors import Busy, Final, MulliganError
from mulligan.activities.history import STILL_AWAITED
from mulligan.activities.transcript import transcribing, with_verbs
from mulligan.activities.values import Verb

VERBS_DETAIL = 2
"""Where among a failure's details the driver transcript is, if there is one."""


def to_failure(error: MulliganError, verbs: Sequence[Verb] = ()) -> ApplicationError:
    """The failure that tells Temporal whether, and when, to try again.

    Its details are (metadata, explanation), and then the driver transcript where a driver was asked for anything.
    """
    explanation = getattr(error, "explanation", None)
    told = (
        TypeAdapter[Any](type(explanation)).dump_python(explanation, mode="json") if explanation is not None else None
    )
    patience = isinstance(error, Busy) and error.after_seconds > 0
    return ApplicationError(
        error.message,
        {**error.metadata, "violations": [list(v) for v in getattr(error, "violations", ())]},
        told,
        *([list(verbs)] if verbs else []),
        type=error.reason,
        non_retryable=isinstance(error, Final),
        next_retry_delay=timedelta(seconds=error.after_seconds) if isinstance(error, Busy) and patience else None,
        category=ApplicationErrorCategory.BENIGN if isinstance(error, Busy) else ApplicationErrorCategory.UNSPECIFIED,
    )


def ask_again(message: str, after_seconds: float, at: datetime) -> ApplicationError:
    """Ends an attempt that looked for something: with what it saw and when, and when the next one shall look."""
    return ApplicationError(
        message,
        {"at": at.timestamp()},
        type=STILL_AWAITED,
        next_retry_delay=timedelta(seconds=after_seconds),
        category=ApplicationErrorCategory.BENIGN,
    )


def metadata_of(error: ApplicationError) -> Mapping[str, str]:
    """The variable parts of a failure's message."""
    return error.details[0] if error.details and isinstance(error.details[0], dict) else {}


class ErrorInterceptor(Interceptor):
    """Turns the domain errors of every activity into failures, and keeps the driver transcript in results and failures.

    Any other error is a bug or a surprise, and is retried.
    """

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:  # noqa: A002
        """Stand around every activity."""
        return _Inbound(super().intercept_activity(next))


class _Inbound(ActivityInboundInterceptor):
    async def execute_activity(self, input: ExecuteActivityInput) -> Any:  # noqa: A002
        with transcribing() as transcript:
            try:
                return with_verbs(await super().execute_activity(input), transcript.verbs())
            except MulliganError as error:
                raise to_failure(error, transcript.verbs()) from None  # the history is no place for our stack
