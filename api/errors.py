"""How errors leave the API: one table from the domain's errors to gRPC codes, with google.rpc details.

Handlers just raise. The message and the metadata of a domain error are public; of everything else only an id is, which
is logged beside the kinds of error and the places where they arose. Its text is told to nobody: it may repeat what was
in the request, and user data holds secrets.
"""

from __future__ import annotations

import traceback
import uuid
from collections.abc import Iterator, Mapping

import structlog
from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc.code_pb2 import Code  # type: ignore[import-untyped]
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo  # type: ignore[import-untyped]
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]
from temporalio.client import WorkflowFailureError, WorkflowUpdateFailedError
from temporalio.exceptions import ApplicationError, FailureError
from temporalio.service import RPCError, RPCStatusCode

from mulligan.activities import errors
from mulligan.activities.errors import DOMAIN, MulliganError
from mulligan.activities.inventory.explanation import Explanation
from mulligan.activities.translate import metadata_of
from mulligan.api import enums
from mulligan.api.convert_inventory import explanation_message

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

MOST_DETAIL = 400
"""Characters that one value of the metadata may have; a description twice as many: trailers may have 8 KiB."""

MOST_VIOLATIONS = 20
"""Violations that one answer lists."""


class Laggard(errors.Transient):
    """A watcher that reads too slowly; it may resume from `cursor`."""


_ENUMS: Mapping[str, enums.Names] = {
    "outcome": enums.OUTCOME,
    "state": enums.MACHINE_STATE,
    "lever": enums.LEVER,
    "decided": enums.LEVER,
}
"""The metadata that are values of an enum of the contract."""

CODES: Mapping[type[MulliganError], int] = {
    errors.MulliganError: Code.INTERNAL,
    errors.Transient: Code.UNAVAILABLE,
    errors.Busy: Code.UNAVAILABLE,
    errors.Unreachable: Code.UNAVAILABLE,
    errors.NotNow: Code.RESOURCE_EXHAUSTED,
    Laggard: Code.RESOURCE_EXHAUSTED,
    errors.Final: Code.FAILED_PRECONDITION,
    errors.InvalidRequest: Code.INVALID_ARGUMENT,
    errors.NotFound: Code.NOT_FOUND,
    errors.AlreadyExists: Code.ALREADY_EXISTS,
    errors.Conflict: Code.FAILED_PRECONDITION,
    errors.NeverFits: Code.FAILED_PRECONDITION,
    errors.Unsupported: Code.FAILED_PRECONDITION,
    errors.HostNotReady: Code.FAILED_PRECONDITION,
    errors.AccessDenied: Code.PERMISSION_DENIED,
    errors.StaleFence: Code.ABORTED,
    errors.ImageRejected: Code.FAILED_PRECONDITION,
    errors.VerifyFailed: Code.FAILED_PRECONDITION,
    errors.Leftover: Code.FAILED_PRECONDITION,
    errors.NotShared: Code.FAILED_PRECONDITION,
}
"""Every class of the tree, each by itself: a test holds this table against the tree."""


def status_of(error: Exception) -> Status:
    """The status by which this error is answered."""
    known = domain_error(error)
    if known is None:
        return _unexpected(error)
    code = CODES[next(base for base in type(known).__mro__ if base in CODES)]
    if isinstance(known, errors.Conflict) and "generation" in known.metadata:
        code = Code.ABORTED
    status = Status(code=code, message=known.message[: 2 * MOST_DETAIL])
    for detail in _details(known):
        packed = Any()
        packed.Pack(detail)
        status.details.append(packed)
    return status


def domain_error(error: Exception) -> MulliganError | None:
    """The domain's error that this one means, if any."""
    if isinstance(error, MulliganError):
        return error
    if isinstance(error, WorkflowFailureError | WorkflowUpdateFailedError):
        return from_failure(error)
    if isinstance(error, RPCError) and error.status in _TEMPORAL_AWAY:
        return errors.Unreachable(
            "Temporal does not answer; what runs goes on by itself. Try again, or see that it runs: `mulligan doctor`",
            service="temporal",
        )
    return None


def from_failure(error: WorkflowFailureError | WorkflowUpdateFailedError) -> MulliganError | None:
    """The domain's error with which an activity of this run failed, or with which it refused
    a lever, built anew from its name and message."""
    cause: BaseException | None = error.cause
    while isinstance(cause, FailureError) and cause.cause is not None:
        cause = cause.cause
    kind = _BY_REASON.get(cause.type or "") if isinstance(cause, ApplicationError) else None
    if not isinstance(cause, ApplicationError) or kind is None:
        return None
    told: dict[str, object] = dict(metadata_of(cause))
    violations = told.pop("violations", ())
    rebuilt = kind(cause.message)
    rebuilt.metadata = {**rebuilt.metadata, **{str(key): str(value) for key, value in told.items()}}
    if isinstance(rebuilt, errors.InvalidRequest) and isinstance(violations, list):
        rebuilt.violations = tuple((str(field), str(text)) for field, text in violations)
    return rebuilt


def in_names_of_the_contract(metadata: Mapping[str, str]) -> Mapping[str, str]:
    """The metadata with its enums spelt as in every message: RUN_OUTCOME_READY, where the domain says `ready`."""
    return {key: _ENUMS[key].name(value) if key in _ENUMS else value for key, value in metadata.items()}


def _details(error: MulliganError) -> Iterator[Message]:
    told = in_names_of_the_contract(error.metadata)
    metadata = {key: value[:MOST_DETAIL] for key, value in told.items() if value}
    yield ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=metadata)
    if isinstance(error, errors.InvalidRequest) and error.violations:
        listed = error.violations[:MOST_VIOLATIONS]
        yield BadRequest(
            field_violations=[
                BadRequest.FieldViolation(field=field, description=text[: 2 * MOST_DETAIL]) for field, text in listed
            ]
        )
    if isinstance(error, errors.NeverFits | errors.NotNow) and isinstance(error.explanation, Explanation):
        yield explanation_message(error.explanation)
    if isinstance(error, errors.Busy) and error.after_seconds > 0:
        yield RetryInfo(retry_delay=Duration(seconds=int(error.after_seconds) or 1))


def _unexpected(error: Exception) -> Status:
    error_id = uuid.uuid4().hex[:12]
    log.error("unexpected error", error_id=error_id, errors=[_described(each) for each in _chain(error)])
    status = Status(
        code=Code.INTERNAL,
        message=f"an error that Mulligan did not expect, logged by the API server as {error_id}; please report it",
    )
    packed = Any()
    packed.Pack(ErrorInfo(reason="INTERNAL", domain=DOMAIN, metadata={"error_id": error_id}))
    status.details.append(packed)
    return status


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error, then what caused it, and so on."""
    seen: set[int] = set()
    following: BaseException | None = error
    while following is not None and id(following) not in seen:
        seen.add(id(following))
        yield following
        following = following.__cause__ or (None if following.__suppress_context__ else following.__context__)


def _described(error: BaseException) -> dict[str, object]:
    """An error's kind and where it passed, innermost last, without its text or any value."""
    kind = f"{type(error).__module__}.{type(error).__qualname__}"
    if isinstance(error, RPCError):
        kind += f" {error.status.name}"
    if isinstance(error, ApplicationError):
        kind += f" {error.type}"
    frames = traceback.walk_tb(error.__traceback__)
    return {"kind": kind, "at": [f"{frame.f_code.co_filename}:{line} {frame.f_code.co_name}" for frame, line in frames]}


def tree(root: type[MulliganError] = MulliganError) -> Iterator[type[MulliganError]]:
    """Every class of the tree of errors, from the root down."""
    yield root
    for kind in root.__subclasses__():
        yield from tree(kind)


_BY_REASON: Mapping[str, type[MulliganError]] = {kind("").reason: kind for kind in tree()}

_TEMPORAL_AWAY = frozenset(
    {
        RPCStatusCode.UNAVAILABLE,
        RPCStatusCode.DEADLINE_EXCEEDED,
        RPCStatusCode.CANCELLED,
        RPCStatusCode.RESOURCE_EXHAUSTED,
        RPCStatusCode.ABORTED,
    }
)
