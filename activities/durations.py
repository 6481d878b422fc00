"""How long the steps of a run take, read from its story."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime

from mulligan.activities.events import EventKind, RunEvent

LEARNED = ("claim", "image", "boot", "verify")
"""The steps whose times are learned."""


def began_at(events: Iterable[RunEvent]) -> Mapping[tuple[int, str], datetime]:
    """When each step began, by (try, step): with its first action, or anew with the first one after a resume.

    So the time for which a run was held never counts, and neither does what a step took before it was begun anew.
    """
    began: dict[tuple[int, str], datetime] = {}
    resumed: datetime | None = None
    for event in events:
        if event.kind is EventKind.RESUMED:
            resumed = event.at
        elif event.kind is EventKind.ACTION_STARTED and event.step in LEARNED:
            key = (event.try_number, event.step)
            if key not in began or (resumed is not None and began[key] < resumed):
                began[key] = event.at
    return began


def step_seconds(events: Iterable[RunEvent]) -> Mapping[str, float]:
    """How long each step of the last try took, from its begin to the end of its last action. To be asked of a run that
    ended ready: a step without an action that ended is left out."""
    told = list(events)
    last = max((event.try_number for event in told), default=0)
    began, ended = began_at(told), dict[str, datetime]()
    for event in told:
        if event.try_number == last and event.kind in (EventKind.ACTION_FINISHED, EventKind.CALLED_HOME):
            ended[event.step] = event.at
    return {
        step: max(0.0, (ended[step] - began[last, step]).total_seconds())
        for step in LEARNED
        if step in ended and (last, step) in began
    }
