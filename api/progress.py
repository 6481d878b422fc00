"""What a run's actions are doing right now, from Temporal's description: volatile, and in no history."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp
from temporalio.api.enums.v1 import PendingActivityState
from temporalio.api.workflow.v1 import PendingActivityInfo
from temporalio.client import WorkflowExecutionDescription

from mulligan.activities.events import Due, EventKind, RunEvent
from mulligan.activities.history import describe_failure, explanation_of, seen_meanwhile
from mulligan.activities.story import HIDDEN_ACTIONS, LOOKS_AGAIN, WATCHES, parse_action_id
from mulligan.api import suggestions
from mulligan.api.convert import moment
from mulligan.api.convert_runs import Progress

_WAITING = PendingActivityState.PENDING_ACTIVITY_STATE_SCHEDULED
_MOST = 2000
_PATIENCE = timedelta(seconds=2)
_SAID_AGAIN = timedelta(seconds=10)
_LATEST = 2**36
"""Seconds since 1970 that no clock shows."""


def progress_of(description: WorkflowExecutionDescription) -> Iterable[Progress]:
    """One for each action that is in progress."""
    for pending in description.raw_description.pending_activities:
        parsed = parse_action_id(pending.activity_id)
        if parsed is None or parsed[2] in HIDDEN_ACTIONS:
            continue
        if parsed[2] != LOOKS_AGAIN:
            yield _progress(description.id, pending, *parsed)
        elif (told := _progress(description.id, pending, *parsed)).message:
            yield replace(told, action=AWAIT)  # what is awaited is the same, with what was seen since


UNDO = "undo"
"""The step whose actions have each a time of their own, in which they are tried."""

AWAIT = "await"
"""The name under which a wait is told in which no action is in progress, or one that only looks meanwhile."""

ENDS_A_WAIT = frozenset(EventKind) - {EventKind.SLOW, EventKind.LEVER_PULLED, EventKind.LEVER_REFUSED}
"""After these the run does not await any more what it did, or something else."""


def ends_a_wait(event: RunEvent) -> bool:
    """Whether the run does not await any more what it did; a look at it ends nothing, whatever comes of it."""
    return event.kind in ENDS_A_WAIT and event.action not in WATCHES


def awaited(events: Sequence[RunEvent]) -> Progress | None:
    """What the run awaits without any action, such as a guest's call home; None when that is over, or never began."""
    last = next((event for event in reversed(events) if ends_a_wait(event)), None)
    if last is None or last.kind is not EventKind.AWAITING:
        return None
    seen = next((each for each in reversed(events) if each.try_number == last.try_number and each.evidence), None)
    if seen is None:
        return Progress(last.try_number, last.step, AWAIT, 1, f"awaits {last.message}", observed_at=last.at)
    newest = max(seen.evidence, key=lambda evidence: evidence.at)
    message = f"awaits {last.message}; last seen: {newest.observed}"
    return Progress(last.try_number, last.step, AWAIT, 1, message, observed_at=newest.at)


def until(progress: Progress, due: Due | None) -> Progress:
    """The progress with its step's deadline, if that is known; an undo keeps its own: until when it is tried."""
    if progress.step == UNDO:
        return progress
    return replace(progress, deadline=due.at if due is not None and due.step == progress.step else None)


def is_news(before: Progress | None, now: Progress) -> bool:
    """Whether a watcher is told: something changed, or what was said is said again after a while."""
    if before is None or before != now:
        return True
    if before.observed_at is None or now.observed_at is None:
        return before.observed_at is not now.observed_at
    return now.observed_at - before.observed_at >= _SAID_AGAIN


def _progress(workflow_id: str, pending: PendingActivityInfo, try_number: int, step: str, action: str) -> Progress:
    beat = _heartbeat(pending)
    next_at: Timestamp | None = None
    if pending.state == _WAITING and pending.HasField("next_attempt_schedule_time"):
        next_at = pending.next_attempt_schedule_time
    said, said_at = str(beat.get("message", "")), _said_at(beat.get("at")) if beat.get("message") else None
    seen, seen_at = seen_meanwhile(pending)
    if seen_at is not None and (said_at is None or said_at < seen_at):
        said, said_at = seen, seen_at
    failed = pending.HasField("last_failure") and not seen
    failure = describe_failure(pending.last_failure)[0] if failed else ""
    paused = _paused(pending, said if action == LOOKS_AGAIN else None)
    message = (paused or said or _waiting(pending, next_at))[:_MOST]
    helps = suggestions.for_progress(workflow_id, step, message=message, last_failure=failure, paused=pending.paused)
    return Progress(
        try_number=try_number,
        step=step,
        action=action,
        attempt=1 if seen else max(1, pending.attempt),
        message=message,
        done=_count(beat.get("done")),
        total=_count(beat.get("total")),
        last_failure=failure[:_MOST],
        next_attempt_at=moment(next_at) if next_at is not None and not seen else None,
        suggestions=tuple(helps),
        observed_at=said_at,
        explanation=explanation_of(pending.last_failure) if failed else None,
        deadline=moment(pending.expiration_time) if step == UNDO and pending.HasField("expiration_time") else None,
    )


def _paused(pending: PendingActivityInfo, seen: str | None) -> str:
    """That somebody paused it, in Temporal's Web UI or by `temporal activity pause`; empty when nobody did. A look, of
    which `seen` is what it told last, is no more than that: what is awaited goes on, and may come."""
    if not pending.paused:
        return ""
    who, why = pending.pause_info.manual.identity, pending.pause_info.manual.reason
    by = f"{f' by {who}' if who else ''}{f' ({why})' if why else ''}"
    if seen is None:
        return f"paused{by} in Temporal: nothing is tried until it is unpaused, or tried again now"
    looks = f"looks at its machine are paused{by} in Temporal: none is made until that is unpaused, or tried again now"
    return "; ".join(filter(None, (seen, looks, "what is awaited may come all the same")))


def _waiting(pending: PendingActivityInfo, next_at: Timestamp | None) -> str:
    """What an attempt that has not begun is waiting for, when it has waited long enough to tell."""
    due = moment(next_at or pending.scheduled_time)
    if pending.state != _WAITING or datetime.now(UTC) - due < _PATIENCE:
        return ""
    queue = pending.activity_options.task_queue.name
    return f"waiting for a worker on task queue {queue}" if queue else "waiting for a worker"


def _heartbeat(pending: PendingActivityInfo) -> dict[str, Any]:
    try:
        said = json.loads(pending.heartbeat_details.payloads[0].data) if pending.heartbeat_details.payloads else {}
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}


def _said_at(value: object) -> datetime | None:
    """When the worker said it: the heartbeat itself comes again and again, whatever is known."""
    if not isinstance(value, int | float) or not 0 < value < _LATEST:
        return None
    return datetime.fromtimestamp(value, UTC)


def _count(value: object) -> int:
    return value if isinstance(value, int) and 0 <= value < 2**63 else 0
