"""How long to wait between two long-polls of a run's history, so that watching costs Temporal few calls.

Temporal answers a long-poll at every step of its own book-keeping: an action's end with the workflow's task that it
makes due, that task's start, its end with the next action. Only the first and the last are news, and they come close
together. A short pause after each answer brings in one page what comes together anyway.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from temporalio.api.enums.v1 import EventType
from temporalio.api.history.v1 import HistoryEvent

from mulligan.api.convert import moment

SHORT_SECONDS = 0.006
"""After any answer: about what an idle worker takes for a workflow's task. An event that comes later than this after
the last answer is told at once."""
LONG_SECONDS = 0.5
"""The longest pause while a workflow's task is due: a busy worker takes longer for it than an idle one."""
SHARE = 0.9
"""Of the time that the run's last workflow task took; before that is over, nothing new is expected."""


class Pace:
    """One run's pace."""

    def __init__(self) -> None:
        self._due: datetime | None = None
        self._task_seconds = 0.0

    def pause(self, page: Sequence[HistoryEvent]) -> float:
        """Seconds to wait after this page."""
        for event in page:
            if event.event_type == EventType.EVENT_TYPE_WORKFLOW_TASK_SCHEDULED:
                self._due = moment(event.event_time)
            elif event.event_type == EventType.EVENT_TYPE_WORKFLOW_TASK_COMPLETED and self._due is not None:
                self._task_seconds = (moment(event.event_time) - self._due).total_seconds()
        if page and page[-1].event_type == EventType.EVENT_TYPE_WORKFLOW_TASK_SCHEDULED:
            return min(LONG_SECONDS, max(SHORT_SECONDS, SHARE * self._task_seconds))
        return SHORT_SECONDS
