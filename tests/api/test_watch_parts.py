"""Parts of watching: how often Temporal is asked, and what many watchers share."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from temporalio.api.enums.v1 import EventType
from temporalio.api.history.v1 import HistoryEvent

from mulligan.activities.events import EventKind, RunEvent
from mulligan.api.pace import LONG_SECONDS, SHARE, SHORT_SECONDS, Pace
from mulligan.api.shared import SharedMessages

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
SCHEDULED = EventType.EVENT_TYPE_WORKFLOW_TASK_SCHEDULED
COMPLETED = EventType.EVENT_TYPE_WORKFLOW_TASK_COMPLETED
ACTIVITY_COMPLETED = EventType.EVENT_TYPE_ACTIVITY_TASK_COMPLETED


def event(kind: EventType.ValueType, after_seconds: float = 0.0) -> HistoryEvent:
    """One event, so long after noon."""
    made = HistoryEvent(event_type=kind)
    made.event_time.FromDatetime(NOON + timedelta(seconds=after_seconds))
    return made


def test_while_a_slow_workflow_task_is_due_the_pause_is_most_of_what_the_last_one_took() -> None:
    """As long as a share of the last task, within bounds; short when an action is in progress."""
    pace = Pace()
    due = [event(ACTIVITY_COMPLETED), event(SCHEDULED)]
    assert pace.pause(due) == SHORT_SECONDS
    assert pace.pause([event(COMPLETED, 0.1)]) == SHORT_SECONDS
    assert pace.pause(due) == SHARE * 0.1
    assert pace.pause([event(COMPLETED, 60.0)]) == SHORT_SECONDS
    assert pace.pause(due) == LONG_SECONDS
    assert pace.pause([]) == SHORT_SECONDS


def test_watchers_of_a_run_share_its_messages() -> None:
    """The same update gives the same message; another one, however alike, its own; only the newest are kept."""
    messages = SharedMessages(kept=2)
    first, alike = (RunEvent(1, NOON, EventKind.HELD) for _ in range(2))
    shared = messages.message(first, "run")
    assert shared.update.event.cursor == "run.1"
    assert messages.message(first, "run") is shared
    assert messages.message(alike, "other").update.event.cursor == "other.1"
    messages.message(RunEvent(2, NOON, EventKind.HELD), "run")
    assert messages.message(first, "run") is not shared
