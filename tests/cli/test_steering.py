"""The commands that steer runs: what they ask of the API, what they say, and the story that `run show` tells."""

from __future__ import annotations

import getpass
import json
import re
import threading
from pathlib import Path
from typing import Any

import pytest

from mulligan.activities.levers import GIVEN_UP
from mulligan.api.cli.exit_codes import ExitCode
from mulligan.api.cli.story import story_lines
from mulligan.api.cli.view import RunView
from mulligan.v1 import machine_pb2, run_pb2
from mulligan.v1 import provisioning_pb2 as pb
from tests.cli.conftest import Mulligan
from tests.cli.scripted import ID, ScriptedApi, event, evidence, refusal, run_update, stays_open, story, watches
from tests.cli.terminal import CTRL_C, Terminal

BY = ("--actor", "alice", "--reason", "a test")
LEVER = pb.LeverRequest(workflow_id=ID, actor="alice", reason="a test")
UNDO = [
    pb.UndoAction(action="tear-down", description="switch the machine off and remove it", undoes="boot"),
    pb.UndoAction(action="release-claim", description="give the claim back", undoes="claim"),
]
HELD = event(20, "HELD", "record", "held", "it did not boot", suggestions=[f"mulligan run resume {ID}"])


def answers(api: ScriptedApi, method: str, said: str = "it does", **more: Any) -> None:
    """Let a lever be answered so; its run is open, and known."""
    response = getattr(pb, f"{method}Response")
    answer = pb.LeverAnswer(run=run_update().run, said=said)
    api.handlers[method] = lambda request, context: response(answer=answer, **more)
    api.handlers["GetRun"] = lambda request, context: pb.GetRunResponse(run=run_update().run)


@pytest.mark.parametrize(
    ("words", "method", "asked"),
    [
        (("retry-now",), "RetryRunNow", pb.RetryRunNowRequest(lever=LEVER)),
        (("hold", "--before", "boot"), "HoldRun", pb.HoldRunRequest(lever=LEVER, before_step="boot")),
        (("hold",), "HoldRun", pb.HoldRunRequest(lever=LEVER)),
        (("extend", "--by", "10m"), "ExtendRun", pb.ExtendRunRequest(lever=LEVER, seconds=600)),
        (("extend", "--by", "2h"), "ExtendRun", pb.ExtendRunRequest(lever=LEVER, seconds=7200)),
        (("extend", "--by", "9", "--run"), "ExtendRun", pb.ExtendRunRequest(lever=LEVER, seconds=9, whole_run=True)),
        (("resume", "--from", "image", "--no-watch"), "ResumeRun", pb.ResumeRunRequest(lever=LEVER, from_step="image")),
        (("mulligan", "--no-watch"), "TakeMulligan", pb.TakeMulliganRequest(lever=LEVER)),
        (("abort", "--no-watch"), "AbortRun", pb.AbortRunRequest(lever=LEVER)),
    ],
)  # fmt: skip
def test_a_lever_is_pulled_and_answered(
    api: ScriptedApi, mulligan: Mulligan, words: tuple[str, ...], method: str, asked: Any
) -> None:
    """Who asks, why and what; the run's own words are the answer."""
    answers(api, method, "it does what was asked")
    done = mulligan("run", *words, ID, *BY)
    assert (done.returncode, done.stdout) == (ExitCode.OK, f"{ID}: it does what was asked\n")
    assert f"next: mulligan run watch {ID}" in done.stderr
    assert api.last(method) == asked


def test_the_actor_is_this_user_unless_told(api: ScriptedApi, mulligan: Mulligan) -> None:
    """`user@host`; programs get the answer as JSON."""
    answers(api, "HoldRun", "it will be held")
    told = json.loads(mulligan("run", "hold", ID, "--output", "json").stdout)
    assert told["answer"]["said"] == "it will be held"
    assert api.last("HoldRun").lever.actor.startswith(f"{getpass.getuser()}@")


def test_a_refusal_says_why_and_what_to_do(api: ScriptedApi, mulligan: Mulligan) -> None:
    """A conflict has its exit code, and the command that helps."""
    why = f"{ID} has ended failed"
    api.handlers["HoldRun"] = refusal("FAILED_PRECONDITION", why, "CONFLICT", remedy=f"mulligan run retry {ID}")
    done = mulligan("run", "hold", ID)
    assert done.returncode == ExitCode.CONFLICT
    assert why in done.stderr
    assert f"next: mulligan run retry {ID}" in done.stderr


def test_a_resumed_run_is_watched_to_its_end(api: ScriptedApi, mulligan: Mulligan) -> None:
    """Only what comes after is shown, and its end is the command's."""
    answers(api, "ResumeRun", "it goes on with boot")
    before = [update.event for update in [*story()[:7], HELD] if update.HasField("event")]
    api.handlers["GetRun"] = lambda request, context: pb.GetRunResponse(run=run_update().run, events=before)
    after = [
        event(21, "LEVER_PULLED", message="go on, by alice: mended"),
        event(22, "RESUMED", "record", "resumed", "Go on"),
        event(23, "ACTION_STARTED", "boot", "boot", provider="hyp-1"),
        event(24, "ACTION_FINISHED", "boot", "boot", "it is on", provider="hyp-1", attempts=1),
        event(25, "RUN_FINISHED", outcome=run_pb2.RUN_OUTCOME_READY),
        run_update("READY"),
    ]
    api.handlers["WatchRun"] = watches([run_update(), *story()[1:7], HELD, *after])
    done = mulligan("run", "resume", ID, *BY)
    assert done.returncode == ExitCode.OK, done.stderr
    assert f"{ID}: it goes on with boot" in done.stdout
    assert "lever: go on, by alice: mended" in done.stderr
    assert "claimed hyp-1" not in done.stderr
    assert api.last("WatchRun").cursor == "20"


def test_a_run_that_is_held_again_ends_the_command(api: ScriptedApi, mulligan: Mulligan) -> None:
    """With what can be done, the likeliest first."""
    answers(api, "ResumeRun")
    api.handlers["WatchRun"] = watches([run_update(), HELD])
    done = mulligan("run", "resume", ID)
    assert done.returncode == ExitCode.HELD
    assert "it did not boot" in done.stderr
    assert f"next: mulligan run resume {ID}" in done.stderr
    assert f"or: mulligan run cancel {ID}" in done.stderr


@pytest.mark.parametrize(
    ("outcome", "code"),
    [("FAILED", ExitCode.OK), ("QUARANTINED", ExitCode.QUARANTINED), ("READY", ExitCode.CONFLICT)],
)
def test_an_abort_ends_well_when_nothing_is_left(
    api: ScriptedApi, mulligan: Mulligan, outcome: str, code: ExitCode
) -> None:
    """The undo list is said at once; a machine that came up all the same is a conflict."""
    answers(api, "AbortRun", "it fails now", undo=UNDO)
    last = event(30, "RUN_FINISHED", outcome=run_pb2.RunOutcome.Value(f"RUN_OUTCOME_{outcome}"), reason="ABORTED")
    api.handlers["WatchRun"] = watches([run_update(), last, run_update(outcome)])
    done = mulligan("run", "abort", ID, *BY)
    assert done.returncode == code, done.stderr
    assert "  1. tear-down: switch the machine off and remove it (undoes boot)\n  2. release-claim" in done.stdout


def test_a_cancel_says_at_once_what_it_undoes(api: ScriptedApi, mulligan: Mulligan) -> None:
    """For people in order, for programs in the answer."""
    answers(api, "AbortRun")
    answer = pb.CancelRunResponse(run=run_update().run, undo=UNDO, said="cancel requested")
    api.handlers["CancelRun"] = lambda request, context: answer
    done = mulligan("run", "cancel", ID, "--no-watch", *BY)
    assert done.returncode == ExitCode.OK
    assert "will be undone, in this order:\n  1. tear-down" in done.stdout
    asked = api.last("CancelRun")
    assert (asked.actor, asked.reason) == ("alice", "a test")
    told = json.loads(mulligan("run", "cancel", ID, "--no-watch", "--output", "json").stdout)
    assert [undo["action"] for undo in told["undo"]] == ["tear-down", "release-claim"]


@pytest.mark.parametrize("said", ["cancel requested", "it is being cancelled already, since when by bob: no"])
def test_a_cancel_tells_what_came_of_it(api: ScriptedApi, mulligan: Mulligan, said: str) -> None:
    """In the words of the API, which knows whose cancel was the first."""
    api.handlers["GetRun"] = lambda request, context: pb.GetRunResponse(run=run_update().run)
    api.handlers["CancelRun"] = lambda request, context: pb.CancelRunResponse(run=run_update().run, said=said)
    done = mulligan("run", "cancel", ID, *BY, "--no-watch")
    assert (done.returncode, done.stdout) == (ExitCode.OK, f"{ID}: {said}\n")


@pytest.mark.parametrize(
    ("now", "code", "said"),
    [
        ("a-machine READY", ExitCode.CONFLICT, "next: mulligan machine release web-1"),
        ("a-machine RELEASED", ExitCode.OK, "was released since"),
        ("another READY", ExitCode.OK, "was released since"),
        ("", ExitCode.OK, "was released since"),
    ],
)
def test_a_cancel_advises_a_release_only_while_the_runs_machine_is_there(
    api: ScriptedApi, mulligan: Mulligan, now: str, code: ExitCode, said: str
) -> None:
    """Not once it was released: what has its name now, if anything, is another machine."""
    run = run_update("READY").run
    run.machine_id = "a-machine"
    api.handlers["GetRun"] = lambda request, context: pb.GetRunResponse(run=run)
    api.handlers["CancelRun"] = lambda request, context: pb.CancelRunResponse(run=run)
    api.handlers["GetMachine"] = refusal("NOT_FOUND", "there is no machine web-1", "NOT_FOUND")
    if now:
        of, state = now.split()
        found = machine_pb2.Machine(id=of, name="web-1", state=machine_pb2.MachineState.Value(f"MACHINE_STATE_{state}"))
        api.handlers["GetMachine"] = lambda request, context: pb.GetMachineResponse(machine=found)
    done = mulligan("run", "cancel", ID)
    assert done.returncode == code
    assert said in done.stderr
    assert ("machine release" in done.stderr) is (code is ExitCode.CONFLICT)


def test_a_cancel_of_a_terminated_run_says_that_nothing_was_undone(api: ScriptedApi, mulligan: Mulligan) -> None:
    """Its exit code is that of the run, and the release comes next; where the machine is listed, it says so too."""
    run, release = run_update("TERMINATED").run, "mulligan machine release web-1 --project default"
    last = event(20, "RUN_FINISHED", outcome=run.outcome, reason="TERMINATED", suggestions=[release]).event
    api.handlers["GetRun"] = lambda request, context: pb.GetRunResponse(run=run, events=[last])
    api.handlers["CancelRun"] = lambda request, context: pb.CancelRunResponse(
        run=run, said="had ended before: terminated"
    )
    done = mulligan("run", "cancel", ID)
    assert done.returncode == ExitCode.TERMINATED
    assert "had ended before: terminated" in done.stderr
    assert f"next: {release}" in done.stderr
    left = machine_pb2.Machine(id="a-machine", name="web-1", workflow_id=ID)
    left.state = machine_pb2.MACHINE_STATE_PROVISIONING
    api.handlers["ListRuns"] = lambda request, context: iter([])
    api.handlers["ListMachines"] = lambda request, context: iter([pb.ListMachinesResponse(machine=left)])
    assert "provisioning, its run was terminated" in " ".join(mulligan("machine", "list").stdout.split())


def test_an_abort_of_an_undo_says_what_is_quarantined(api: ScriptedApi, mulligan: Mulligan) -> None:
    """Not that it will be undone: nobody tries that any longer."""
    answers(api, "AbortRun", GIVEN_UP, undo=UNDO)
    shown = mulligan("run", "abort", ID, "--no-watch").stdout
    assert "will be quarantined unless its last attempt undoes it:\n  1. tear-down" in shown
    assert "will be undone" not in shown


def test_a_retry_watches_the_new_run(api: ScriptedApi, mulligan: Mulligan) -> None:
    """From its beginning, to its end."""
    api.handlers["RetryRun"] = lambda request, context: pb.RetryRunResponse(run=run_update().run)
    api.handlers["WatchRun"] = watches(story())
    done = mulligan("run", "retry", ID, *BY)
    assert done.returncode == ExitCode.OK
    assert "machine web-1 is up on hyp-1" in done.stdout
    assert api.last("RetryRun") == pb.RetryRunRequest(workflow_id=ID, actor="alice", reason="a test")
    assert api.last("WatchRun") == pb.WatchRunRequest(workflow_id=ID, run_id="a-run")


def test_a_story_tells_each_try_and_why_its_provider_was_left() -> None:
    """Times, attempts, evidence and undo; levers where they were pulled."""
    second = {"try": 2, "provider": "hyp-2"}
    events = [
        event(1, "RUN_STARTED", message="run started"),
        event(2, "ACTION_STARTED", "claim", "claim"),
        event(3, "ACTION_FINISHED", "claim", "claim", "claimed hyp-1", provider="hyp-1", attempts=1),
        event(4, "ACTION_STARTED", "boot", "boot", provider="hyp-1"),
        event(9, "ACTION_FAILED", "boot", "boot", "no answer", provider="hyp-1", attempts=3, reason="UNREACHABLE"),
        event(10, "ACTION_STARTED", "undo", "tear-down", provider="hyp-1"),
        event(12, "ACTION_FINISHED", "undo", "tear-down", "it is gone", provider="hyp-1", attempts=1),
        event(13, "ACTION_STARTED", "claim", "claim", **{"try": 2}),
        event(14, "ACTION_FINISHED", "claim", "claim", "claimed hyp-2", attempts=1, **second),
        event(14, "ACTION_STARTED", "image", "prepare", **second),
        event(15, "ACTION_FAILED", "image", "prepare", "stopped", reason="CANCELLED", **second),
        event(15, "LEVER_PULLED", message="hold before boot, by alice", **second),
        event(16, "ACTION_STARTED", "record", "held", **second),
        event(17, "HELD", "record", "held", "held before boot by alice", **second),
        event(18, "ACTION_STARTED", "record", "resumed", **second),
        event(19, "RESUMED", "record", "resumed", "Go on", **second),
        event(20, "ACTION_STARTED", "verify", "observe", **second),
        event(21, "ACTION_FINISHED", "verify", "observe", "up", attempts=1, evidence=[evidence()], **second),
        event(22, "RUN_FINISHED", message="web-1 is up", outcome=run_pb2.RUN_OUTCOME_READY, **second),
    ]
    response = pb.GetRunResponse(run=run_update("READY").run, events=[each.event for each in events])
    told = [" ".join(line.split()) for line in story_lines(response)]
    assert told == [
        "try 1 on hyp-1",
        "2026-09-21T14:13:21Z run started",
        "2026-09-21T14:13:22Z claim 1.0 s claimed hyp-1",
        "2026-09-21T14:13:24Z boot 5.0 s FAILED: no answer [UNREACHABLE] [3 attempts]",
        "2026-09-21T14:13:30Z undo/tear-down 2.0 s it is gone",
        "left hyp-1: boot: no answer",
        "try 2 on hyp-2",
        "2026-09-21T14:13:33Z claim 1.0 s claimed hyp-2",
        "2026-09-21T14:13:34Z image/prepare 1.0 s stopped",
        "2026-09-21T14:13:35Z lever: hold before boot, by alice",
        "2026-09-21T14:13:37Z record/held HELD: held before boot by alice",
        "2026-09-21T14:13:39Z record/resumed resumed: Go on",
        "2026-09-21T14:13:40Z verify/observe 1.0 s up",
        "2026-09-21T14:13:30Z saw address: dhcp-lease: leased 192.0.2.10 to 52:54:00:00:00:01",
        "2026-09-21T14:13:42Z run ended: ready: web-1 is up",
    ]


@pytest.mark.parametrize(
    ("is_so", "said"),
    [
        ({"cancel_requested": True, "undoing": True, "held": True}, "being cancelled"),
        ({"undoing": True}, "undoing"),
        ({"held": True}, "held"),
        ({}, ""),
    ],
    ids=["cancelled", "undoing", "held", "open"],
)
def test_a_run_that_undoes_never_looks_like_an_ordinary_open_one(
    api: ScriptedApi, mulligan: Mulligan, is_so: dict[str, bool], said: str
) -> None:
    """In every list and every page where it, or its machine, is shown; nor does a cancel look like the other two."""
    run = run_update().run
    run.MergeFrom(run_pb2.Run(**is_so))
    held = machine_pb2.MACHINE_STATE_HELD if is_so.get("held") else machine_pb2.MACHINE_STATE_PROVISIONING
    made = machine_pb2.Machine(id="a-machine", project="default", name="web-1", state=held)
    api.handlers["ListRuns"] = lambda request, context: iter([pb.ListRunsResponse(run=run)])
    api.handlers["GetRun"] = lambda request, context: pb.GetRunResponse(run=run)
    api.handlers["ListMachines"] = lambda request, context: iter([pb.ListMachinesResponse(machine=made)])
    api.handlers["GetMachine"] = lambda request, context: pb.GetMachineResponse(machine=made)
    others = {"being cancelled", "undoing"} - {said}
    for command in (("run", "list"), ("run", "show", ID)):
        shown = " ".join(mulligan(*command).stdout.split())
        assert f"open, {said}" in shown if said else "open" in shown and "open," not in shown
        assert not any(other in shown for other in others)
    for command in (("machine", "list"), ("machine", "show", "web-1")):
        shown = " ".join(mulligan(*command).stdout.split())
        state = "held" if is_so.get("held") else "provisioning"
        assert (f"{state}, {said}" in shown) == (said in ("being cancelled", "undoing"))
        assert not any(other in shown for other in others)


def test_an_open_run_says_what_it_awaits_and_what_may_help(api: ScriptedApi, mulligan: Mulligan) -> None:
    """What was last observed and when, the next attempt, the commands, and what a cancel would undo."""
    progress = run_pb2.RunProgress(step="boot", action="boot", attempt=3, message="no power", last_failure="busy")
    progress.observed_at.seconds = progress.next_attempt_at.seconds = 1_790_000_100
    progress.suggestions.append(f"mulligan run retry-now {ID}")
    response = pb.GetRunResponse(run=run_update().run, progress=[progress], undo=UNDO)
    api.handlers["GetRun"] = lambda request, context: response
    shown = mulligan("run", "show", ID).stdout
    assert "now: boot/boot: no power, attempt 3, last failure: busy" in shown
    assert "last observed: " in shown
    assert "next attempt: 2026-09-21T14:15:00Z" in shown
    assert f"next: mulligan run retry-now {ID}" in shown
    assert "if it is cancelled, it undoes, in this order:\n  1. tear-down" in shown


def test_a_watcher_of_a_held_run_goes_on_when_it_is_resumed() -> None:
    """`held` is over, the step that failed begins anew, and so does what came after it."""
    view = RunView()
    for update in (
        run_update(),
        event(1, "ACTION_STARTED", "boot", "boot"),
        event(2, "ACTION_FINISHED", "boot", "boot", "on", attempts=1),
        event(3, "ACTION_STARTED", "verify", "observe"),
        event(4, "ACTION_FAILED", "verify", "observe", "silent"),
        HELD,
    ):
        view.feed(update)
    assert view.held is not None
    view.feed(event(21, "RESUMED", "record", "resumed", "Go on: resume with boot, by alice"))
    assert view.held is None
    assert view.notes[-1] == "Go on: resume with boot, by alice"
    view.feed(event(22, "ACTION_STARTED", "boot", "boot"))
    view.feed(event(23, "AWAITING", "boot", message="a worker"))
    shown = {line.name: (line.state, line.message) for line in view.lines()}
    assert shown["boot"] == ("running", "a worker")
    assert shown["verify"] == ("waiting", "")


def test_long_reasons_are_shortened_on_a_terminal_only(
    api: ScriptedApi, environment: dict[str, str], mulligan: Mulligan, tmp_path: Path
) -> None:
    """A pipe and programs get all of it."""
    reason = "the host refused, and said at great length why it did so; " * 3 + "the end"
    api.handlers["ListRuns"] = lambda request, context: iter(
        [pb.ListRunsResponse(run=run_update("FAILED", reason=reason).run)]
    )
    assert reason in mulligan("run", "list").stdout
    assert json.loads(mulligan("run", "list", "--output", "json").stdout)["reason"] == reason
    with Terminal(("run", "list"), environment, tmp_path) as terminal:
        assert terminal.finish() == ExitCode.OK
    assert "…" in terminal.shown
    assert "the end" not in terminal.shown


def test_a_table_leaves_room_for_what_a_terminal_shows_of_a_key(
    api: ScriptedApi, environment: dict[str, str], tmp_path: Path
) -> None:
    """A `^C` behind a line that fills the screen would break it, and leave the table there twice."""
    api.handlers["ProvisionMachine"] = stays_open(story()[:4], threading.Event())
    with Terminal(("machine", "provision", "web-1", "--image", "demo"), environment, tmp_path) as terminal:
        terminal.wait_for("claimed hyp-1")
        terminal.press(CTRL_C)
        assert terminal.finish() == ExitCode.DETACHED
    table = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", terminal.shown[terminal.shown.index("\x1b[?25l") :])
    lines = [line.replace("^C", "") for line in re.split(r"[\r\n]+", table.partition("stopped watching")[0])]
    assert any("claimed hyp-1" in line for line in lines)
    assert max(len(line) for line in lines) <= 96
