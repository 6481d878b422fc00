"""The driver transcript: what was asked of a driver is in the run's history, within bounds and without arguments."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from mulligan.activities.drivers.base import Addresses, Computers, Console, Deadline, Disks, Power
from mulligan.activities.drivers.simulated import open_simulated
from mulligan.activities.errors import NeverFits, Unreachable
from mulligan.activities.transcript import FIRST, LEFT_OUT, MOST, Transcript, noted, recorded, transcribing, with_verbs
from mulligan.activities.translate import VERBS_DETAIL, metadata_of, to_failure
from mulligan.activities.values import Target, Verb
from mulligan.api.capsules import transcript_of
from tests.capsules.endings import ended
from tests.workflows.stack import Stack

AT = datetime(2026, 1, 1, tzinfo=UTC)
PROTOCOLS = (Disks, Computers, Power, Console, Addresses)
GROWTH_BYTES = 1500
"""By how much the transcript may make the history of a simulated run grow."""


def verb(name: str, said: str = "", seconds: float = 0.5) -> Verb:
    """One call."""
    return Verb(name, AT, seconds, said)


def test_equal_calls_are_counted_also_when_they_take_turns() -> None:
    """A poll of minutes is a handful of entries; a call that failed is one of its own."""
    transcript = Transcript()
    for _ in range(100):
        for name in ("power", "addresses", "console"):
            transcript.note(verb(name))
    transcript.note(verb("power", "UNREACHABLE"))
    transcript.note(verb("power"))
    assert [(v.name, v.said, v.count, v.seconds) for v in transcript.verbs()] == [
        ("power", "", 101, 50.5),
        ("addresses", "", 100, 50.0),
        ("console", "", 100, 50.0),
        ("power", "UNREACHABLE", 1, 0.5),
    ]


def test_a_transcript_is_bounded_and_says_what_it_left_out() -> None:
    """The first entries and the newest stay; those between are counted."""
    transcript = Transcript()
    names = [f"verb-{number}" for number in range(500)]
    for name in names:
        transcript.note(verb(name))
    verbs = transcript.verbs()
    assert len(verbs) == MOST
    assert [v.name for v in verbs[:FIRST]] == names[:FIRST]
    assert verbs[-1].name == names[-1]
    (left_out,) = [v for v in verbs if v.name == LEFT_OUT]
    assert sum(v.count for v in verbs) == len(names)
    assert left_out.count == len(names) - (MOST - 1)


async def test_a_recorded_driver_can_do_what_the_driver_can_and_no_more(tmp_path: Path) -> None:
    """The Protocols that say what a driver is able to do hold for it as before."""
    driver = await open_simulated(Target("h", "default", "simulated://f/h?speed=0"), tmp_path)
    proxy = recorded(driver)
    assert [isinstance(proxy, protocol) for protocol in PROTOCOLS] == [isinstance(driver, p) for p in PROTOCOLS]
    assert proxy.moves_bytes == driver.moves_bytes

    class OnlyLooks:
        moves_bytes = True

        async def remains(self, machine_id: str, deadline: Deadline) -> tuple[str, ...]:
            return (machine_id,)

    lesser = recorded(OnlyLooks())  # type: ignore[arg-type]
    assert not any(isinstance(lesser, protocol) for protocol in PROTOCOLS)
    with transcribing() as transcript:
        assert await lesser.remains("m-1", Deadline.after(1)) == ("m-1",)
        await proxy.inspect(Deadline.after(5))
    assert [v.name for v in transcript.verbs()] == ["remains", "inspect"]
    assert "m-1" not in str(transcript.verbs())


async def test_an_error_is_noted_by_its_name_and_outside_an_activity_nothing_is() -> None:
    """The name says enough; its text may repeat what was in the request."""
    with transcribing() as transcript, pytest.raises(Unreachable), noted("power_on"):
        raise Unreachable("the host at 192.0.2.1 is silent")
    assert [(v.name, v.said) for v in transcript.verbs()] == [("power_on", "UNREACHABLE")]
    with noted("power_on"):
        pass
    assert len(transcript.verbs()) == 1


def test_a_failure_carries_it_behind_metadata_and_explanation() -> None:
    """What else is in a failure stays where it was."""
    error = NeverFits("none", partition="default")
    bare, told = to_failure(error), to_failure(error, (verb("open"),))
    assert told.details[:VERBS_DETAIL] == bare.details
    assert metadata_of(told) == metadata_of(bare)
    assert told.details[VERBS_DETAIL] == [verb("open")]


def test_a_result_without_room_for_it_stays_as_it_is() -> None:
    """Not every activity speaks to a driver."""
    assert with_verbs(AT, (verb("open"),)) == AT
    assert with_verbs(verb("open"), (verb("open"),)) == verb("open")


async def test_a_runs_history_tells_what_was_asked_of_the_host(stack: Stack) -> None:
    """Results have it, and so has a failure; it costs next to nothing."""
    project, _ = await stack.hosts(fail="power_on:1:Unreachable")
    handle = await stack.start(stack.request(project))
    await handle.result()
    said = list(transcript_of((await handle.fetch_history()).events))
    assert [one.action for one in said] == [
        "1/image/prepare", "1/image/place-disks", "1/boot/boot", "1/boot/boot", "1/verify/observe",
    ]  # fmt: skip
    before, boot = said[2:4]
    assert [(v.name, v.said) for v in before.verbs] == [("open", ""), ("define", ""), ("power_on", "UNREACHABLE")]
    assert [v.name for v in boot.verbs] == ["open", "define", "power_on", "power"]
    assert (before.attempt, boot.attempt) == (0, 2)
    project, _ = await stack.hosts()
    handle = await stack.start(stack.request(project))
    await handle.result()
    results = [
        payload.data
        for event in (await handle.fetch_history()).events
        for payload in event.activity_task_completed_event_attributes.result.payloads
    ]
    assert 0 < sum(len(data) - data.find(b'"verbs"') for data in results if b'"verbs"' in data) < GROWTH_BYTES


async def test_a_run_that_failed_says_what_was_asked_last(stack: Stack) -> None:
    """A final refusal of the host is in the failure's transcript."""
    project, _ = await stack.hosts(fail="power_on:1:AccessDenied")
    handle = await stack.start(stack.request(project))
    assert await ended(handle) == "failed"
    (boot,) = [one for one in transcript_of((await handle.fetch_history()).events) if one.action == "1/boot/boot"]
    assert (boot.verbs[-1].name, boot.verbs[-1].said) == ("power_on", "ACCESS_DENIED")
