"""Why a run's provider was left, as `run show` and `run watch` tell it."""

from __future__ import annotations

import pytest

from mulligan.api.cli.story import story_lines
from mulligan.api.cli.view import RunView
from mulligan.v1 import provisioning_pb2 as pb
from mulligan.v1 import run_pb2
from tests.cli.scripted import event, run_update

OFF = "web-1 is off and stays off; its console last said 'halted'"
AWAITS = (
    run_update(),
    event(1, "ACTION_STARTED", "claim", "claim"),
    event(2, "ACTION_FINISHED", "claim", "claim", "claimed hyp-1", provider="hyp-1", attempts=1),
    event(3, "AWAITING", "verify", message="the guest's call home", provider="hyp-1"),
)
FAILED = event(8, "ACTION_FAILED", "verify", "watch-guest", OFF, provider="hyp-1", attempts=3, reason="VERIFY_FAILED")
UNDONE = event(9, "ACTION_STARTED", "undo", "tear-down", provider="hyp-1")
LEVER = run_pb2.Lever(kind=run_pb2.LEVER_KIND_MULLIGAN, actor="alice")
PULLED = event(5, "LEVER_PULLED", message="take a mulligan, by alice", lever=LEVER, provider="hyp-1")
REFUSED = event(6, "LEVER_REFUSED", message="there is no other provider", lever=LEVER, provider="hyp-1")


def claimed_again(said: str = "claim a provider in default") -> run_pb2.RunUpdate:
    """The next try begins."""
    return event(12, "ACTION_STARTED", "claim", "claim", said, **{"try": 2})


def left(*updates: run_pb2.RunUpdate) -> str:
    """Why the first provider was left, as the story has it."""
    events = [each.event for each in (*AWAITS, *updates) if each.HasField("event")]
    lines = [line.strip() for line in story_lines(pb.GetRunResponse(run=run_update().run, events=events))]
    return next(line for line in lines if line.startswith("left "))


def test_what_failed_without_having_been_told_to_begin_is_why_a_provider_was_left() -> None:
    """As the look at a guest that is awaited."""
    assert left(FAILED, UNDONE, claimed_again()) == f"left hyp-1: verify: {OFF}"


def test_a_mulligan_that_was_refused_is_not_why_a_provider_was_left() -> None:
    """One that was taken up later is, as is what failed."""
    assert left(PULLED, REFUSED, FAILED, claimed_again()) == f"left hyp-1: verify: {OFF}"
    again = event(7, "LEVER_PULLED", message="take a mulligan, by alice", lever=LEVER, provider="hyp-1")
    assert left(PULLED, REFUSED, again, claimed_again()) == "left hyp-1: take a mulligan, by alice"


def test_what_was_last_observed_is_told_of_an_earlier_try_too() -> None:
    """The next claim has it, where the deadline that passed has not; it is told once."""
    passed = event(8, "DEADLINE_PASSED", "verify", message="not done within 20 s: proving level guest")
    why = "verify was not done within 20 s; it was awaiting the guest's call home; last: its power is on; 'login:'"
    again = why.replace("last: ", "last: awaits the guest's call home; ")
    begun = claimed_again(f"taking a mulligan after: {again}; claim a provider in default")
    assert left(passed, UNDONE, begun) == f"left hyp-1: {why}"
    events = [each.event for each in (*AWAITS, passed, begun) if each.HasField("event")]
    told = "\n".join(story_lines(pb.GetRunResponse(run=run_update().run, events=events)))
    assert told.count(why) == 1
    assert "in progress: claim a provider in default" in told


def test_what_the_next_claim_repeats_is_told_with_its_step() -> None:
    """And without that it was repeated."""
    begun = claimed_again(f"taking a mulligan after: {OFF}; claim off3 in default")
    assert left(FAILED, UNDONE, begun) == f"left hyp-1: verify: {OFF}"


@pytest.mark.parametrize("more", [(), (UNDONE,)], ids=["at once", "when it is undone"])
def test_a_watcher_is_told_what_ended_a_wait_and_not_that_it_was_stopped(more: tuple[run_pb2.RunUpdate, ...]) -> None:
    """A step whose look at the guest failed awaits its call home no longer."""
    view = RunView()
    for update in (*AWAITS, FAILED, *more):
        view.feed(update)
    line = view.steps["verify"]
    assert (line.state, line.message, line.open_actions) == ("failed", OFF, set())
    view.feed(claimed_again())
    assert view.notes == [f"try 1 on hyp-1 failed: verify: {OFF}; taking a mulligan"]
