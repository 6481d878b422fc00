"""What would be undone: the undo list of a run, read from its story, so that it can be told without any worker."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from mulligan.activities.events import EventKind, RunEvent
from mulligan.activities.levers import LeverKind
from mulligan.activities.values import Erase
from mulligan.v1 import provisioning_pb2 as pb
from mulligan.workflows import steps

UNDO = "undo"
"""The step to which every undo belongs."""
_RECORD = "record"
"""What a run keeps of itself, whatever else it is at."""


@dataclass(frozen=True, slots=True)
class Undo:
    """Something that undoes an action."""

    action: str
    """The undo, e.g. `tear-down`."""
    description: str
    undoes: str
    """The action that it undoes, e.g. `boot`."""
    step: str
    """The step of that action."""

    def message(self) -> pb.UndoAction:
        """The protocol's message."""
        return pb.UndoAction(action=self.action, description=self.description, undoes=self.undoes)


TABLE = tuple(
    Undo(undo.name, description, done.name, done.step)
    for done, undo, description in (
        (steps.CLAIM, steps.RELEASE_CLAIM, "give the claim back"),
        (steps.PLACE_DISKS, steps.REMOVE_DISKS, "remove the disk and its seed"),
        (steps.DEPLOY, steps.ERASE, "erase what was written to the disk"),
        (steps.BOOT, steps.TEAR_DOWN, "switch the machine off and remove it"),
    )
)
"""Every action that has an undo, in the order in which they are done (see `workflows.steps`)."""

_BY_ACTION = {(each.step, each.undoes): each for each in TABLE}
_TAKEN_DOWN = frozenset({"releasing"})
"""The record with which a run begins that takes a machine down: all of it is to be undone."""

_OVER = frozenset({steps.RECORD_READY.name})
"""The record after which nothing is undone any more: the machine is its user's."""

_ERASES: Mapping[Erase, str] = {
    Erase.METADATA: "erase the metadata of all its fixed disks (partition tables, signatures, beginning and end)",
    Erase.FULL: "erase all its fixed disks in full, which may take hours",
}
"""What a release does to a server's disks, where it does anything to them."""

_GONE = "STALE_FENCE"
"""Why an undo ends badly that has nothing left to undo."""


def _is_given_up(event: RunEvent) -> bool:
    """Whether an operator aborts: while it undoes, what is left is not tried any longer, and quarantined."""
    return event.kind is EventKind.LEVER_PULLED and event.lever is not None and event.lever.kind is LeverKind.ABORT


def undo_of_step(step: str, *, by_agent: bool) -> list[Undo]:
    """What undoes a step, in the order in which it is undone. Empty where there is nothing to undo. `by_agent` where
    the deploy agent writes the disk."""
    other = (steps.PLACE_DISKS if by_agent else steps.DEPLOY).name
    return [each for each in reversed(TABLE) if each.step == step and each.undoes != other]


def _erased(undo: Undo) -> Undo:
    """On a server whose disks are erased, what stands in the place of removing a machine's disks."""
    return _BY_ACTION[steps.DEPLOY.step, steps.DEPLOY.name] if undo.action == steps.REMOVE_DISKS.name else undo


def _of_release(beginning: RunEvent | None) -> list[Undo]:
    """What a run undoes that takes a machine down, in the order of the table, as its beginning says."""
    if beginning is not None and beginning.forgets:
        return [_BY_ACTION[steps.CLAIM.step, steps.CLAIM.name]]
    erase = beginning.erase if beginning is not None else None
    by_agent, by_driver = steps.DEPLOY.name, steps.PLACE_DISKS.name
    if erase is None:
        return [each for each in TABLE if each.undoes != by_agent]
    told = [replace(each, description=_ERASES.get(erase, "")) if each.undoes == by_agent else each for each in TABLE]
    return [each for each in told if each.undoes != by_driver and each.description]


def undo_list(events: Iterable[RunEvent]) -> list[Undo]:
    """What a run would undo if it were cancelled now, in that order; nothing for one that has ended.

    An undo counts from the moment its action began, because an action that failed may have happened.
    """
    made: dict[str, Undo] = {}
    kept: dict[str, Undo] = {}
    beginning: RunEvent | None = None
    is_undoing = False
    for event in events:
        began, ended = event.kind is EventKind.ACTION_STARTED, event.kind is EventKind.ACTION_FINISHED
        failed = event.kind is EventKind.ACTION_FAILED
        if began and event.step != _RECORD:
            is_undoing = event.step == UNDO
        if event.kind is EventKind.RUN_STARTED:
            beginning = event
        elif event.kind is EventKind.RUN_FINISHED or (is_undoing and _is_given_up(event)):
            made.clear()
        elif began and (undo := _BY_ACTION.get((event.step, event.action))) is not None:
            made.pop(undo.action, None)
            made[undo.action] = undo
        elif began and event.action in _TAKEN_DOWN:
            made = {each.action: each for each in _of_release(beginning)}
        elif began and event.step == UNDO and event.action == steps.ERASE.name:
            made = {each.action: each for each in map(_erased, made.values())}
        elif event.step == UNDO and (ended or (failed and event.reason == _GONE)):
            made.pop(event.action, None)
        elif event.action in _OVER and began:
            kept, made = made, {}
        elif event.action in _OVER and failed:
            made = kept
    return list(reversed(made.values()))
