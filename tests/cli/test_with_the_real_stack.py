"""The client against what it is made for: the embedded stack, as `mulligan up` starts it, with simulated hosts."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from mulligan.api.cli.exit_codes import ExitCode
from tests.cli.conftest import BINARY
from tests.cli.terminal import CTRL_C, Terminal
from tests.services.stack import Stack

DISK = b"\x00" * 510 + b"\x55\xaa" + b"\x00" * (2 << 20)
HOSTS = {
    "quick": "simulated://quick/one?speed=0",
    "slow": "simulated://slow/one?speed=0&hold=place_base:*:3",
    "broken-1": "simulated://broken/one?kind=bare-metal&speed=0&fail=power_on:*:Unsupported",
    "broken-2": "simulated://broken/two?kind=bare-metal&speed=0&fail=power_on:*:Unsupported",
}


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack with an image and some hosts: one quick, one that takes 3 s to place an image, two that do not boot."""
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


def test_a_run_goes_on_without_its_watcher_until_it_is_cancelled(stack: Stack, tmp_path: Path) -> None:
    """Ctrl-C on a terminal detaches; the run is open afterwards, and cancelling it leaves nothing."""
    with Terminal(asking("left", "--provider", "slow"), {**stack.environment, "TERM": "xterm"}, tmp_path) as terminal:
        terminal.wait_for("claimed")
        terminal.press(CTRL_C)
        assert terminal.finish() == ExitCode.DETACHED
    assert stack.json("run", "show", "provision:default:left")["run"]["outcome"] == "RUN_OUTCOME_OPEN"
    cancelled = call(stack, "run", "cancel", "provision:default:left")
    assert "undo/" in cancelled.stderr
    call(stack, "run", "watch", "provision:default:left", code=ExitCode.CANCELLED)
    assert "left" not in call(stack, "claim", "list").stdout


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
    failed = call(stack, *asking("unlucky", "--kind", "bare-metal"), code=ExitCode.RUN_FAILED)
    for provider in ("broken-1", "broken-2"):
        assert f"[{provider}]" in failed.stderr
    assert "[try 2]" in failed.stderr
    assert "next: mulligan run show provision:default:unlucky" in failed.stderr
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
