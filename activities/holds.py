"""The holds that are ahead of a run, read from its story: asked for, and neither reached nor taken back."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from mulligan.activities.events import EventKind, RunEvent
from mulligan.activities.levers import HOLDABLE, Lever, LeverKind, held_before

ENDS_ALL = frozenset({EventKind.CANCEL_REQUESTED, EventKind.RUN_FINISHED})


def holds_ahead(events: Iterable[RunEvent]) -> tuple[Lever, ...]:
    """In the order in which they were asked for. Each says before which step."""
    ahead: list[Lever] = []
    left: tuple[str, ...] = HOLDABLE
    for event in events:
        if event.kind is EventKind.ACTION_STARTED:
            left = _later(event.step, left)
        elif event.kind in ENDS_ALL:
            ahead.clear()
        elif event.kind is EventKind.HELD:
            ahead = [each for each in ahead if f": {held_before(each.step)} by " not in event.message]
        elif event.kind is EventKind.LEVER_PULLED and event.lever is not None:
            ahead = _pulled(event.lever, ahead, left)
    return tuple(ahead)


def _later(step: str, left: tuple[str, ...]) -> tuple[str, ...]:
    """The steps of the try that have not begun."""
    if step == "claim":
        return HOLDABLE
    return HOLDABLE[HOLDABLE.index(step) + 1 :] if step in HOLDABLE else left


def _pulled(lever: Lever, ahead: list[Lever], left: tuple[str, ...]) -> list[Lever]:
    if lever.kind is LeverKind.ABORT:
        return []
    if lever.kind is not LeverKind.HOLD:
        return ahead
    if lever.off:
        return [each for each in ahead if lever.step not in ("", each.step)]
    step = lever.step or next(iter(left), "")
    return [*ahead, replace(lever, step=step)]
