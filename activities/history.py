"""Reading Temporal's history: what its payloads, times and failures say, in the domain's words."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp
from temporalio.api.common.v1 import Payload, Payloads
from temporalio.api.enums.v1 import PendingActivityState, TimeoutType
from temporalio.api.failure.v1 import Failure
from temporalio.api.workflow.v1 import PendingActivityInfo

from mulligan.activities.calls import partition_queue
from mulligan.activities.values import Evidence, VerifyLevel

_SCHEDULED = PendingActivityState.PENDING_ACTIVITY_STATE_SCHEDULED
_HARDLY = timedelta(seconds=1)
"""Workers that have room begin within milliseconds."""

STILL_AWAITED = "STILL_AWAITED"
"""The name of a failure that is none: what was looked for is not there yet, and is looked for again."""


def innermost(failure: Failure) -> Failure:
    """The failure that caused this one: the first that is one of ours, else the last."""
    while failure.HasField("cause") and not failure.HasField("application_failure_info"):
        failure = failure.cause
    return failure


def describe_failure(failure: Failure) -> tuple[str, str]:
    """(message, reason) of the failure that caused this one."""
    failure = innermost(failure)
    reason = failure.application_failure_info.type if failure.HasField("application_failure_info") else ""
    if failure.HasField("timeout_failure_info"):
        reason = "NO_ANSWER"
    return failure.message, reason


def seen_meanwhile(pending: PendingActivityInfo) -> tuple[str, datetime | None]:
    """What an action that looks again and again saw last, and when; empty for one that failed, or has not looked."""
    failure = innermost(pending.last_failure)
    if failure.application_failure_info.type != STILL_AWAITED:
        return "", None
    at = result_of(failure.application_failure_info.details).get("at", 0.0)
    return failure.message, datetime.fromtimestamp(at, UTC) if isinstance(at, float) and at > 0 else None


def blamed_by(failure: Failure) -> str:
    """Whom a failure's metadata blames, if anyone."""
    return str(result_of(innermost(failure).application_failure_info.details).get("blame", ""))


def nobody_began(pending: PendingActivityInfo, at: datetime) -> str:
    """That no worker of a partition has begun an action by then, or begun it again since the worker that did fell
    silent; empty for one that is done, has failed otherwise, or has hardly waited."""
    queue = pending.activity_options.task_queue.name
    lost = pending.last_failure.timeout_failure_info.timeout_type == TimeoutType.TIMEOUT_TYPE_HEARTBEAT
    if pending.state != _SCHEDULED or not queue.startswith(partition_queue("")):
        return ""
    if pending.HasField("last_failure") and not lost:
        return ""
    again = pending.HasField("next_attempt_schedule_time")
    if at - when(pending.next_attempt_schedule_time if again else pending.scheduled_time) < _HARDLY:
        return ""
    partition = queue.removeprefix(partition_queue(""))
    begun = "begun it again, since the one that did fell silent" if lost else "begun it"
    return (
        f"no worker of partition {partition} has {begun}; see that one runs: `mulligan worker --partition {partition}`"
    )


def power_seen_by(failure: Failure) -> str:
    """How a failure found the machine's power, if that is why it failed (see `powered`)."""
    return str(result_of(innermost(failure).application_failure_info.details).get("power", ""))


def said_by_heartbeat(details: Payloads) -> str:
    """What an action under way last said of itself (see `beat`)."""
    return str(result_of(details).get("message", ""))


def when(timestamp: Timestamp) -> datetime:
    """An aware UTC time."""
    return timestamp.ToDatetime(tzinfo=UTC)


def text_of(payload: Payload) -> str:
    """The text of a payload; empty when it holds none."""
    try:
        value = json.loads(payload.data) if payload.data else ""
    except ValueError:
        return ""
    return value if isinstance(value, str) else ""


def result_of(payloads: Payloads) -> Mapping[str, Any]:
    """The object that the first payload holds; empty when it holds none."""
    try:
        value = json.loads(payloads.payloads[0].data) if payloads.payloads else {}
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def explanation_of(failure: Failure) -> Mapping[str, Any] | None:
    """The second detail of a claim's failure, as `translate.to_failure` writes it."""
    details = innermost(failure).application_failure_info.details.payloads
    found = result_of(Payloads(payloads=details[1:2]))
    return found or None


def evidence_of(result: Mapping[str, Any]) -> tuple[Evidence, ...]:
    """The evidence in an action's result."""
    return tuple(
        Evidence(
            VerifyLevel(e["level"]) if e["level"] else None,
            e["source"],
            e["observed"],
            datetime.fromisoformat(e["at"]),
        )
        for e in result.get("evidence", ())
    )
