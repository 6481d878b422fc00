"""The client against what it is made for: the embedded stack, as `mulligan up` starts it, with simulated hosts."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from mulligan.api.cli.exit_codes import ExitCode
from tests.cli.conftest import BINARY
from tests.cli.screen import Screen
from tests.cli.terminal import CTRL_C, Terminal
from tests.services.stack import Stack

DISK = b"\x00" * 510 + b"\x55\xaa" + b"\x00" * (2 << 20)
HOSTS = {
    "quick": "simulated://quick/one?speed=0",
    "slow": "simulated://slow/one?speed=0&hold=place_base:*:3",
    "faulty": "simulated://faulty/one?speed=0&fail=define:1:Unsupported",
    "sleepy": "simulated://sleepy/one?speed=0&hold=place_base:*:600",
    "broken-1": "simulated://broken/one?kind=bare-metal&speed=0&fail=power_on:*:Unsupported",
    "broken-2": "simulated://broken/two?kind=bare-metal&speed=0&fail=power_on:*:Unsupported",
}


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack with an image and some hosts: one quick, two that take 3 s and 10 min to place an image, one that
    fails once, two that do not boot."""
    with Stack(tmp_path_factory.mktemp("cli")) as running:
        running.up()
        images = running.state_dir / "images"
        images.mkdir(exist_ok=True)
        (images / "disk.raw").write_bytes(DISK)
        call(running, "image", "add", "demo", str(images / "disk.raw"), "--login", "demo")
        for name, url in HOSTS.items():
            call(running, "provider", "add", name, url)
        yield running


def asking(name: str, *where: str) -> tuple[str, ...]:
    """The command that asks for a machine there."""
    return "machine", "provision", name, "--image", "demo", "--ssh-key", "none", *where


def call(stack: Stack, *arguments: str, code: ExitCode = ExitCode.OK) -> subprocess.CompletedProcess[str]:
    """Run `mulligan` to its end, which must be this one."""
    done = stack.run(*arguments, seconds=90)
    assert done.returncode == code, done.stdout + done.stderr
    return done


def test_a_machine_is_made_shown_and_released(stack: Stack) -> None:
    """The whole life of a machine through the client; a second request joins, a different one is a conflict."""
    request = asking("life", "--provider", "quick")
    made = call(stack, *request)
    assert "machine life is up on quick" in made.stdout
    assert "the same was asked for before" in call(stack, *request).stdout
    differs = call(stack, *request, "--vcpu", "2", code=ExitCode.CONFLICT)
    assert "resources.vcpu" in differs.stderr
    shown = stack.json("machine", "show", "life")
    assert shown["evidence"][-1]["level"] == "VERIFY_LEVEL_ADDRESS"
    assert "run ended: ready" in call(stack, "run", "show", shown["workflow_id"]).stdout
    assert "machine life is gone" in call(stack, "machine", "release", "life").stdout
    assert "life" not in call(stack, "machine", "list").stdout + call(stack, "claim", "list").stdout


def test_a_machine_is_planned_and_made_by_its_plan(stack: Stack) -> None:
    """The command that the plan prints makes the machine; applied once more after it is gone, it says what changed."""
    flags = ("--image", "demo", "--ssh-key", "none", "--provider", "quick")
    planned = call(stack, "machine", "plan", "planned", *flags)
    assert "quick: it was asked for by name" in planned.stdout
    command = shlex.split(planned.stderr.split("next: ")[1])
    assert "machine planned is up on quick" in call(stack, *command[1:]).stdout
    call(stack, "machine", "release", "planned")
    call(stack, "provider", "set", "quick", "--overcommit", "vcpu=200")
    refused = call(stack, *command[1:], code=ExitCode.CONFLICT)
    assert "its generation was" in refused.stderr
    assert f"next: {shlex.join(('mulligan', 'machine', 'plan', 'planned', *flags))}\n" in refused.stderr
    too_few = call(stack, "provider", "set", "quick", "--overcommit", "vcpu=2", code=ExitCode.USAGE)
    assert "--overcommit vcpu: must be 100 (what it has) to 10000 percent" in too_few.stderr


def test_a_run_goes_on_without_its_watcher_until_it_is_cancelled(stack: Stack, tmp_path: Path) -> None:
    """Ctrl-C on a terminal detaches; the run is open afterwards, and cancelling it leaves nothing."""
    with Terminal(asking("left", "--provider", "sleepy"), {**stack.environment, "TERM": "xterm"}, tmp_path) as terminal:
        terminal.wait_for("claimed")
        terminal.press(CTRL_C)
        assert terminal.finish() == ExitCode.DETACHED
    assert stack.json("run", "show", "provision:default:left")["run"]["outcome"] == "RUN_OUTCOME_OPEN"
    cancelled = call(stack, "run", "cancel", "provision:default:left")
    assert "undo/" in cancelled.stderr
    over = call(stack, "run", "watch", "provision:default:left", code=ExitCode.CANCELLED)
    assert "provision:default:left: cancelled; everything was undone" in over.stderr
    assert "failed, its run was cancelled" in call(stack, "machine", "show", "left").stdout
    assert "left" not in call(stack, "claim", "list").stdout


def test_a_run_is_held_shown_and_resumed(stack: Stack) -> None:
    """By hand, with the commands that each answer names; who asked and why is in its story."""
    run = "provision:default:steered"
    request = asking("steered", "--provider", "faulty", "--on-failure", "hold", "--mulligans", "0")
    held = call(stack, *request, code=ExitCode.HELD)
    assert f"next: mulligan run resume {run}" in held.stderr
    shown = call(stack, "run", "show", run).stdout
    assert "now: held, and waits for an operator" in shown
    assert f"next: mulligan run resume {run}" in shown
    assert "1. tear-down" in shown
    assert "open, held" in call(stack, "run", "list").stdout
    assert "goes on with boot" in call(stack, "run", "resume", run, "--actor", "alice").stdout
    told = call(stack, "run", "show", run).stdout
    assert "try 1 on faulty" in told
    assert "by alice" in told
    refused = call(stack, "run", "abort", run, code=ExitCode.CONFLICT)
    assert "next: mulligan machine show steered" in refused.stderr
    call(stack, "machine", "release", "steered")


def test_a_killed_api_server_costs_no_event(stack: Stack) -> None:
    """The API server is killed while a run is watched; the watcher goes on with its successor, from the cursor."""
    with subprocess.Popen(
        [BINARY, *asking("tough", "--provider", "slow"), "--output", "json"],
        env=stack.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(3)]
        os.kill(stack.state["children"]["server"], signal.SIGKILL)
        rest, said = process.communicate(timeout=90)
    assert process.returncode == ExitCode.OK, said
    assert "reconnecting" in said
    seen = [json.loads(line) for line in [*lines, *rest.splitlines()]]
    events = [update["event"]["cursor"] for update in seen if "event" in update]
    whole = call(stack, "run", "watch", "provision:default:tough", "--output", "json").stdout.splitlines()
    assert events == [update["event"]["cursor"] for update in map(json.loads, whole) if "event" in update]


def test_both_tries_of_a_run_that_fails_are_told(stack: Stack) -> None:
    """A mulligan is taken on the other host; when that fails too, all is undone, and nothing is left claimed."""
    call(stack, *asking("lucky", "--provider", "quick"))  # the image comes up elsewhere: it is not to blame
    failed = call(stack, *asking("unlucky", "--kind", "bare-metal"), code=ExitCode.RUN_FAILED)
    for provider in ("broken-1", "broken-2"):
        assert f"[{provider}]" in failed.stderr
    assert "[try 2]" in failed.stderr
    assert "next: mulligan run show provision:default:unlucky" in failed.stderr
    assert "unlucky" not in call(stack, "claim", "list").stdout
    again = call(stack, "run", "retry", "provision:default:unlucky", "--reason", "luck", code=ExitCode.RUN_FAILED)
    assert "a new run has begun" in again.stdout
    told = call(stack, "run", "show", "provision:default:unlucky").stdout
    assert "retried by " in told
    assert ": luck" in told
    assert "left broken-" in told
    assert "unlucky" not in call(stack, "claim", "list").stdout
    assert "suspect" in call(stack, "provider", "list").stdout


def test_a_wrong_request_names_the_fields(stack: Stack) -> None:
    """Nothing is started for a request that cannot be meant."""
    request = (*asking("Wrong!", "--provider", "quick"), "--vcpu", "0", "--output", "json")
    refused = call(stack, *request, code=ExitCode.USAGE)
    fields = {each["field"] for each in json.loads(refused.stderr.splitlines()[-1])["error"]["violations"]}
    assert {"spec.name", "spec.resources.vcpu"} <= fields


def test_what_never_fits_says_why(stack: Stack) -> None:
    """A request that no host could hold ends as NO_ROOM, with the funnel."""
    refused = call(stack, *asking("huge", "--provider", "quick"), "--vcpu", "4000", code=ExitCode.NO_ROOM)
    assert "size.vcpu" in refused.stderr
    assert "verdict: never" in refused.stderr
    why = "asked for on quick only, which has"
    assert refused.stderr.count(why) == 1, refused.stderr
    assert "next: mulligan provider show quick" in refused.stderr
    assert f"  or: {shlex.join(('mulligan', *asking('huge'), '--vcpu', '4000'))}\n" in refused.stderr
    shown = call(stack, "run", "show", "provision:default:huge").stdout
    assert shown.count(why) == 1, shown
    assert "FAILED: no provider fits, as said above [NEVER_FITS]" in shown


def test_levers_are_pulled_from_the_full_screen(stack: Stack, tmp_path: Path) -> None:
    """Hold, then cancel, each confirmed with a reason: the run takes them up, keeps who and why, and leaves nothing."""
    call(stack, *asking("steered", "--provider", "sleepy"), "--detach")
    run = "provision:default:steered"
    with Screen({**stack.environment, "TERM": "xterm"}, tmp_path) as screen:
        for key, answer in ((b"h", f"hold {run}: it "), (b"c", "it undoes release-claim")):
            screen.wait_for("image")
            screen.press(key)
            screen.wait_for("leave it as it is")
            screen.press(b"by hand\r")
            screen.wait_for(answer)
            screen.shown = ""
        screen.press(b"q")
        assert screen.finish() == ExitCode.OK
    call(stack, "run", "watch", run, code=ExitCode.CANCELLED)
    told = call(stack, "run", "show", run).stdout
    assert told.count("by hand") >= 2
    assert "steered" not in call(stack, "claim", "list").stdout
