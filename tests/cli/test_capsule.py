"""`mulligan run export` and `run replay`, as their users run them."""

from __future__ import annotations

import gzip
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest

from mulligan.v1 import provisioning_pb2
from tests.cli.conftest import BINARY, Mulligan
from tests.cli.scripted import ID, ScriptedApi, refusal
from tests.cli.terminal import CTRL_C, Terminal

CORPUS = Path(__file__).parents[1] / "capsules"
READY = (CORPUS / "simulated-ready.capsule").read_bytes()
NAME = "provision-default-web-1.capsule"


def parts(request: Any, context: grpc.ServicerContext) -> Any:
    """A capsule in three parts."""
    for at in range(0, len(READY), len(READY) // 2):
        yield provisioning_pb2.ExportRunResponse(part=READY[at : at + len(READY) // 2])


@pytest.fixture
def capsule(tmp_path: Path) -> Callable[..., str]:
    """Writes a capsule, after `change` was made to its document; its file's name."""

    def write(change: Callable[[dict[str, Any]], None]) -> str:
        document = json.loads(gzip.decompress(READY))
        change(document)
        (tmp_path / "changed.capsule").write_text(json.dumps(document))
        return "changed.capsule"

    return write


def test_a_run_is_exported_into_a_file_of_its_name(api: ScriptedApi, mulligan: Mulligan, tmp_path: Path) -> None:
    """The parts are joined; what to do with it is said."""
    api.handlers["ExportRun"] = parts
    done = mulligan("run", "export", ID, "--run-id", "a-run")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / NAME).read_bytes() == READY
    assert f"{ID} is in {NAME}" in done.stdout
    assert f"next: mulligan run replay {NAME}" in done.stderr
    assert (api.last("ExportRun").workflow_id, api.last("ExportRun").run_id) == (ID, "a-run")
    told = json.loads(mulligan("run", "export", ID, "--file", "other", "--output", "json").stdout)
    assert told == {"workflow_id": ID, "file": "other", "bytes": len(READY)}


def test_a_capsule_goes_through_a_pipe(api: ScriptedApi, environment: dict[str, str], tmp_path: Path) -> None:
    """`-` is standard output for the one, and standard input for the other: nothing but the capsule is in between."""
    api.handlers["ExportRun"] = parts
    export = [BINARY, "run", "export", ID, "--file", "-"]
    sent = subprocess.run(export, env=environment, cwd=tmp_path, capture_output=True, check=True, timeout=60)
    assert sent.stdout == READY
    assert not [each for each in tmp_path.iterdir() if each.is_file()]
    replay = [BINARY, "run", "replay", "-"]
    told = subprocess.run(
        replay, env=environment, cwd=tmp_path, input=sent.stdout, capture_output=True, check=True, timeout=60
    )
    assert told.stdout.decode().splitlines()[-1].startswith("agrees: ")


def test_a_pipe_is_told_what_cannot_go_through_it(api: ScriptedApi, mulligan: Mulligan) -> None:
    """Two things on one output, and input that is no capsule."""
    refused = mulligan("run", "export", ID, "--file", "-", "--output", "json")
    assert refused.returncode == 2
    assert "leave --output json out" in refused.stderr
    assert api.asked == []
    damaged = mulligan("run", "replay", "-", stdin="no capsule")
    assert damaged.returncode == 2
    assert "standard input" in damaged.stderr


def test_a_file_that_is_there_is_not_written_over_unless_asked(
    api: ScriptedApi, mulligan: Mulligan, tmp_path: Path
) -> None:
    """Without --force the API is not even asked."""
    api.handlers["ExportRun"] = parts
    (tmp_path / NAME).write_text("precious")
    done = mulligan("run", "export", ID)
    assert done.returncode == 4
    assert "--force" in done.stderr
    assert (tmp_path / NAME).read_text() == "precious"
    assert api.asked == []
    assert mulligan("run", "export", ID, "--force").returncode == 0
    assert (tmp_path / NAME).read_bytes() == READY
    assert sorted(each.name for each in tmp_path.iterdir() if each.is_file()) == [NAME]


def test_what_cannot_be_exported_leaves_no_file(api: ScriptedApi, mulligan: Mulligan, tmp_path: Path) -> None:
    """A run that is not there, an end in the middle, and a place that cannot be written to."""
    api.handlers["ExportRun"] = refusal("NOT_FOUND", "no run", "NOT_FOUND", what="run")
    assert mulligan("run", "export", ID).returncode == 3

    def breaks_off(request: Any, context: grpc.ServicerContext) -> Any:
        yield provisioning_pb2.ExportRunResponse(part=b"half")
        context.abort(grpc.StatusCode.UNAVAILABLE, "going away")

    api.handlers["ExportRun"] = breaks_off
    assert mulligan("run", "export", ID, "--file", "half").returncode == 9
    api.handlers["ExportRun"] = parts
    done = mulligan("run", "export", ID, "--file", "no/such/place")
    assert done.returncode == 2
    assert "no/such/place cannot be written" in done.stderr
    assert [each.name for each in tmp_path.iterdir() if each.is_file()] == []


def test_a_replay_tells_the_story_and_agrees_without_any_server(mulligan: Mulligan, api: ScriptedApi) -> None:
    """Steps with their times, evidence, what the driver was asked, versions and bounds; then the verdict."""
    api.stop()
    done = mulligan("run", "replay", str(CORPUS / "simulated-ready.capsule"))
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[-1].startswith("agrees: ")
    assert any("boot done: m was switched on" in line for line in lines)
    assert any("evidence" not in line and "address: dhcp-lease" in line for line in lines)
    assert any(line.startswith("    driver: open ") and "power_on" in line for line in lines)
    assert any(line.startswith("by ") and "temporalio" in line for line in lines)
    assert done.stderr == ""


def test_a_replay_can_be_told_as_json(mulligan: Mulligan) -> None:
    """The capsule without its history, and the verdict."""
    done = mulligan("run", "replay", str(CORPUS / "simulated-cancelled.capsule"), "--output", "json")
    told = json.loads(done.stdout)
    assert (told["run"]["outcome"], told["run"]["kind"]) == ("RUN_OUTCOME_CANCELLED", "RUN_KIND_PROVISION")
    assert {event["kind"] for event in told["events"]} >= {"RUN_EVENT_KIND_RUN_STARTED", "RUN_EVENT_KIND_RUN_FINISHED"}
    assert told["replay"] == {"agrees": True, "why": "", "event_id": 0}
    assert "history" not in told


def test_code_that_does_otherwise_is_said_with_where(mulligan: Mulligan, capsule: Callable[..., str]) -> None:
    """The exit code is its own, and the action at which it does is named."""

    def other(document: dict[str, Any]) -> None:
        for event in document["history"]["events"]:
            if event.get("activityTaskScheduledEventAttributes", {}).get("activityId") == "1/boot/boot":
                event["activityTaskScheduledEventAttributes"]["activityId"] = "1/boot/kick"

    done = mulligan("run", "replay", capsule(other))
    assert done.returncode == 15
    assert "DISAGREES" in done.stdout.splitlines()[-1]
    assert "1/boot/kick" in done.stdout.splitlines()[-1]
    assert done.stderr == ""


def test_what_temporal_stumbles_over_is_told_at_once(mulligan: Mulligan, capsule: Callable[..., str]) -> None:
    """A history that no server would send breaks its core down: not a word of that, and no waiting for it."""

    def without_a_task_done(document: dict[str, Any]) -> None:
        events = document["history"]["events"]
        done = [event for event in events if "workflowTaskCompletedEventAttributes" in event]
        events.remove(done[-1])
        document["history"]["events"] = [{**event, "eventId": str(at)} for at, event in enumerate(events, 1)]

    done = mulligan("run", "replay", capsule(without_a_task_done))
    assert done.returncode == 2
    assert done.stderr.startswith("error: Temporal could make nothing of the history in this capsule")
    assert len(done.stderr.splitlines()) == 1


def test_a_capsule_without_history_is_told_and_cannot_be_replayed(
    mulligan: Mulligan, capsule: Callable[..., str]
) -> None:
    """Its story is all there is."""
    done = mulligan("run", "replay", capsule(lambda document: document.update(history=None)))
    assert done.returncode == 4
    assert "run ended: ready" in done.stdout
    assert "holds no history and cannot be replayed" in done.stderr


@pytest.mark.parametrize(("field", "value"), [("attempts", 10**30), ("explanation", {"verdict": "fits"})])
def test_an_event_that_no_run_told_is_damage(
    mulligan: Mulligan, capsule: Callable[..., str], field: str, value: object
) -> None:
    """It is named, and nothing breaks."""

    def damage(document: dict[str, Any]) -> None:
        document["events"][3][field] = value

    done = mulligan("run", "replay", capsule(damage))
    assert done.returncode == 2
    assert "of this capsule is damaged; export the run again" in done.stderr
    assert mulligan("run", "replay", capsule(damage), "--output", "json").returncode == 2


@pytest.mark.parametrize(
    ("data", "code", "says"),
    [
        (None, 3, "there is no file"),
        (b"not one", 2, "is no capsule"),
        (READY[:500], 2, "is cut off"),
        (b"bomb", 2, "expands to more than 256 MiB"),
    ],
    ids=["missing", "foreign", "truncated", "bomb"],
)
def test_what_is_no_capsule_is_refused(
    mulligan: Mulligan, tmp_path: Path, data: bytes | None, code: int, says: str
) -> None:
    """In one line, with the file's name."""
    if data == b"bomb":
        with gzip.open(tmp_path / "it", "wb", 1) as file:
            for _ in range(260):
                file.write(bytes(2**20))
    elif data is not None:
        (tmp_path / "it").write_bytes(data)
    done = mulligan("run", "replay", "it")
    assert done.returncode == code
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_stepping_needs_a_terminal(mulligan: Mulligan) -> None:
    """Nobody could press Enter."""
    done = mulligan("run", "replay", str(CORPUS / "simulated-ready.capsule"), "--step")
    assert done.returncode == 2
    assert "terminal" in done.stderr


def test_a_step_is_told_at_each_enter(environment: dict[str, str], tmp_path: Path) -> None:
    """The next event waits for the key; Ctrl-C ends it."""
    words = ("run", "replay", str(CORPUS / "simulated-ready.capsule"), "--step")
    with Terminal(words, environment, tmp_path) as terminal:
        terminal.wait_for("run started")
        assert "claim begins" not in terminal.shown
        terminal.press(b"\n")
        terminal.wait_for("claim begins")
        assert "claim done" not in terminal.shown
        terminal.press(CTRL_C)
        assert terminal.finish() == 130
    with Terminal(words, environment, tmp_path) as terminal:
        terminal.press(b"\n" * 100)
        assert terminal.finish() == 0
    assert "agrees: " in terminal.shown
