"""`mulligan up` with real processes: kept running, ended together, one per state directory, nothing lost."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from mulligan.api.config import Settings
from mulligan.api.processes.health import api_answers
from tests.services.stack import MULLIGAN, Stack, alive, until

MACHINE = "simulated-demo-1"
README = Path(__file__).parents[2] / "README.md"


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A running stack that the tests of this module share; each leaves it healthy."""
    with Stack(tmp_path_factory.mktemp("stack")) as running:
        running.up()
        yield running


def test_it_says_where_everything_is(stack: Stack) -> None:
    """The addresses of API, Web UI and boot server are printed once all of it is healthy."""
    until(lambda: f"state        {stack.state_dir}" in stack.said, what="the last line of the announcement")
    told = stack.said.partition("Mulligan is up")[2]
    assert all(address in told for address in (stack.api, stack.ui, stack.boot))


@pytest.mark.parametrize("name", ["temporal", "server", "worker"])
def test_a_killed_child_is_started_again(stack: Stack, name: str) -> None:
    """After `kill -9` of any child another one takes its place, and the stack is healthy again and says so."""
    before = stack.state["children"]
    os.kill(before[name], signal.SIGKILL)
    until(lambda: stack.state["children"][name] != before[name] and stack.state["healthy"], what=f"a new {name}")
    after = stack.state["children"]
    assert {each for each in before if before[each] != after[each]} == {name}
    assert f"{name} ended by SIGKILL" in stack.said
    until(lambda: f"{name} is healthy again" in stack.said, what="the message")
    until(lambda: api_answers(stack.api), what="the API")


def test_a_second_one_is_refused(stack: Stack) -> None:
    """One stack per state directory: the second names the first, and changes nothing."""
    before = stack.state
    refused = stack.run("up")
    assert refused.returncode == 4
    assert f"process {before['pid']}" in refused.stderr
    assert stack.state == before


def test_the_doctor_finds_nothing_wrong(stack: Stack) -> None:
    """With a healthy stack the doctor is content, and says who polls."""
    told = stack.run("doctor", "--simulated")
    assert told.returncode == 0, told.stdout + told.stderr
    assert f"{stack.state['children']['worker']}@" in told.stdout


def test_the_demo_makes_a_machine_and_finds_it_again(stack: Stack) -> None:
    """The simulated demo ends with a verified machine and calls itself a simulation; repeated, it finds the machine."""
    first = stack.run("demo", "--simulated", seconds=90)
    assert first.returncode == 0, first.stderr
    assert "SIMULATION" in first.stderr
    assert "verified guest" in first.stdout
    made = stack.json("machine", "show", MACHINE)
    again = stack.run("demo", "--simulated")
    assert again.returncode == 0, again.stderr
    assert stack.json("machine", "show", MACHINE)["id"] == made["id"]


def test_a_stack_without_libvirt_providers_needs_no_libvirt(stack: Stack) -> None:
    """What only they need is worth knowing where it is missing, and nothing that must be mended."""
    told = stack.run("doctor", "--output", "json", PATH="/nowhere")
    assert told.returncode == 0, told.stdout
    found = {each["name"]: each for each in map(json.loads, told.stdout.splitlines())}
    assert found["qemu"]["state"] == "note"
    assert "qemu-img" in found["qemu"]["found"]
    assert "needed only for libvirt providers" in found["qemu"]["found"]


def test_what_the_readme_types_next_works_after_the_simulated_demo(stack: Stack) -> None:
    """The demo's image has the name that the README uses, and its key the place."""
    section = README.read_text().partition("## Next steps")[2]
    (line,) = re.findall(r"^mulligan (machine provision web-1 .*)$", section, re.MULTILINE)
    made = stack.run(*line.split(), "--ssh-key", str(stack.state_dir / "demo_key.pub"), seconds=90)
    assert made.returncode == 0, made.stderr
    assert stack.run("machine", "release", "web-1", seconds=90).returncode == 0


def test_a_stop_says_at_once_what_it_stops_and_starts_nothing_again(tmp_path: Path) -> None:
    """Also when the signal reached the children first; a second process asks, and is told what is waited for."""
    with Stack(tmp_path) as stack:
        stack.up("--simulated", "1")
        made = ("machine", "provision", "m", "--image", "demo", "--detach")
        stack.run("demo", "--simulated", seconds=90)
        stack.run("provider", "add", "slow", "simulated://room/slow?speed=0&hold=define:1:600")
        key = str(stack.state_dir / "demo_key.pub")
        started = stack.run(*made, "--provider", "slow", "--ssh-key", key)
        assert started.returncode == 0, started.stderr
        down = subprocess.Popen([*MULLIGAN, "down"], env=stack.environment, stderr=subprocess.PIPE, text=True)
        with down:
            assert down.stderr is not None
            told = [down.stderr.readline().strip() for _ in range(3)]
            os.kill(stack.state["children"]["server"], signal.SIGKILL)
            rest = down.stderr.read()
        assert down.returncode == 0
        assert told[0] == f"stopping the stack of {stack.state_dir} (process {stack.process_id})"
        assert told[1].startswith("open runs: 1; each goes on where it was")
        assert told[2].startswith("waiting for worker: at most 30 s")
        assert "worker has stopped" in rest
        assert "stopping worker: it may take up to 30 s" in stack.said
        assert "starting it again" not in stack.said


@pytest.mark.parametrize("first", ["temporal", "worker"])
def test_a_child_that_a_common_signal_ends_first_is_not_started_again(tmp_path: Path, first: str) -> None:
    """As when a service manager ends all processes at once."""
    with Stack(tmp_path) as stack:
        stack.up()
        child = stack.state["children"][first]
        os.kill(stack.process_id, signal.SIGSTOP)
        os.kill(child, signal.SIGKILL)
        until(lambda: not alive(child), what="the child's end")
        os.kill(stack.process_id, signal.SIGTERM)
        os.kill(stack.process_id, signal.SIGCONT)
        until(lambda: "everything has stopped" in stack.said, seconds=60, what="the stop")
        assert "starting it again" not in stack.said


def test_nothing_is_left_of_a_killed_supervisor_and_nothing_is_lost(stack: Stack) -> None:
    """`kill -9` of the supervisor ends every child with it; the next one goes on with the same machines."""
    made = stack.json("machine", "show", MACHINE)
    children = list(stack.state["children"].values())
    assert len(children) == 3
    stack.kill()
    until(lambda: not any(alive(pid) for pid in children), 10, "the end of all children")
    stack.up()
    assert stack.json("machine", "show", MACHINE) == made
    assert stack.json("run", "show", f"provision:default:{MACHINE}")["run"]["outcome"] == "RUN_OUTCOME_READY"


def test_it_ends_in_peace(stack: Stack) -> None:
    """Ctrl-C ends every child and the stack, with exit code 0 and nothing killed."""
    children = list(stack.state["children"].values())
    before = len(stack.said)
    assert stack.stop() == 0
    assert not any(alive(pid) for pid in children)
    said = stack.said[before:]
    assert "everything has stopped" in said
    assert "killing" not in said


def test_in_the_background_and_down_again(tmp_path: Path) -> None:
    """`up --detach` returns when all is healthy, `down` ends it, and a second `down` says that there is nothing."""
    with Stack(tmp_path) as stack:
        told = stack.json("up", "--detach")
        assert told["api"] == stack.api
        assert api_answers(stack.api)
        state = stack.state
        assert stack.json("down")["pid"] == state["pid"]
        pids = (state["pid"], *state["children"].values())
        until(lambda: not any(alive(pid) for pid in pids), what="the end of every process")
        assert stack.json("down") == {"stopped": False, "pid": None, "state_dir": str(stack.state_dir)}


@pytest.mark.parametrize(
    ("setting", "which"),
    [
        ("MULLIGAN_API", "api"),
        ("MULLIGAN_TEMPORAL", "temporal"),
        ("MULLIGAN_TEMPORAL_UI", "ui"),
        ("MULLIGAN_BOOT_LISTEN", "boot"),
    ],
)
def test_a_taken_port_is_named_with_its_setting(tmp_path: Path, setting: str, which: str) -> None:
    """When something else listens where the stack wants to, it says so before anything is started."""
    with Stack(tmp_path) as stack, socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        setattr(stack, which, address)
        refused = stack.run("up")
        assert refused.returncode == 11
        assert setting in refused.stderr
        assert address in refused.stderr
        assert not (stack.state_dir / "temporal.db").exists()


def test_a_child_that_cannot_start_fails_the_whole(tmp_path: Path) -> None:
    """A server that dies at once, three times, ends the stack with the end of its log; no child is left."""
    with Stack(tmp_path) as stack:
        stack.state_dir.mkdir()
        (stack.state_dir / "mulligan.sqlite").write_text("this is not a database, and long enough to be looked at")
        refused = stack.run("up")
        assert refused.returncode == 11
        assert "`server` ended with status 1, 3 times" in refused.stderr
        assert "database" in refused.stderr
        assert not (stack.state_dir / "up.json").exists()


def test_a_wrong_setting_is_wrong_usage(tmp_path: Path) -> None:
    """A setting that cannot be read is named, without a traceback."""
    with Stack(tmp_path) as stack:
        stack.api = "nowhere"
        refused = stack.run("up")
        assert refused.returncode == 2
        assert "MULLIGAN_API" in refused.stderr
        assert "Traceback" not in refused.stderr
        stack.api = "127.0.0.1:7420"


def test_the_defaults_are_the_documented_ports(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without any variable the stack is where the documents say."""
    for name in [each for each in os.environ if each.startswith("MULLIGAN_")]:
        monkeypatch.delenv(name)
    settings = Settings()
    assert (settings.api, settings.temporal, settings.temporal_ui) == (
        "127.0.0.1:7420",
        "127.0.0.1:7233",
        "127.0.0.1:8233",
    )
