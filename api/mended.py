"""What became since of what a run left behind. Its old advice must not take down what stands there now."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from mulligan.activities.errors import NotFound
from mulligan.activities.events import EventKind, RunEvent
from mulligan.activities.inventory import Inventory
from mulligan.activities.inventory.edits import EditKind, lets_go_of
from mulligan.activities.inventory.machine import Machine
from mulligan.activities.levers import cause_of_cancel
from mulligan.activities.values import MachineState, Outcome
from mulligan.api.convert_runs import RunView
from mulligan.api.enums import RunKind

MENDED = "mended since"
"""How it is said that the cause of a quarantine or a termination is gone."""

RESET = "it was reset: what there is of the machine is the newer run's of its id"
"""What became of what a run left that has a newer one for the same machine."""

ADVICE = ". When the cause is mended: "
"""What stands in a quarantine's reason before the command that takes down what is left."""

_NEWEST_EDITS = 100
"""So many changes by hand are looked through for one that forgot the machine."""

_LEFT_BEHIND = frozenset({Outcome.QUARANTINED, Outcome.TERMINATED})
_SETTLED: Mapping[MachineState, str] = {
    MachineState.READY: "the machine is ready",
    MachineState.RELEASED: "the machine was released",
    MachineState.FAILED: "nothing is left of the machine",
}
_BECAME: Mapping[MachineState, str] = {
    MachineState.PROVISIONING: "is being made",
    MachineState.READY: "is ready",
    MachineState.RELEASING: "is being released",
    MachineState.RELEASED: "was released",
    MachineState.FAILED: "was not made",
    MachineState.HELD: "is held",
    MachineState.QUARANTINED: "is quarantined",
}


def with_what_became(views: Iterable[RunView], inventory: Inventory) -> list[RunView]:
    """The views; those of runs that left something say what became of it. Blocks."""
    newest: dict[tuple[str, str], Machine | None] = {}
    told = []
    for view in views:
        about = (view.project, view.machine)
        if _left_something(view) and about not in newest:
            newest[about] = _newest(inventory, *about)
        since = (_forgotten(view, inventory) or _since(view, newest[about])) if _left_something(view) else ""
        told.append(replace(view, reason=mended_text(view.reason, since), mended=since) if since else view)
    return told


def event_since(event: RunEvent, since: str) -> RunEvent:
    """The event, whose advice is replaced by what became of what was left; `since` is empty where that still stands."""
    if not since:
        return event
    if event.kind is EventKind.RUN_FINISHED:
        return replace(event, message=mended_text(event.message, since), mended=True)
    return replace(event, message=event.message.partition(ADVICE)[0])


def mended_text(reason: str, since: str) -> str:
    """The reason, whose advice is replaced by what became since."""
    why = reason.partition(ADVICE)[0]
    return f"{why}; {since}" if why else since


def _left_something(view: RunView) -> bool:
    """Whether its advice may be to release the machine."""
    takes_down = view.kind in (RunKind.RELEASE, RunKind.RECLAIM) and view.outcome is Outcome.FAILED
    return bool(view.machine and view.machine_id) and (view.outcome in _LEFT_BEHIND or takes_down)


def _newest(inventory: Inventory, project: str, name: str) -> Machine | None:
    try:
        return inventory.machine(project, name)
    except NotFound:
        return None


def _forgotten(view: RunView, inventory: Inventory) -> str:
    """That it was given up, and not undone: whatever has its name now."""
    edits = inventory.edits(EditKind.MACHINE, view.machine, view.project, limit=_NEWEST_EDITS)
    edit = next((each for each in edits if lets_go_of(each, view.machine_id)), None)
    if edit is None:
        return ""
    where = f" on {view.provider}" if view.provider else ""
    by = cause_of_cancel(edit.actor, edit.reason)
    return f"forgotten since {by}; nothing was undone{where}, where it may still run"


def _since(view: RunView, newest: Machine | None) -> str:
    if newest is None:
        return f"{MENDED}: the machine is no longer known"
    if newest.id != view.machine_id:
        return f"{MENDED}: another machine was asked for by that name, and {_BECAME[newest.state]}"
    if newest.state in _SETTLED:
        return f"{MENDED}: {_SETTLED[newest.state]}"
    return RESET if view.superseded and view.kind is RunKind.PROVISION else ""
