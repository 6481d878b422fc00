"""A run is followed on a terminal, in a pipe and by programs; it outlives the API server and its watcher."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from mulligan.api.cli.client import Session
from mulligan.api.cli.display import PlainDisplay
from mulligan.api.cli.errors import CliError
from mulligan.api.cli.exit_codes import ExitCode
from mulligan.api.cli.follow import Follower
from mulligan.api.cli.view import RunView
from mulligan.api.processes.stack_file import StackFile, StackState
from mulligan.v1 import provisioning_pb2, run_pb2
from tests.cli.conftest import BINARY, Mulligan
from tests.cli.scripted import ID, ScriptedApi, event, provisions, refusal, run_update, stays_open, story, watches
from tests.cli.terminal import CTRL_C, Terminal

PROVISION = ("machine", "provision", "web-1", "--image", "demo")


def cursors(output: str) -> list[str]:
    """The cursors of all events in JSON lines."""
    lines = [json.loads(line) for line in output.splitlines()]
    return [line["event"]["cursor"] for line in lines if "event" in line]


def test_a_terminal_shows_steps_evidence_and_how_to_log_in(
    api: ScriptedApi, environment: dict[str, str], tmp_path: Path
) -> None:
    """The live table has every step done, and the summary has the ssh command."""
    api.handlers["ProvisionMachine"] = provisions(story())
    with Terminal(PROVISION, environment, tmp_path) as terminal:
        assert terminal.finish() == ExitCode.OK
    assert "\x1b[?25l" in terminal.shown  # a live table hides the cursor, ...
    assert "\x1b[?25h" in terminal.shown  # ... and gives it back
    for text in (ID, "claim", "image", "boot", "verify", "✔", "on hyp-1", "dhcp-lease", "ssh demo@192.0.2.10"):
        assert text in terminal.shown


def test_a_terminal_shows_bytes_while_an_image_is_fetched(
    api: ScriptedApi, environment: dict[str, str], tmp_path: Path
) -> None:
    """A part of a step that knows its size shows how much is done."""
    fetching = story()[:6]
    api.handlers["ProvisionMachine"] = stays_open(fetching, threading.Event())
    with Terminal(PROVISION, environment, tmp_path) as terminal:
        terminal.wait_for("64.0 MiB of 256.0 MiB")
        assert "25 %" in terminal.shown


def test_ctrl_c_detaches_and_says_how_to_come_back(
    api: ScriptedApi, environment: dict[str, str], tmp_path: Path
) -> None:
    """Ctrl-C ends the watching with its own exit code; nobody asks the run to stop."""
    api.handlers["ProvisionMachine"] = stays_open(story()[:4], threading.Event())
    with Terminal(PROVISION, environment, tmp_path) as terminal:
        terminal.wait_for("claimed hyp-1")
        terminal.press(CTRL_C)
        assert terminal.finish() == ExitCode.DETACHED
    assert f"mulligan run watch {ID}" in terminal.shown
    assert f"mulligan run cancel {ID}" in terminal.shown
    assert [name for name, _ in api.asked] == ["ProvisionMachine"]


def test_a_pipe_gets_plain_lines_with_their_time(api: ScriptedApi, mulligan: Mulligan) -> None:
    """Without a terminal there are no control sequences, and data and progress are apart."""
    api.handlers["ProvisionMachine"] = provisions(story())
    done = mulligan(*PROVISION)
    assert done.returncode == ExitCode.OK
    assert "\x1b" not in done.stdout + done.stderr
    assert "2026-09-21T14:13:23Z claim done: claimed hyp-1 [hyp-1]" in done.stderr.splitlines()
    assert done.stdout.splitlines()[0] == "machine web-1 is up on hyp-1: 192.0.2.10"
    assert "ssh demo@192.0.2.10" in done.stdout


def test_programs_get_every_update_as_a_line(api: ScriptedApi, mulligan: Mulligan) -> None:
    """JSON lines: the run first (with whether it was joined), all events once, the machine, the run again."""
    api.handlers["ProvisionMachine"] = provisions(story(), joined=True)
    done = mulligan(*PROVISION, "--output", "json")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert lines[0]["joined"] is True
    assert lines[0]["run"]["workflow_id"] == ID
    assert cursors(done.stdout) == [str(number) for number in range(1, 11)]
    assert lines[-2]["machine"]["addresses"] == ["192.0.2.10"]
    assert lines[-1]["run"]["outcome"] == "RUN_OUTCOME_READY"


def test_whoever_joins_a_run_that_is_being_cancelled_is_told(api: ScriptedApi, mulligan: Mulligan) -> None:
    """Who asks for its machine will not have it by this run."""
    update = run_update()
    update.run.cancel_requested = True
    api.handlers["ProvisionMachine"] = provisions([update], joined=True)
    done = mulligan("machine", "provision", "web-1", "--image", "demo", "--detach")
    assert done.stdout == f"joined {ID}, which is being cancelled, and undoes what it made\n"


def test_a_watcher_resumes_when_the_api_comes_back(api: ScriptedApi, environment: dict[str, str]) -> None:
    """The API server goes away in the middle and another answers: every event is shown, none twice."""
    told = threading.Event()
    api.handlers["ProvisionMachine"] = stays_open(story()[:5], told)
    api.handlers["WatchRun"] = watches(story())
    process = subprocess.Popen(
        [BINARY, *PROVISION, "--output", "json"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        assert told.wait(30)
        assert process.stdout is not None and process.stderr is not None
        seen = [process.stdout.readline() for _ in range(5)]
        api.stop()
        lost = ""
        while "reconnecting" not in lost:
            lost = process.stderr.readline()
            assert lost, "it ended without a word about the connection"
        api.start()
        rest, _ = process.communicate(timeout=60)
    assert process.returncode == ExitCode.OK
    assert cursors("".join(seen) + rest) == [str(number) for number in range(1, 11)]
    assert api.last("WatchRun") == provisioning_pb2.WatchRunRequest(workflow_id=ID, run_id="a-run", cursor="4")


def test_an_event_that_is_sent_twice_is_shown_once(api: ScriptedApi, mulligan: Mulligan) -> None:
    """A stream that ends early is resumed even when it ends politely, and what is known already is left out."""
    api.handlers["ProvisionMachine"] = provisions(story()[:5])
    api.handlers["WatchRun"] = lambda request, context: (
        provisioning_pb2.WatchRunResponse(update=update) for update in story()
    )
    done = mulligan(*PROVISION, "--output", "json")
    assert done.returncode == ExitCode.OK
    assert cursors(done.stdout) == [str(number) for number in range(1, 11)]


def test_a_watcher_gives_up_after_a_while(api: ScriptedApi, capfd: pytest.CaptureFixture[str]) -> None:
    """An API that stays away ends the watching, and says how to come back; the run is not its business."""
    api.handlers["WatchRun"] = refusal("UNAVAILABLE", "Temporal does not answer", "UNREACHABLE")
    view = RunView()
    with Session(api.address) as session, pytest.raises(CliError) as caught:
        follower = Follower(session, view, PlainDisplay(view), patience=0.5)
        for update in follower.updates(lambda timeout: iter([run_update()])):
            view.feed(update)
    assert caught.value.code is ExitCode.UNAVAILABLE
    assert f"mulligan run watch {ID}" in caught.value.next_commands
    assert "the run goes on, reconnecting" in capfd.readouterr().err


def test_a_timeout_ends_only_the_watching(api: ScriptedApi, mulligan: Mulligan) -> None:
    """`--timeout` on a stream is how long to watch: an exit code of its own says that the time was over."""
    api.handlers["ProvisionMachine"] = stays_open(story()[:4], threading.Event())
    done = mulligan(*PROVISION, "--timeout", "1s")
    assert done.returncode == ExitCode.TIMED_OUT
    assert "stopped watching after 1 s, as --timeout says; the run goes on" in done.stderr
    assert f"mulligan run watch {ID}" in done.stderr


def test_nothing_is_resumed_that_never_began(mulligan: Mulligan, api: ScriptedApi) -> None:
    """Where no API listens, the command says so at once, and what starts one."""
    api.stop()
    done = mulligan(*PROVISION)
    assert done.returncode == ExitCode.UNAVAILABLE
    assert f"the API does not answer at {api.address}" in done.stderr
    assert "next: mulligan up" in done.stderr


def test_who_is_asked_to_wait_asks_again(mulligan: Mulligan, api: ScriptedApi) -> None:
    """The machine of that name was just released, say: the run that is then begun is watched to its end."""
    waits = refusal("UNAVAILABLE", "it is just ending; ask again in a moment", "BUSY")
    begun = provisions(story())

    def answer(request: Any, context: grpc.ServicerContext) -> Any:
        asked = sum(method == "ProvisionMachine" for method, _ in api.asked)
        return (waits if asked < 3 else begun)(request, context)

    api.handlers["ProvisionMachine"] = answer
    done = mulligan(*PROVISION)
    assert done.returncode == ExitCode.OK
    assert done.stderr.count("it is just ending; ask again in a moment; asking again") == 1
    assert "ProvisionMachine" not in [method for method, _ in api.asked][3:]


def test_who_does_not_watch_is_told_to_ask_again(mulligan: Mulligan, api: ScriptedApi) -> None:
    """With what was typed."""
    api.handlers["ProvisionMachine"] = refusal("UNAVAILABLE", "it is just ending; ask again in a moment", "BUSY")
    done = mulligan(*PROVISION, "--detach")
    assert done.returncode == ExitCode.NOT_READY
    assert f"next: mulligan {' '.join((*PROVISION, '--detach'))}" in done.stderr


def test_who_is_asked_to_wait_for_long_is_told_why_in_the_end(api: ScriptedApi) -> None:
    """After as long as an API may be away: in the words of the API, which is there."""
    api.handlers["ProvisionMachine"] = refusal("UNAVAILABLE", "it is just ending", "BUSY")
    with Session(api.address) as session:
        follower = Follower(session, RunView(), PlainDisplay(RunView()), patience=0.0)
        asked = provisioning_pb2.ProvisionMachineRequest()
        with pytest.raises(CliError, match="it is just ending") as given_up:
            list(follower.updates(lambda timeout: session.provisioning.ProvisionMachine(asked, timeout=timeout)))
    assert given_up.value.code is ExitCode.NOT_READY


def test_an_api_that_starts_again_is_not_to_be_started(
    mulligan: Mulligan, api: ScriptedApi, environment: dict[str, str]
) -> None:
    """While the stack whose API it is runs, `mulligan up` would be refused; for another API it is still the answer."""
    api.stop()
    stack = StackFile(Path(environment["MULLIGAN_STATE_DIR"]))
    with stack.held():
        stack.write(StackState(os.getpid(), False, api.address, "", "", {}))
        done = mulligan("machine", "list")
        assert done.returncode == ExitCode.UNAVAILABLE
        assert f"the stack there runs, as process {os.getpid()}" in done.stderr
        assert "mulligan up" not in done.stderr
        assert "next: mulligan doctor" in done.stderr
        assert "next: mulligan up" in mulligan("machine", "list", "--api", "127.0.0.1:1").stderr


def test_a_run_that_cannot_be_cancelled_is_not_offered_to_be(
    api: ScriptedApi, environment: dict[str, str], tmp_path: Path
) -> None:
    """Ctrl-C on a release says only how to watch it again."""
    silent = threading.Event()

    def handler(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        context.add_callback(silent.set)
        yield provisioning_pb2.ReleaseMachineResponse(update=run_update(kind="RELEASE"))
        silent.wait(60)

    api.handlers["ReleaseMachine"] = handler
    with Terminal(("machine", "release", "web-1"), environment, tmp_path) as terminal:
        terminal.wait_for("release:default:web-1")
        terminal.press(CTRL_C)
        assert terminal.finish() == ExitCode.DETACHED
    assert "mulligan run watch release:default:web-1" in terminal.shown
    assert "run cancel" not in terminal.shown


def test_detach_names_the_run_and_leaves(api: ScriptedApi, mulligan: Mulligan) -> None:
    """`--detach` starts the run without watching it."""
    api.handlers["ProvisionMachine"] = provisions(story())
    done = mulligan(*PROVISION, "--detach")
    assert (done.returncode, done.stdout) == (ExitCode.OK, f"started {ID}\n")
    assert api.last("ProvisionMachine").detach


def test_a_step_that_awaits_something_is_not_done() -> None:
    """It is when what it awaits has come; when that has not come in time it has failed."""
    awaits = [
        run_update(),
        event(1, "ACTION_STARTED", "verify", "observe"),
        event(2, "ACTION_FINISHED", "verify", "observe", "power is on"),
        event(3, "AWAITING", "verify", "", "the guest's call home"),
    ]
    for last, state in (
        (None, "running"),
        (event(4, "CALLED_HOME", "verify", "", "the guest called home"), "done"),
        (event(4, "DEADLINE_PASSED", "verify", "", "not done within 20 s"), "failed"),
        (event(4, "ACTION_STARTED", "undo", "tear-down"), "failed"),
        (event(4, "RUN_FINISHED", outcome=run_pb2.RUN_OUTCOME_TERMINATED), "failed"),
    ):
        view = RunView()
        for update in (*awaits, *([last] if last else [])):
            view.feed(update)
        assert view.steps["verify"].state == state


def test_a_mulligan_is_told_and_the_table_begins_anew() -> None:
    """After a second try the steps are those of that try, and a note says what became of the first."""
    view = RunView()
    for update in (
        run_update(),
        event(1, "ACTION_STARTED", "boot", "power-on", provider="hyp-1"),
        event(2, "ACTION_FAILED", "boot", "power-on", "no answer", provider="hyp-1"),
        event(3, "ACTION_STARTED", "undo", "power-off", provider="hyp-1"),
        event(4, "ACTION_STARTED", "claim", "claim", **{"try": 2}),
    ):
        view.feed(update)
    assert view.notes == ["try 1 on hyp-1 failed: boot: no answer; taking a mulligan"]
    assert (view.try_number, view.undo) == (2, {})
    assert [(step.name, step.state) for step in view.lines()][:2] == [("claim", "running"), ("image", "waiting")]


def test_what_a_guest_says_cannot_move_the_cursor(api: ScriptedApi, mulligan: Mulligan) -> None:
    """Control characters in what was observed are not passed on."""
    updates = story()
    for update in updates:
        for seen in [*update.event.evidence, *update.machine.evidence]:
            seen.observed = "\x1b[2Jlogin:\r"
    api.handlers["ProvisionMachine"] = provisions(updates)
    done = mulligan(*PROVISION)
    assert "[2Jlogin:" in done.stdout
    assert not {"\x1b", "\r"} & set(done.stdout + done.stderr)


def test_undo_is_shown_after_a_cancel(api: ScriptedApi, mulligan: Mulligan) -> None:
    """`run cancel` asks once, shows the undo only, and ends well when nothing is left."""
    before = story()[:8]
    told = [update.event for update in before if update.HasField("event")]
    undone = [
        event(20, "CANCEL_REQUESTED", message="cancel requested: not needed; what was done will be undone"),
        event(21, "ACTION_STARTED", "undo", "power-off", provider="hyp-1"),
        event(22, "ACTION_FINISHED", "undo", "power-off", "power is off", provider="hyp-1", attempts=1),
        event(23, "RUN_FINISHED", message="cancelled", outcome=run_pb2.RUN_OUTCOME_CANCELLED, reason="CANCELLED"),
        run_update("CANCELLED"),
    ]
    api.handlers["GetRun"] = lambda request, context: provisioning_pb2.GetRunResponse(run=run_update().run, events=told)
    api.handlers["CancelRun"] = lambda request, context: provisioning_pb2.CancelRunResponse(run=run_update().run)
    api.handlers["WatchRun"] = watches([run_update(), *(u for u in before if u.HasField("event")), *undone])
    done = mulligan("run", "cancel", ID, "--reason", "not needed")
    assert done.returncode == ExitCode.OK
    assert api.last("CancelRun").reason == "not needed"
    assert "undo/power-off done: power is off" in done.stderr
    assert "claimed hyp-1" not in done.stderr
    assert "undone" in done.stdout
