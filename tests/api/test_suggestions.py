"""What may help is said with commands that exist, and the undo list is what the run will undo."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import click
import pytest
from temporalio.api.workflow.v1 import PendingActivityInfo
from temporalio.api.workflowservice.v1 import DescribeWorkflowExecutionResponse

from mulligan.activities.events import Due, EventKind, RunEvent
from mulligan.activities.history import STILL_AWAITED
from mulligan.activities.values import Outcome
from mulligan.api import suggestions
from mulligan.api.cli.main import cli
from mulligan.api.convert_runs import Progress, event_message
from mulligan.api.progress import AWAIT, is_news, progress_of, until
from mulligan.api.run_ids import parse_id
from mulligan.api.run_views import is_held
from mulligan.api.undo import TABLE, undo_list, undo_of_step
from mulligan.workflows.provision import NOT_THE_PROVIDERS_FAULT
from mulligan.workflows.steps import (
    BOOT,
    CLAIM,
    DEPLOY,
    ERASE,
    PLACE_DISKS,
    RELEASE_CLAIM,
    REMOVE_DISKS,
    TEAR_DOWN,
)

RUN = "provision:shop:web-1"
EXPLAIN = "mulligan claim explain --machine web-1 --project shop"
NAMES = {"held": 1, "id": RUN, "project": "shop", "machine": "web-1", "provider": "hyp-1", "partition": "lab"}
EVERYTHING = ["tear-down", "remove-disks", "release-claim"]
AT = datetime(2026, 9, 21, tzinfo=UTC)


def every_command() -> Iterator[str]:
    """All that the tables may suggest."""
    for table in (
        suggestions.EVENTS,
        suggestions.ENDINGS,
        suggestions.TAKING_DOWN,
        suggestions.ENROLLING,
        suggestions.FAILED_BEFORE,
        suggestions.PAUSED,
    ):
        for commands in table.values():
            yield from commands
    yield from (
        *suggestions.FAILED_BEFORE_ELSE,
        *suggestions.PAUSED_ELSE,
        *suggestions.WAITS,
        *suggestions.MENDED,
        suggestions.CONTROL,
        suggestions.PARTITION,
    )


@pytest.mark.parametrize("template", sorted(set(every_command())))
def test_every_command_of_the_tables_is_one(template: str) -> None:
    """The command line's own parser takes it, with every option that it needs."""
    command: click.Command = cli
    words = shlex.split(template.format(**NAMES))
    assert words.pop(0) == "mulligan"
    context = click.Context(cli, info_name="mulligan")
    while isinstance(command, click.Group):
        found = command.get_command(context, words.pop(0))
        assert found is not None, template
        command = found
    command.make_context(command.name, words)  # raises click.UsageError for what it does not take


def event(kind: EventKind, step: str = "", action: str = "", **values: object) -> RunEvent:
    """An event of the run."""
    return RunEvent(1, AT, kind, 1, step, action, **values)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("told", "first"),
    [
        (event(EventKind.ACTION_FAILED, "claim", "claim", reason="NEVER_FITS"), EXPLAIN),
        (event(EventKind.ACTION_FAILED, "boot", "boot", provider="hyp-1"), "mulligan provider show hyp-1"),
        (event(EventKind.ACTION_FAILED, "boot", "boot"), f"mulligan run show {RUN}"),
        (event(EventKind.HELD, "record", "held", times_held=1), f"mulligan run resume {RUN} --held 1"),
        (event(EventKind.HELD, off=True, times_held=2), f"mulligan run resume {RUN} --held 2 --from boot"),
        (event(EventKind.SLOW, "boot"), f"mulligan run extend {RUN} --by 10m"),
        (event(EventKind.AWAITING, "claim"), EXPLAIN),
        (event(EventKind.RUN_FINISHED, outcome=Outcome.CANCELLED), f"mulligan run retry {RUN}"),
        (
            event(EventKind.RUN_FINISHED, outcome=Outcome.TERMINATED, reason="TERMINATED"),
            "mulligan machine release web-1 --project shop",
        ),
        (
            event(EventKind.RUN_FINISHED, outcome=Outcome.QUARANTINED),
            "mulligan machine release web-1 --project shop",
        ),
    ],
)
def test_the_likeliest_command_is_first(told: RunEvent, first: str) -> None:
    """A command whose name is not known is left out."""
    assert event_message(told, "a-run", RUN).suggestions[0] == first


@pytest.mark.parametrize(
    "told",
    [
        event(EventKind.RUN_FINISHED, outcome=Outcome.READY),
        event(EventKind.ACTION_FINISHED, "boot", "boot"),
        event(EventKind.ACTION_FAILED, "verify", "observe", reason="CANCELLED"),
    ],
)
def test_nothing_is_suggested_while_all_is_well(told: RunEvent) -> None:
    """Also not for what was stopped on purpose."""
    assert not suggestions.for_event(told, RUN)


@pytest.mark.parametrize("kind", [EventKind.HELD, EventKind.SLOW, EventKind.AWAITING])
def test_no_mulligan_is_suggested_to_a_run_that_may_use_one_provider_only(kind: EventKind) -> None:
    """There is no other one; what else may help is still said, in the same order."""
    free = suggestions.for_event(event(kind, "verify"), RUN)
    mulligan = f"mulligan run mulligan {RUN}"
    assert mulligan in free
    pinned = suggestions.for_event(event(kind, "verify", pinned=True), RUN)
    assert pinned == [command for command in free if command != mulligan]
    for progress in ({"last_failure": "it does not answer"}, {"waits": True}):
        assert mulligan in suggestions.for_progress(RUN, "boot", **progress)
        assert mulligan not in suggestions.for_progress(RUN, "boot", **progress, pinned=True)


def test_suspects_are_suggested_only_where_one_was_recorded() -> None:
    """What is no provider's fault, such as cloud-init that ended badly, has left no evidence there."""
    for reason in NOT_THE_PROVIDERS_FAULT:
        ended = event(EventKind.RUN_FINISHED, outcome=Outcome.FAILED, reason=reason)
        assert suggestions.SUSPECTS not in suggestions.for_event(ended, RUN), reason
    blamed = event(EventKind.RUN_FINISHED, outcome=Outcome.FAILED, reason="VERIFY_FAILED")
    assert suggestions.SUSPECTS in suggestions.for_event(blamed, RUN)


def test_the_levers_of_a_run_are_suggested_only_for_runs_that_have_them() -> None:
    """A release has neither mulligan nor retry."""
    release = "release:shop:web-1"
    assert parse_id(release) is not None
    failing = suggestions.for_progress(release, "undo", last_failure="it stayed")
    assert failing == [f"mulligan run retry-now {release}", f"mulligan run abort {release}"]
    ended = event(EventKind.RUN_FINISHED, outcome=Outcome.QUARANTINED)
    assert suggestions.for_event(ended, release)[0] == "mulligan machine release web-1 --project shop"
    assert not suggestions.for_event(event(EventKind.HELD), release)


def test_a_wait_for_a_worker_names_the_command_that_starts_one() -> None:
    """The partition's, or the control worker."""
    waits = "waiting for a worker on task queue {}"
    lab = suggestions.for_progress(RUN, "image", message=waits.format("mulligan.lab"))
    assert lab == ["mulligan worker --partition lab", "mulligan doctor"]
    control = suggestions.for_progress(RUN, "claim", message=waits.format("mulligan"))
    assert control[0] == "mulligan worker --control"
    assert suggestions.for_progress(RUN, "boot", waits=True)[0] == f"mulligan run extend {RUN} --by 10m"
    assert not suggestions.for_progress(RUN, "boot", message="switching on")


def test_what_was_last_observed_is_as_old_as_the_word_about_it() -> None:
    """The worker sends the same word again and again: that it lives is no observation."""
    said = json.dumps({"message": "no address yet", "done": 0, "total": 0, "at": AT.timestamp()})
    pending = PendingActivityInfo(activity_id="1/verify/observe", attempt=1)
    pending.heartbeat_details.payloads.add(data=said.encode())
    pending.last_heartbeat_time.FromDatetime(AT + timedelta(minutes=3))
    execution = DescribeWorkflowExecutionResponse(pending_activities=[pending])
    (told,) = progress_of(SimpleNamespace(id=RUN, raw_description=execution))  # type: ignore[arg-type]
    assert (told.message, told.observed_at) == ("no address yet", AT)


def test_what_is_paused_is_tried_again_now() -> None:
    """Whatever it does; a look at a machine, which is no attempt, keeps on telling what is awaited."""
    boot, look, undo = (
        PendingActivityInfo(activity_id=f"1/{step}", paused=True)
        for step in ("boot/boot", "verify/watch-guest", "undo/tear-down")
    )
    for each in (boot, look, undo):
        each.pause_info.manual.identity = "ada"
    boot.last_failure.message = "it does not answer"
    look.last_failure.message = "awaits the guest's call home; its power is on"
    look.last_failure.application_failure_info.type = STILL_AWAITED
    look.last_failure.application_failure_info.details.payloads.add(data=json.dumps({"at": AT.timestamp()}).encode())
    execution = DescribeWorkflowExecutionResponse(pending_activities=[boot, look, undo])
    told = list(progress_of(SimpleNamespace(id=RUN, raw_description=execution)))  # type: ignore[arg-type]
    assert {each.suggestions[0] for each in told} == {f"mulligan run retry-now {RUN}"}
    assert [each.action for each in told] == ["boot", AWAIT, "tear-down"]
    paused = "paused by ada in Temporal: {} until {} is unpaused, or tried again now"
    assert told[0].message == told[2].message == paused.format("nothing is tried", "it")
    looks = f"looks at its machine are {paused.format('none is made', 'that')}; what is awaited may come all the same"
    assert told[1].message == f"{look.last_failure.message}; {looks}"


@pytest.mark.parametrize(("step", "deadline"), [("undo", AT), ("boot", None)])
def test_an_undo_says_until_when_it_is_tried(step: str, deadline: datetime | None) -> None:
    """With its own time, whatever the run's step has; any other action has its step's."""
    pending = PendingActivityInfo(activity_id=f"1/{step}/tear-down", attempt=4)
    pending.expiration_time.FromDatetime(AT)
    execution = DescribeWorkflowExecutionResponse(pending_activities=[pending])
    (told,) = progress_of(SimpleNamespace(id=RUN, raw_description=execution))  # type: ignore[arg-type]
    assert told.deadline == deadline
    assert until(told, None).deadline == deadline
    due = Due("boot", AT + timedelta(hours=1))
    assert until(told, due).deadline == (deadline or due.at)


def test_the_undo_table_is_that_of_the_workflow() -> None:
    """Every action with an undo, in reverse within its step."""
    pairs = [(CLAIM, RELEASE_CLAIM), (PLACE_DISKS, REMOVE_DISKS), (DEPLOY, ERASE), (BOOT, TEAR_DOWN)]
    assert [(each.step, each.undoes, each.action) for each in TABLE] == [
        (done.step, done.name, undo.name) for done, undo in pairs
    ]
    assert [each.action for each in undo_of_step("image", by_agent=False)] == ["remove-disks"]
    assert [each.action for each in undo_of_step("image", by_agent=True)] == ["erase"]
    assert undo_of_step("verify", by_agent=False) == []


def acts(*told: str) -> list[RunEvent]:
    """Events of actions: `boot/boot` began, `+undo/tear-down` ended well, `-boot/boot` ended badly."""
    kinds = {"+": EventKind.ACTION_FINISHED, "-": EventKind.ACTION_FAILED}
    return [event(kinds.get(each[0], EventKind.ACTION_STARTED), *each.lstrip("+-").split("/")) for each in told]


@pytest.mark.parametrize(
    ("told", "left"),
    [
        ((), []),
        (("claim/claim",), ["release-claim"]),
        (("claim/claim", "+claim/claim", "image/prepare"), ["release-claim"]),
        (("claim/claim", "image/place-disks", "-image/place-disks"), ["remove-disks", "release-claim"]),
        (("claim/claim", "image/deploy", "boot/boot"), ["tear-down", "erase", "release-claim"]),
        (("claim/claim", "image/place-disks", "boot/boot", "undo/tear-down"), EVERYTHING),
        (("claim/claim", "image/place-disks", "boot/boot", "+undo/tear-down"), ["remove-disks", "release-claim"]),
        (("claim/claim", "boot/boot", "+undo/tear-down", "boot/boot"), ["tear-down", "release-claim"]),
        (("claim/claim", "boot/boot", "record/ready"), []),
        (("claim/claim", "boot/boot", "record/ready", "-record/ready"), ["tear-down", "release-claim"]),
        (("record/releasing",), EVERYTHING),
        (("record/releasing", "+undo/tear-down"), ["remove-disks", "release-claim"]),
        (("record/releasing", "+undo/tear-down", "undo/erase"), ["erase", "release-claim"]),
        (("record/releasing", "+undo/tear-down", "undo/erase", "+undo/erase"), ["release-claim"]),
    ],
)  # fmt: skip
def test_the_undo_list_is_what_is_left_to_undo(told: tuple[str, ...], left: list[str]) -> None:
    """An undo counts from the moment its action began, to the moment it ended well."""
    assert [each.action for each in undo_list(acts(*told))] == left
    assert undo_list([*acts(*told), event(EventKind.RUN_FINISHED)]) == []


def test_a_run_is_held_until_something_happens() -> None:
    """Resumed, cancelled, undone or ended, it no longer waits for an operator."""
    held = event(EventKind.HELD, "record", "held")
    assert is_held([held])
    assert is_held([held, event(EventKind.LEVER_REFUSED)])
    for kind in (EventKind.RESUMED, EventKind.CANCEL_REQUESTED, EventKind.ACTION_STARTED, EventKind.RUN_FINISHED):
        assert not is_held([held, event(kind)])
        assert is_held([held, event(kind), held])


def test_a_progress_that_is_only_said_again_is_told_now_and_then() -> None:
    """A watcher sees that it is still said, and is not told with every heartbeat."""
    said = Progress(1, "verify", "observe", 1, "looking", observed_at=AT)
    assert is_news(None, said)
    soon = Progress(1, "verify", "observe", 1, "looking", observed_at=AT + timedelta(seconds=2))
    late = Progress(1, "verify", "observe", 1, "looking", observed_at=AT + timedelta(seconds=12))
    other = Progress(1, "verify", "observe", 1, "seen", observed_at=AT + timedelta(seconds=2))
    assert [is_news(said, each) for each in (soon, late, other)] == [False, True, True]
