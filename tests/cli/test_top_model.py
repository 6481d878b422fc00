"""What `mulligan top` knows: runs and providers folded into rows, kept up to date from the API, on no terminal."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from mulligan.api.cli.client import Session
from mulligan.api.cli.top import cells, feeds, model
from mulligan.api.cli.top.api import Api
from mulligan.api.cli.top.row import Key, Row
from mulligan.v1 import run_pb2
from tests.cli.fleet import Fleet, a_provider, a_run, booting
from tests.cli.scripted import ScriptedApi, event


async def until(condition: Callable[[], object]) -> None:
    """Wait until the condition holds."""
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - what changes it is the API, in threads
            await asyncio.sleep(0.02)


@asynccontextmanager
async def fed(api: ScriptedApi) -> AsyncIterator[model.Model]:
    """A model that is kept up to date from this API."""
    known = model.Model()
    with Session(api.address) as session:
        async with Api(session) as asked:
            feeding = asyncio.create_task(feeds.Feeds(asked, known).run())
            yield known
            feeding.cancel()
            await asyncio.gather(feeding, return_exceptions=True)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lists are read more often than an operator needs."""
    monkeypatch.setattr(feeds, "RUNS_SECONDS", 0.2)
    monkeypatch.setattr(feeds, "PROVIDERS_SECONDS", 0.2)


def told(*updates: run_pb2.RunUpdate) -> Row:
    """A row that was told this."""
    row = Row(a_run("web-1"))
    for update in updates:
        row.feed(update)
    return row


def doing(step: str = "boot", **more: object) -> run_pb2.RunUpdate:
    """What the step's action says of itself."""
    fields = {"try": 1, "attempt": 1, **more}
    return run_pb2.RunUpdate(progress=run_pb2.RunProgress(step=step, action=step, **fields))  # type: ignore[arg-type]


BOOT = event(2, "ACTION_STARTED", "boot", "boot", provider="hyp-1")


async def test_runs_and_providers_arrive_and_go_on(api: ScriptedApi) -> None:
    """A run's step comes from its stream, and follows it; its end is seen, and the row stays for a while."""
    fleet = Fleet(api)
    fleet.providers = [a_provider("hyp-1")]
    run = booting(fleet, "web-1")
    async with fed(api) as known:
        await until(lambda: known.runs() and known.runs()[0].state() == "runs" and known.providers())
        row = known.runs()[0]
        assert (row.provider, row.state(), row.key) == ("hyp-1", "runs", Key(run.workflow_id, run.run_id))
        fleet.tell(
            run, event(7, "ACTION_FINISHED", "boot", "boot", "power is on"), event(8, "ACTION_STARTED", "verify")
        )
        await until(lambda: row.step() == "verify")
        fleet.end(run, "READY", "web-1 is up")
        await until(lambda: row.is_over)
        assert known.runs() == [row]
        assert (known.open_count, row.outcome, row.says(time.time())) == (0, "ready", "web-1 is up")
        assert known.to_stream() == []


async def test_an_api_that_goes_away_is_told_of_and_comes_back(api: ScriptedApi) -> None:
    """Meanwhile the rows stay; afterwards the stream goes on from its cursor, without a repeat."""
    fleet = Fleet(api)
    run = booting(fleet, "web-1")
    async with fed(api) as known:
        await until(lambda: known.runs() and known.runs()[0].events)
        api.stop()
        await until(lambda: known.trouble)
        assert "does not answer" in known.trouble
        assert known.answered_once
        fleet.tell(run, event(7, "SLOW", "boot", "boot", "the boot is slow"))
        assert len(known.runs()) == 1
        api.start()
        await until(lambda: not known.trouble and known.runs()[0].state() == "slow")
        cursors = [each.cursor for each in known.runs()[0].events]
        assert cursors == ["1", "2", "3", "4", "5", "6", "7"]


async def test_a_run_that_vanished_is_looked_up(api: ScriptedApi, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a stream of its own, its end is read; one that the API has forgotten goes from the screen."""
    monkeypatch.setattr(model, "MOST_STREAMS", 0)
    fleet = Fleet(api)
    ends, goes = booting(fleet, "ends"), booting(fleet, "goes")
    async with fed(api) as known:
        await until(lambda: len([row for row in known.runs() if row.events]) == 2)
        ends.outcome = run_pb2.RUN_OUTCOME_FAILED
        del fleet.runs[goes.workflow_id, goes.run_id]
        await until(lambda: [row.outcome for row in known.runs()] == ["failed"])
    assert not any(method == "WatchRun" for method, _ in api.asked)


async def test_only_so_many_runs_are_streamed_and_the_others_are_read(
    api: ScriptedApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is on the screen is streamed before the rest; the story of the rest is read, one after the other."""
    monkeypatch.setattr(model, "MOST_STREAMS", 2)
    fleet = Fleet(api)
    runs = [booting(fleet, f"web-{number}") for number in range(9)]
    async with fed(api) as known:
        known.on_screen = (Key(runs[0].workflow_id, runs[0].run_id),)
        await until(lambda: len([row for row in known.runs() if row.step() == "boot"]) == 9)
        streamed = {request.workflow_id for method, request in api.asked if method == "WatchRun"}  # type: ignore[attr-defined]
        assert len(streamed) == 2
        assert runs[0].workflow_id in streamed


def test_ended_runs_are_shown_only_when_asked_for() -> None:
    """They stand below those in flight, the newest first; of a name that was tried twice, both."""
    known, flying, over = model.Model(), a_run("web-1", age=9), a_run("web-2")
    over.outcome = run_pb2.RUN_OUTCOME_FAILED
    older = a_run("web-2", run_id="older")
    older.outcome = run_pb2.RUN_OUTCOME_CANCELLED
    known.shows_ended = True
    known.listed_open([flying])
    known.listed_ended([flying, over, older])
    assert [row.outcome for row in known.runs()] == ["open", "failed", "cancelled"]
    known.shows_ended = False
    known.listed_open([flying])
    assert [row.outcome for row in known.runs()] == ["open"]


def test_a_run_that_ended_stays_for_a_moment_and_goes() -> None:
    """Its end is seen even by whoever does not ask for ended runs."""
    now = [100.0]
    known, run = model.Model(clock=lambda: now[0]), a_run("web-1")
    known.listed_open([run])
    known.feed(Key(run.workflow_id, run.run_id), event(5, "RUN_FINISHED", outcome=run_pb2.RUN_OUTCOME_READY))
    known.listed_open([])
    assert [row.outcome for row in known.runs()] == ["ready"]
    now[0] += model.LINGER_SECONDS + 1
    known.listed_open([])
    assert known.runs() == []


@pytest.mark.parametrize(
    ("text", "found"),
    [("WEB", 1), ("hyp-1", 1), ("boot", 1), ("default", 2), ("held", 1), ("no such thing", 0), ("", 2)],
)
def test_the_filter_looks_at_id_machine_project_provider_and_step(text: str, found: int) -> None:
    """A substring, in whatever case; held runs are found as well."""
    known, web, held = model.Model(), a_run("web-1"), a_run("db-1")
    known.listed_open([web, held])
    known.feed(Key(web.workflow_id, web.run_id), BOOT)
    known.feed(Key(held.workflow_id, held.run_id), event(2, "HELD", message="held"))
    known.filters["runs"] = text
    assert len(known.runs()) == found


@pytest.mark.parametrize(
    ("updates", "state", "mark", "says"),
    [
        ((BOOT, doing(message="awaiting the console")), "runs", " ", "awaiting the console"),
        ((BOOT, event(3, "AWAITING", "boot", message="awaiting a worker")), "runs", " ", "awaiting a worker"),
        ((BOOT, event(3, "SLOW", "boot", "boot", "boot is slow")), "slow", "!", "boot is slow"),
        ((BOOT, doing(slower_than_p95=True, message="power is on")), "slow", "!", "power is on"),
        ((event(3, "HELD", "record", "held", "boot failed; look at it"),), "held", "‖", "boot failed; look at it"),
        ((BOOT, event(3, "CANCEL_REQUESTED", message="cancel")), "runs", "×", ""),
        ((event(3, "RUN_FINISHED", message="no power", outcome=4),), "failed", "✘", "no power"),
    ],
)
def test_a_row_says_how_its_run_goes(updates: tuple[run_pb2.RunUpdate, ...], state: str, mark: str, says: str) -> None:
    """One word for the state, one sign at its beginning, and what it awaits or why it failed."""
    row = told(*updates)
    assert (row.state(), cells.mark(row), row.says(time.time())) == (state, mark, says)


def test_a_wait_for_the_next_attempt_counts_down() -> None:
    """The row says when it is tried again, which attempt it will be, and why the last one failed."""
    waiting = doing(attempt=3, last_failure="Busy: 503")
    waiting.progress.next_attempt_at.seconds = 1_000
    row = told(BOOT, waiting)
    assert (row.state(), row.attempt(), row.says(990)) == ("retries", 3, "again in 10 s: Busy: 503")
    assert row.says(2_000) == "again now: Busy: 503"


def test_a_held_run_that_goes_on_is_not_held_any_more() -> None:
    """A lever that was refused is not going on."""
    row = told(BOOT, event(3, "HELD", "record", "held", "held"), event(4, "LEVER_REFUSED", message="no"))
    assert row.is_held
    row.feed(event(6, "RESUMED", "record", "resumed", "goes on"))
    assert not row.is_held


async def test_a_run_that_was_reset_ends_in_its_own_row(api: ScriptedApi) -> None:
    """Its stream goes on with the new execution, which has a row of its own, and is not taken for this one."""
    fleet = Fleet(api)
    old = booting(fleet, "web-1")
    async with fed(api) as known:
        await until(lambda: fleet.streams)
        fleet.tell(old, run_pb2.RunUpdate(run=a_run("web-1", run_id="two", age=20)))
        row = known.row(Key(old.workflow_id, old.run_id))
        assert row is not None
        await until(lambda: not fleet.streams or row.run.run_id != old.run_id)
        assert row.run.run_id == old.run_id
        old.outcome = run_pb2.RUN_OUTCOME_TERMINATED
        await until(lambda: row.is_over)


def test_nothing_is_suggested_for_a_run_of_whose_end_only_the_list_told() -> None:
    """What helped while it went on helps no more."""
    row = told(BOOT, event(3, "SLOW", "boot", "boot", suggestions=["mulligan run extend web-1 --by 10m"]))
    assert row.suggestions
    row.feed(run_pb2.RunUpdate(run=run_pb2.Run(run_id="one", outcome=run_pb2.RUN_OUTCOME_TERMINATED)))
    assert row.suggestions == ()
    row.feed(event(9, "RUN_FINISHED", outcome=run_pb2.RUN_OUTCOME_TERMINATED, suggestions=["mulligan machine release"]))
    assert row.suggestions == ("mulligan machine release",)


def test_the_undo_list_is_what_was_begun_and_not_undone() -> None:
    """In the order in which it would be undone; what has no undo is not in it."""
    row = told(
        event(1, "ACTION_STARTED", "claim", "claim"),
        event(2, "ACTION_STARTED", "image", "prepare"),
        event(3, "ACTION_STARTED", "image", "place-disks"),
        event(4, "ACTION_STARTED", "boot", "boot"),
        event(5, "ACTION_FINISHED", "undo", "tear-down"),
    )
    assert [each.action for each in row.undo()] == ["remove-disks", "release-claim"]


@pytest.mark.parametrize("width", [80, 100, 120, 200])
def test_the_columns_fill_the_screen_exactly(width: int) -> None:
    """Whatever its width, from 80 on."""
    for columns in (cells.run_columns(width), cells.provider_columns(width)):
        assert sum(column.width for column in columns) + len(columns) - 1 == width


@pytest.mark.parametrize(
    ("used", "drawn"), [(0, "░░░░"), (1, "█░░░"), (50, "██░░"), (99, "███░"), (100, "████"), (120, "████")]
)
def test_a_bar_is_full_only_when_all_is_used(used: int, drawn: str) -> None:
    """And what is used shows, however little it is."""
    assert cells.bar(used, 100, 4) == drawn


def test_an_id_that_is_too_long_keeps_the_name_of_its_machine() -> None:
    """On a narrow screen the kind is shortened first."""
    column = cells.run_columns(80)[1]
    assert column.text(Row(a_run("web-1")), 0) == "pro…:default:web-1"
    assert column.text(Row(a_run("a-machine-with-a-long-name")), 0).endswith("-with-a-long-name")
