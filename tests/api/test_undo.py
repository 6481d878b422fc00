"""The undo list of a run that takes a machine down, read from the histories of real ones."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mulligan.activities.events import EventKind, RunEvent
from mulligan.activities.levers import Lever, LeverKind
from mulligan.activities.story import fold
from mulligan.activities.values import Erase
from mulligan.api.capsule_file import history_of, unpack
from mulligan.api.cli.top.row import Row
from mulligan.api.convert_runs import event_message
from mulligan.api.undo import Undo, undo_list
from mulligan.v1 import run_pb2

CAPSULES = Path(__file__).parents[1] / "capsules"


def told(name: str) -> list[RunEvent]:
    """The story of a recorded run, from its history."""
    history = history_of(unpack((CAPSULES / f"{name}.capsule").read_bytes(), name), name)
    assert history is not None
    return fold(iter(history.events))


def when(events: list[RunEvent], kind: EventKind, action: str) -> list[Undo]:
    """The undo list as it was at the moment of this event."""
    at = next(n for n, event in enumerate(events) if (event.kind, event.action) == (kind, action))
    return undo_list(events[: at + 1])


@pytest.mark.parametrize("name", ["redfish-released", "ipmi-released"])
def test_a_servers_release_says_from_its_beginning_that_it_erases(name: str) -> None:
    """And how, until that is done."""
    events = told(name)
    first = when(events, EventKind.ACTION_STARTED, "releasing")
    assert [each.action for each in first] == ["tear-down", "erase", "release-claim"]
    assert first[1].description.startswith("erase the metadata of all its fixed disks")
    assert when(events, EventKind.ACTION_STARTED, "erase") == first[1:]
    assert [each.action for each in when(events, EventKind.ACTION_FINISHED, "erase")] == ["release-claim"]


@pytest.mark.parametrize(
    ("given", "left"),
    [
        ({"erase": Erase.FULL}, ["tear-down", "erase", "release-claim"]),
        ({"erase": Erase.NONE}, ["tear-down", "release-claim"]),
        ({"erase": None}, ["tear-down", "remove-disks", "release-claim"]),
        ({"forgets": True}, ["release-claim"]),
    ],
    ids=["full", "none", "not-by-the-agent", "forgotten"],
)
def test_what_is_undone_is_what_was_asked_for(given: dict[str, Any], left: list[str]) -> None:
    """Also of a release whose provider is gone for good, which asks nothing of it."""
    begun, releasing = told("redfish-released")[:2]
    changed = [replace(begun, **given), releasing]
    assert [each.action for each in undo_list(changed)] == left
    if given.get("erase") is Erase.FULL:
        assert undo_list(changed)[1].description == "erase all its fixed disks in full, which may take hours"


def test_a_virtual_machines_release_removes_its_disk() -> None:
    """As it always did."""
    first = when(told("libvirt-released"), EventKind.ACTION_STARTED, "releasing")
    assert [each.action for each in first] == ["tear-down", "remove-disks", "release-claim"]


def test_a_client_is_told_what_a_release_does_to_the_disks() -> None:
    """By the first event of its stream, from which `mulligan top` lists the same."""
    row = Row(run_pb2.Run(workflow_id="release:default:web-1", run_id="r", kind=run_pb2.RUN_KIND_RELEASE))
    events = told("redfish-released")[:2]
    for event in events:
        row.feed(run_pb2.RunUpdate(event=event_message(event, "r")))
    assert [(each.action, each.description) for each in row.undo()] == [
        (each.action, each.description) for each in undo_list(events)
    ]


def test_what_is_given_up_is_undone_no_more() -> None:
    """An abort while it undoes: what is left will be quarantined. One before that is what begins the undo."""
    events = told("libvirt-released")
    at = next(n for n, e in enumerate(events) if (e.kind, e.action) == (EventKind.ACTION_STARTED, "tear-down"))
    assert undo_list(events[: at + 1])
    abort = replace(events[at], kind=EventKind.LEVER_PULLED, lever=Lever(LeverKind.ABORT, "alice"))
    assert undo_list([*events[: at + 1], abort]) == []
    aborted = told("simulated-aborted")
    pulled = next(n for n, e in enumerate(aborted) if e.kind is EventKind.LEVER_PULLED)
    assert [each.action for each in undo_list(aborted[: pulled + 1])] == ["tear-down", "remove-disks", "release-claim"]
