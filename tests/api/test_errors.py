"""How errors leave the API: every class has its code, everything else says nothing but its id."""

from __future__ import annotations

import pytest
from google.rpc.code_pb2 import Code
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status
from structlog.testing import capture_logs
from temporalio.client import WorkflowFailureError
from temporalio.exceptions import ActivityError, ApplicationError, RetryState
from temporalio.service import RPCError, RPCStatusCode

from mulligan.activities import errors
from mulligan.activities.errors import MulliganError
from mulligan.activities.inventory import Explanation, NearMiss, Predicate, Verdict
from mulligan.activities.translate import to_failure
from mulligan.api.errors import CODES, domain_error, status_of, tree
from mulligan.v1 import inventory_pb2

WHY = Explanation(
    Verdict.NEVER,
    "no provider could hold it",
    (Predicate("in-service", "is in service", 3, 1),),
    fits_count=0,
    not_now_count=0,
    never_count=4,
    near_misses=(NearMiss("h1", ("vcpu",), "has 2 of 4 vcpu"),),
)


def detail(status: Status, wanted: object) -> object:
    """The detail of the wanted type."""
    assert any(one.Unpack(wanted) for one in status.details)
    return wanted


def test_every_class_of_the_tree_is_mapped() -> None:
    """A new error needs a decision; the table has no other entries."""
    assert set(CODES) == set(tree())


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.InvalidRequest("m"), Code.INVALID_ARGUMENT),
        (errors.NotFound("m"), Code.NOT_FOUND),
        (errors.AlreadyExists("m"), Code.ALREADY_EXISTS),
        (errors.Conflict("m"), Code.FAILED_PRECONDITION),
        (errors.Conflict("m", generation=3), Code.ABORTED),
        (errors.NeverFits("m"), Code.FAILED_PRECONDITION),
        (errors.NotNow("m"), Code.RESOURCE_EXHAUSTED),
        (errors.Unreachable("m"), Code.UNAVAILABLE),
        (errors.Busy("m"), Code.UNAVAILABLE),
        (errors.HostNotReady("m"), Code.FAILED_PRECONDITION),
        (errors.AccessDenied("m"), Code.PERMISSION_DENIED),
        (errors.Unsupported("m"), Code.FAILED_PRECONDITION),
        (RPCError("refused", RPCStatusCode.UNAVAILABLE, b""), Code.UNAVAILABLE),
        (RPCError("secret", RPCStatusCode.INTERNAL, b""), Code.INTERNAL),
        (KeyError("secret"), Code.INTERNAL),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else str(value),
)
def test_an_error_is_answered_with_its_code_and_reason(error: Exception, code: int) -> None:
    """The reason is the error's name, in the domain `mulligan`."""
    status = status_of(error)
    assert status.code == code
    info = detail(status, ErrorInfo())
    known = domain_error(error)
    assert info.reason == (known.reason if known else "INTERNAL")
    assert info.domain == "mulligan"


def test_an_unexpected_error_leaks_nothing_and_is_logged_with_its_id() -> None:
    """The caller gets an id, the log kinds and places; neither gets a text, which may repeat the request."""

    def convert(text: str) -> None:
        try:
            int(text)
        except ValueError as inner:
            raise KeyError(text) from inner

    with pytest.raises(KeyError) as raised:
        convert("password is hunter2")
    with capture_logs() as logged:
        status = status_of(raised.value)
    error_id = detail(status, ErrorInfo()).metadata["error_id"]
    assert "hunter2" not in str(status)
    assert error_id in status.message
    assert logged[0]["error_id"] == error_id
    assert "hunter2" not in str(logged)
    kinds = [each["kind"] for each in logged[0]["errors"]]
    assert kinds == ["builtins.KeyError", "builtins.ValueError"]
    assert all(any(__file__ in place and "convert" in place for place in each["at"]) for each in logged[0]["errors"])
    assert "exc_info" not in logged[0]


def test_violations_nearest_names_and_explanations_are_details() -> None:
    """Programs need not read messages."""
    bad = detail(status_of(errors.InvalidRequest("m", violations=[("a.b", "must")])), BadRequest())
    assert [(one.field, one.description) for one in bad.field_violations] == [("a.b", "must")]
    missing = detail(status_of(errors.NotFound("m", nearest=["x", "y"])), ErrorInfo())
    assert missing.metadata["nearest"] == "x,y"
    why = detail(status_of(errors.NeverFits("m", explanation=WHY)), inventory_pb2.Explanation())
    assert why.verdict == inventory_pb2.Explanation.VERDICT_NEVER
    assert why.near_misses[0].detail == "has 2 of 4 vcpu"
    assert detail(status_of(errors.Busy("m", after_seconds=7)), RetryInfo()).retry_delay.seconds == 7


def test_an_answer_with_very_much_to_say_still_fits_its_trailer() -> None:
    """gRPC limits trailers to 8 KiB; long texts are cut, none is lost whole."""
    violations = [(f"spec.ssh_keys[{n}]", "x" * 200) for n in range(64)]
    status = status_of(errors.InvalidRequest("m" * 5000, violations=violations, long="y" * 5000))
    assert status.ByteSize() < 8000
    assert detail(status, BadRequest()).field_violations[0].field == "spec.ssh_keys[0]"


@pytest.mark.parametrize("kind", sorted(tree(), key=lambda kind: kind.__name__), ids=lambda kind: kind.__name__)
def test_a_failure_of_a_run_becomes_the_error_that_its_activity_raised(kind: type[MulliganError]) -> None:
    """Name, message and metadata come through Temporal."""
    cause = to_failure(kind("what happened", place="rack-1"))
    activity = ActivityError(
        "activity failed",
        scheduled_event_id=1,
        started_event_id=2,
        identity="",
        activity_type="inspect",
        activity_id="1/enrol/inspect",
        retry_state=RetryState.NON_RETRYABLE_FAILURE,
    )
    activity.__cause__ = cause
    rebuilt = domain_error(WorkflowFailureError(cause=activity))
    assert type(rebuilt) is kind
    assert rebuilt.message == "what happened"
    assert rebuilt.metadata["place"] == "rack-1"


def test_a_failure_of_no_known_name_is_unexpected() -> None:
    """It is answered as INTERNAL."""
    assert status_of(WorkflowFailureError(cause=ApplicationError("oops", type="ZeroDivision"))).code == Code.INTERNAL
