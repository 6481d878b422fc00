"""`mulligan top` on a screen without a terminal: what is drawn, what the keys do, and what the API is asked for."""

from __future__ import annotations

import asyncio
import html
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from google.protobuf.message import Message
from textual.pilot import Pilot

from mulligan.api.cli.client import Session
from mulligan.api.cli.exit_codes import ExitCode
from mulligan.api.cli.top import app as app_module
from mulligan.api.cli.top import feeds
from mulligan.api.cli.top.app import TopApp
from mulligan.v1 import run_pb2
from tests.cli.fleet import LEVERS, Fleet, a_provider, a_run, booting
from tests.cli.scripted import ScriptedApi, event, refusal

ID = "provision:default:web-1"


def screen(app: TopApp) -> str:
    """The text on the screen, with single spaces between its words."""
    texts = re.findall(r"<text [^>]*>(.*?)</text>", app.export_screenshot())
    return " ".join(html.unescape(" ".join(texts)).split())


async def until(pilot: Pilot[Any], condition: Callable[[], object]) -> None:
    """Wait until the condition holds; fails with what is on the screen."""
    try:
        async with asyncio.timeout(30):
            while not condition():
                await pilot.pause(0.02)
    except TimeoutError:
        pytest.fail(screen(pilot.app))  # type: ignore[arg-type]


async def sees(pilot: Pilot[Any], *texts: str) -> None:
    """Wait until all of these are on the screen."""
    await until(pilot, lambda: all(text in screen(pilot.app) for text in texts))  # type: ignore[arg-type]


@asynccontextmanager
async def top(api: ScriptedApi, size: tuple[int, int] = (110, 40)) -> AsyncIterator[tuple[TopApp, Pilot[Any]]]:
    """The screen on this API, once it has answered."""
    with Session(api.address) as session:
        app = TopApp(session)
        async with app.run_test(size=size) as pilot:
            await sees(pilot, "in flight")
            yield app, pilot


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lists are read, and the screen is drawn, more often than an operator needs."""
    monkeypatch.setattr(app_module, "REDRAW_SECONDS", 0.1)
    monkeypatch.setattr(feeds, "RUNS_SECONDS", 0.3)
    monkeypatch.setattr(feeds, "PROVIDERS_SECONDS", 0.3)


@pytest.fixture
def fleet(api: ScriptedApi) -> Fleet:
    """A run that boots, and a provider."""
    made = Fleet(api)
    made.providers = [a_provider("hyp-1")]
    booting(made, "web-1")
    return made


async def pull(pilot: Pilot[Any], key: str, reason: str = "") -> None:
    """Press a lever's key, give a reason, and confirm."""
    await pilot.press(key)
    await sees(pilot, "leave it as it is")
    await pilot.press(*reason, "enter")


def asked(api: ScriptedApi, method: str) -> list[Message]:
    """Every request of this method so far."""
    return [request for name, request in api.asked if name == method]


@pytest.mark.parametrize("size", [(80, 24), (160, 50)])
async def test_runs_and_providers_are_drawn(api: ScriptedApi, fleet: Fleet, size: tuple[int, int]) -> None:
    """On the smallest screen and on a large one: where the run is, and how full the provider is."""
    fleet.providers.append(a_provider("hyp-2", quarantined="3 failures", suspect_count=3))
    async with top(api, size) as (_, pilot):
        await sees(pilot, "1 in flight", ":default:web-1", "boot runs", "4/16", "6/64", "quarantined: 3", "help")


@pytest.mark.parametrize("size", [(80, 12), (60, 10)])
async def test_on_a_small_screen_the_runs_and_the_reason_are_seen(
    api: ScriptedApi, fleet: Fleet, size: tuple[int, int]
) -> None:
    """With the whole id, which the table has no room for; the providers come in the runs' place, and go."""
    run = fleet.add(a_run("a-name-that-is-rather-long", age=900), event(1, "ACTION_STARTED", "boot", "boot"))
    fleet.tell(run, event(2, "HELD", "record", "held", "recorded as held: no power, and this is why"))
    async with top(api, size) as (app, pilot):
        await sees(
            pilot, "boot held", ":default:web-1", f"{run.workflow_id}: held: no power, and this is why", "? help"
        )
        assert "VCPU" not in screen(app)
        await pilot.press("tab")
        await sees(pilot, "VCPU", "4/16", "no power, and this is why")
        assert "STEP" not in screen(app)
        await pilot.press("tab", "down")
        await sees(pilot, "STEP", f"{ID}: runs")
        await pilot.press("enter")
        await sees(pilot, f"{ID} open")
        await pilot.press("h")
        await sees(pilot, "now: boot runs on hyp-1")


async def test_a_screen_that_is_made_narrow_keeps_its_keys_in_view(api: ScriptedApi, fleet: Fleet) -> None:
    """The last line has what fits, also right after a change of size."""
    async with top(api, (110, 24)) as (_, pilot):
        await sees(pilot, "a abort ? help")
        await pilot.resize_terminal(60, 24)
        await sees(pilot, "? help q leave")
        await pilot.resize_terminal(80, 24)
        await sees(pilot, "a abort ? help q")


async def test_a_run_that_was_terminated_is_shown_as_terminated(api: ScriptedApi, fleet: Fleet) -> None:
    """It is not in flight any more, although nothing of it was undone."""
    over = fleet.add(a_run("pulled", age=2000), event(1, "ACTION_STARTED", "boot", "boot"))
    fleet.end(over, "TERMINATED", "terminated from outside, without undo")
    async with top(api) as (_, pilot):
        await sees(pilot, "1 in flight")
        await pilot.press("e")
        await sees(pilot, "pulled")
        await pilot.press("down")
        await sees(pilot, "provision:default:pulled: terminated: terminated from outside, without undo")


async def test_the_details_tell_evidence_undo_and_what_may_help(api: ScriptedApi, fleet: Fleet) -> None:
    """Enter opens and closes them; on a small screen they take the place of the providers."""
    run = fleet.add(a_run("held-1", age=900), event(2, "ACTION_STARTED", "boot", "boot", provider="hyp-1"))
    suggestions = ["mulligan run resume provision:default:held-1"]
    fleet.tell(run, event(3, "HELD", "record", "held", "boot failed", suggestions=suggestions))
    async with top(api, (80, 24)) as (app, pilot):
        await sees(pilot, "boot held", "PARTITION")
        await pilot.press("enter")
        await sees(pilot, "run id one", "boot failed", suggestions[0], "a cancel would undo")
        assert "PARTITION" not in screen(app)
        await pilot.press("down")
        await sees(pilot, "provision:default:web-1", "▸ boot")
        await pilot.press("escape")
        await sees(pilot, "PARTITION")


@pytest.mark.parametrize(
    ("key", "method", "answer"),
    [
        ("c", "CancelRun", "it undoes tear-down, remove-disks, release-claim"),
        ("r", "RetryRunNow", "RetryRunNow was taken up"),
        ("R", "RetryRun", "a new run of provision:default:web-1 began"),
        ("h", "HoldRun", "HoldRun was taken up"),
        ("u", "ResumeRun", "ResumeRun was taken up"),
        ("x", "ExtendRun", "ExtendRun was taken up"),
        ("m", "TakeMulligan", "TakeMulligan was taken up"),
        ("a", "AbortRun", "AbortRun was taken up"),
    ],
)
async def test_each_lever_is_pulled_once_it_is_confirmed(
    api: ScriptedApi, fleet: Fleet, key: str, method: str, answer: str
) -> None:
    """Nothing is asked before; then the API is told which run, who and why, and its answer is shown."""
    async with top(api) as (_, pilot):
        await sees(pilot, "boot runs")
        await pilot.press(key)
        await sees(pilot, "leave it as it is", "now: boot runs on hyp-1")
        assert asked(api, method) == []
        await pilot.press(*"why", "enter")
        await sees(pilot, answer)
    request: Any = api.last(method)
    lever = request.lever if hasattr(request, "lever") else request
    assert (lever.workflow_id, lever.reason) == (ID, "why")
    assert "@" in lever.actor
    assert method == "RetryRun" or lever.run_id == "one"
    assert method != "ExtendRun" or request.seconds == 600


@pytest.mark.parametrize("key", ["c", "a", "m"])
async def test_what_would_be_undone_is_shown_before(api: ScriptedApi, fleet: Fleet, key: str) -> None:
    """In its order; Esc leaves the run as it is, and nothing was asked."""
    async with top(api) as (app, pilot):
        await sees(pilot, "boot runs")
        await pilot.press(key)
        await sees(pilot, "1. tear-down", "2. remove-disks", "3. release-claim")
        await pilot.press("escape")
        await sees(pilot, "left as it is")
        assert "leave it" not in screen(app)
    assert not {"CancelRun", "AbortRun", "TakeMulligan"} & {method for method, _ in api.asked}


async def test_a_refusal_is_shown_with_what_to_do_next(api: ScriptedApi, fleet: Fleet) -> None:
    """It is an answer like any other: the screen goes on."""
    message = "web-1 waits for nothing that could be retried"
    api.handlers["RetryRunNow"] = refusal("FAILED_PRECONDITION", message, "CONFLICT", remedy=f"mulligan run show {ID}")
    async with top(api) as (_, pilot):
        await sees(pilot, "boot runs")
        await pull(pilot, "r")
        await sees(pilot, f"refused: {message}", "mulligan run show")
        await pull(pilot, "h")
        await sees(pilot, "HoldRun was taken up")


@pytest.mark.parametrize("key", ["c", "r", "h", "u", "x", "m", "a"])
async def test_a_run_that_has_ended_is_not_asked_for_a_lever(api: ScriptedApi, fleet: Fleet, key: str) -> None:
    """Nothing is said of what would be undone, but how it ended, and what its end advises."""
    over = fleet.add(a_run("lost", age=2000), event(1, "ACTION_STARTED", "boot", "boot"))
    fleet.end(over, "TERMINATED", "terminated from outside", suggestions=["mulligan machine release lost"])
    async with top(api) as (app, pilot):
        await pilot.press("e")
        await sees(pilot, "provision:default:lost")
        await pilot.press("down")
        await sees(pilot, "lost: terminated: terminated from outside")
        await pilot.press(key)
        await sees(pilot, "lost: it has ended: terminated; next: mulligan machine release lost")
        assert "leave it as it is" not in screen(app)
    assert not {"CancelRun", "RetryRun", *LEVERS} & {method for method, _ in api.asked}


async def test_an_older_run_of_an_id_is_not_asked_for_afresh(api: ScriptedApi, fleet: Fleet) -> None:
    """The newest one is made afresh only; that is told before anything is asked."""
    over = fleet.add(a_run("lost", run_id="first", age=2000), event(1, "RUN_STARTED"))
    fleet.end(over, "CANCELLED", "cancelled", suggestions=[f"mulligan run retry {over.workflow_id}"])
    over.superseded = True
    booting(fleet, "lost")
    async with top(api) as (app, pilot):
        await pilot.press("e")
        await sees(pilot, "with ended runs", "✘")
        await pilot.press("end")
        await sees(pilot, "lost: cancelled: cancelled")
        await pilot.press("R")
        await sees(pilot, "retry afresh provision:default:lost: a newer run has its id")
        assert "leave it as it is" not in screen(app)
    assert asked(api, "RetryRun") == []


async def test_a_lever_without_a_run_says_so(api: ScriptedApi, fleet: Fleet) -> None:
    """There is nothing to confirm."""
    fleet.runs.clear()
    async with top(api) as (_, pilot):
        await pilot.press("c")
        await sees(pilot, "cancel: no run is selected")


async def test_the_lever_belongs_to_the_run_that_was_selected(api: ScriptedApi, fleet: Fleet) -> None:
    """Also when the list changes under the cursor: the oldest run is the first, and the cursor stays on its run."""
    async with top(api) as (app, pilot):
        await sees(pilot, "boot runs")
        booting(fleet, "older", age=900)
        await sees(pilot, "2 in flight", "older")
        assert app.board.selected is not None
        assert app.board.selected.key.workflow_id == ID
        await pilot.press("up")
        await pull(pilot, "h")
        await sees(pilot, "hold provision:default:older: HoldRun was taken up")


async def test_the_filter_narrows_each_table_by_itself(api: ScriptedApi, fleet: Fleet) -> None:
    """While it is typed; Enter keeps it, Esc clears it. Tab goes to the providers, and `/` then filters them."""
    fleet.providers.append(a_provider("rack-7"))
    booting(fleet, "db-1")
    async with top(api) as (app, pilot):
        await sees(pilot, "2 in flight", "db-1", "web-1")
        await pilot.press("slash", *"web")
        await sees(pilot, "1 with “web”")
        assert "db-1" not in screen(app)
        await pilot.press("enter", "escape")
        await sees(pilot, "db-1")
        await pilot.press("tab", "slash", *"rack")
        await sees(pilot, "providers with “rack”", "db-1", "web-1")
        assert not any(
            "hyp-1" in str(app.board.providers.get_row_at(n)[0]) for n in range(app.board.providers.row_count)
        )
        await pilot.press("escape")
        await until(pilot, lambda: app.board.providers.row_count == 2)


async def test_ended_runs_are_shown_when_asked_for_and_retried(api: ScriptedApi, fleet: Fleet) -> None:
    """Their story is read once they are selected; `R` makes a failed one again."""
    over = fleet.add(a_run("lost", age=2000), event(1, "ACTION_FAILED", "boot", "boot", "no power"))
    fleet.end(over, "FAILED", "no power, and everything was undone")
    async with top(api) as (app, pilot):
        await sees(pilot, "1 in flight")
        assert "lost" not in screen(app)
        await pilot.press("e")
        await sees(pilot, "with ended runs", "provision:default:lost", "✘")
        await pilot.press("down")
        await sees(pilot, "no power, and everything was undone")
        await pull(pilot, "R")
        await sees(pilot, "a new run of provision:default:lost began")
        assert app.board.selected is not None and app.board.selected.key.run_id == over.run_id
        fleet.add(a_run("lost", run_id="again", age=1))
        await until(pilot, lambda: app.board.selected is not None and app.board.selected.key.run_id == "again")
        await pilot.press("e")
        await until(pilot, lambda: app.board.runs.row_count == 2)


async def test_an_api_that_goes_away_comes_back_by_itself(api: ScriptedApi, fleet: Fleet) -> None:
    """What was known stays on the screen; a lever that is pulled meanwhile says why it was not."""
    async with top(api) as (_, pilot):
        await sees(pilot, "boot runs")
        api.stop()
        await sees(pilot, "disconnected, reconnecting", "web-1")
        await pull(pilot, "h")
        await sees(pilot, "the API does not answer")
        api.start()
        await sees(pilot, "1 in flight")


async def test_what_others_say_cannot_draw(api: ScriptedApi, fleet: Fleet) -> None:
    """Control characters and markup in a run's words are shown as they are, or not at all."""
    evil = a_run("evil")
    words = "[bold red]\x1b[31mred\x1b[0m [/nothing]"
    fleet.add(evil, event(1, "ACTION_STARTED", "boot", "boot", words, provider="hyp-1", suggestions=[words]))
    fleet.tell(evil, event(2, "HELD", "record", "held", words, suggestions=[words]))
    async with top(api) as (app, pilot):
        await sees(pilot, "evil")
        await pilot.press("down", "enter")
        await sees(pilot, "[bold red]", "[/nothing]")
        await pilot.press("c")
        await sees(pilot, "leave it as it is")
        assert "\x1b" not in screen(app)


@pytest.mark.parametrize(("key", "code"), [("q", ExitCode.OK), ("ctrl+c", ExitCode.DETACHED)])
async def test_leaving_changes_no_run(api: ScriptedApi, fleet: Fleet, key: str, code: ExitCode) -> None:
    """`q` and Ctrl-C leave, the latter also while a question is open; each stream is closed."""
    async with top(api) as (app, pilot):
        await sees(pilot, "boot runs")
        if key != "q":
            await pilot.press("c")
            await sees(pilot, "leave it as it is")
        await pilot.press(key)
        await until(pilot, lambda: not app.is_running)
    assert app.return_value is code
    reads = {"ListRuns", "ListProviders", "WatchRun", "GetRun"}
    assert {method for method, _ in api.asked} <= reads


async def test_help_names_every_key(api: ScriptedApi, fleet: Fleet) -> None:
    """Every lever is in it, and Esc closes it."""
    async with top(api, (80, 24)) as (app, pilot):
        await pilot.press("question_mark")
        await sees(pilot, "retry afresh", "mulligan:", "abort:", "extend:", "q Ctrl-C", "Every lever asks first")
        await pilot.press("escape")
        await until(pilot, lambda: "Every lever asks first" not in screen(app))


async def test_many_runs_are_drawn_and_scrolled(api: ScriptedApi, fleet: Fleet) -> None:
    """The last of three hundred is one key away."""
    for number in range(300):
        run = a_run(f"many-{number}", age=50 - number / 10)
        fleet.add(run, event(1, "RUN_STARTED"))
    async with top(api) as (app, pilot):
        await sees(pilot, "301 in flight")
        await pilot.press("end")
        await until(
            pilot, lambda: app.board.selected is not None and app.board.selected.run.machine.startswith("many-2")
        )
        assert fleet.runs[ID, "one"].outcome == run_pb2.RUN_OUTCOME_OPEN
