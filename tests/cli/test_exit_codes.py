"""How a command ends: by the run's outcome, by the error's reason, by the status; always with what to do next."""

from __future__ import annotations

import json
import subprocess
import threading
from pathlib import Path

import grpc
import pytest
from google.rpc import error_details_pb2

from mulligan.activities.errors import MulliganError
from mulligan.api.cli import exit_codes
from mulligan.api.cli.exit_codes import ExitCode
from mulligan.v1 import inventory_pb2, machine_pb2, provisioning_pb2, run_pb2
from tests.cli.conftest import BINARY, Mulligan
from tests.cli.scripted import (
    ID,
    ScriptedApi,
    event,
    machine,
    provisions,
    refusal,
    releases,
    run_update,
    watches,
)

PROVISION = ("machine", "provision", "web-1", "--image", "demo", "--ssh-key", "none")


def ended(outcome: str, reason: str) -> list[run_pb2.RunUpdate]:
    """A run that ended so."""
    number = run_pb2.RunOutcome.Value(f"RUN_OUTCOME_{outcome}")
    return [
        run_update(),
        event(1, "RUN_FINISHED", message=f"it ended as {outcome}", reason=reason, outcome=number),
        run_update(outcome, reason=f"it ended as {outcome}"),
    ]


def explanation() -> inventory_pb2.Explanation:
    """Nothing could hold it."""
    return inventory_pb2.Explanation(
        verdict=inventory_pb2.Explanation.VERDICT_NEVER,
        funnel=[inventory_pb2.Predicate(name="vcpu", description="at least 64 vcpu", remaining=0, removed=2)],
        never_count=2,
        near_misses=[inventory_pb2.NearMiss(provider="hyp-1", failing=["vcpu"], detail="has 8 of 64 vcpu")],
        summary="asked for 64 vcpu; the largest has 8",
    )


@pytest.mark.parametrize(
    ("outcome", "reason", "code"),
    [
        ("READY", "", ExitCode.OK),
        ("FAILED", "VERIFY_FAILED", ExitCode.RUN_FAILED),
        ("FAILED", "NEVER_FITS", ExitCode.NO_ROOM),
        ("FAILED", "NOT_NOW", ExitCode.NO_ROOM),
        ("CANCELLED", "CANCELLED", ExitCode.CANCELLED),
        ("QUARANTINED", "QUARANTINED", ExitCode.QUARANTINED),
        ("TERMINATED", "TERMINATED", ExitCode.TERMINATED),
    ],
)
def test_a_followed_run_ends_the_command(
    api: ScriptedApi, mulligan: Mulligan, outcome: str, reason: str, code: ExitCode
) -> None:
    """The exit code is the outcome's, and a bad end says why and what next."""
    api.handlers["WatchRun"] = watches(ended(outcome, reason))
    done = mulligan("run", "watch", ID)
    assert done.returncode == code
    if code is not ExitCode.OK:
        assert f"it ended as {outcome}" in done.stderr
        assert "next: mulligan " in done.stderr


def test_what_becomes_of_a_terminated_runs_claim_is_told_once(api: ScriptedApi, mulligan: Mulligan) -> None:
    """The run says it, and so would the command."""
    says = "terminated from outside, without undo; what it holds is reclaimed when its lease has passed"
    over = event(1, "RUN_FINISHED", message=says, reason="TERMINATED", outcome=run_pb2.RUN_OUTCOME_TERMINATED)
    api.handlers["WatchRun"] = watches([run_update(), over, run_update("TERMINATED", reason=says)])
    error = next(line for line in mulligan("run", "watch", ID).stderr.splitlines() if line.startswith("error: "))
    assert error == f"error: {ID}: {says}"


@pytest.mark.parametrize("outcome", ["CANCELLED", "TERMINATED", "RELEASED", "FAILED"])
def test_a_machine_that_is_gone_was_released(api: ScriptedApi, mulligan: Mulligan, outcome: str) -> None:
    """However its own run ended, e.g. by being cancelled for it: exactly what was asked has happened."""
    gone = machine()
    gone.state = machine_pb2.MACHINE_STATE_FAILED
    api.handlers["ReleaseMachine"] = releases([*ended(outcome, outcome), run_pb2.RunUpdate(machine=gone)])
    done = mulligan("machine", "release", "web-1")
    assert (done.returncode, done.stdout) == (ExitCode.OK, "machine web-1 is gone; nothing of it is left\n")
    assert "error:" not in done.stderr
    lines = mulligan("machine", "release", "web-1", "--output", "json").stdout.splitlines()
    assert json.loads(lines[-1])["machine"]["state"] == "MACHINE_STATE_FAILED"


@pytest.mark.parametrize(("outcome", "code"), [("CANCELLED", 7), ("QUARANTINED", 8), ("FAILED", 6)])
def test_a_machine_that_is_not_gone_was_not_released(
    api: ScriptedApi, mulligan: Mulligan, outcome: str, code: int
) -> None:
    """The outcome of the run says what is wrong."""
    left = machine()
    left.state = machine_pb2.MACHINE_STATE_QUARANTINED
    api.handlers["ReleaseMachine"] = releases([*ended(outcome, outcome), run_pb2.RunUpdate(machine=left)])
    done = mulligan("machine", "release", "web-1")
    assert done.returncode == code
    assert f"it ended as {outcome}" in done.stderr


def test_output_that_cannot_be_written_is_said(api: ScriptedApi, environment: dict[str, str], tmp_path: Path) -> None:
    """On a full disk, and with standard output closed: one line, and no traceback."""
    api.handlers["GetMachine"] = lambda request, context: provisioning_pb2.GetMachineResponse(machine=machine())
    for arguments in ("machine show web-1", "machine show web-1 --output json", "--help"):
        for where, why in (("> /dev/full", "No space left on device"), (">&-", "standard output is closed")):
            command = f"exec {BINARY} {arguments} {where}"
            shell = ["sh", "-c", command]
            done = subprocess.run(
                shell, env=environment, cwd=tmp_path, stderr=subprocess.PIPE, text=True, timeout=60, check=False
            )
            assert done.returncode == ExitCode.UNEXPECTED
            assert len(done.stderr.splitlines()) == 1
            assert done.stderr.startswith("error: ") and why in done.stderr


def test_a_held_machine_ends_the_command_but_not_the_run(api: ScriptedApi, mulligan: Mulligan) -> None:
    """`machine provision` does not wait for an operator who may come next week."""
    updates = [run_update(), event(1, "HELD", "record", "held", "kept for inspection"), *ended("FAILED", "")[1:]]
    api.handlers["ProvisionMachine"] = provisions(updates)
    done = mulligan(*PROVISION)
    assert done.returncode == ExitCode.HELD
    assert f"mulligan run cancel {ID}" in done.stderr


def test_no_room_shows_the_funnel(api: ScriptedApi, mulligan: Mulligan) -> None:
    """A run that found no provider shows the explanation that its claim failed with."""
    failed = event(7, "ACTION_FAILED", "claim", "claim", "nothing fits")
    failed.event.explanation.CopyFrom(explanation())
    api.handlers["ProvisionMachine"] = provisions([run_update(), failed, *ended("FAILED", "NEVER_FITS")[1:]])
    done = mulligan(*PROVISION, "--vcpu", "64")
    assert done.returncode == ExitCode.NO_ROOM
    assert "at least 64 vcpu" in done.stderr
    assert "has 8 of 64 vcpu" in done.stderr


@pytest.mark.parametrize(
    ("status", "reason", "code"),
    [
        ("INVALID_ARGUMENT", "INVALID_REQUEST", ExitCode.USAGE),
        ("NOT_FOUND", "NOT_FOUND", ExitCode.NOT_FOUND),
        ("ALREADY_EXISTS", "ALREADY_EXISTS", ExitCode.CONFLICT),
        ("ABORTED", "CONFLICT", ExitCode.CONFLICT),
        ("FAILED_PRECONDITION", "NEVER_FITS", ExitCode.NO_ROOM),
        ("RESOURCE_EXHAUSTED", "NOT_NOW", ExitCode.NO_ROOM),
        ("PERMISSION_DENIED", "ACCESS_DENIED", ExitCode.DENIED),
        ("FAILED_PRECONDITION", "HOST_NOT_READY", ExitCode.NOT_READY),
        ("UNAVAILABLE", "UNREACHABLE", ExitCode.NOT_READY),
        ("INTERNAL", "INTERNAL", ExitCode.UNEXPECTED),
    ],
)
def test_a_refusal_ends_the_command(
    api: ScriptedApi, mulligan: Mulligan, status: str, reason: str, code: ExitCode
) -> None:
    """The reason decides; the message is the API's own; JSON says the same to programs."""
    api.handlers["GetMachine"] = refusal(status, "asked for web-1, found none", reason, looked_for="web-1")
    done = mulligan("machine", "show", "web-1", "--output", "json")
    error = json.loads(done.stderr)["error"]
    assert (done.returncode, error["exit_code"], error["code"]) == (code, code, code.name)
    assert (error["reason"], error["message"]) == (reason, "asked for web-1, found none")
    assert error["metadata"] == {"looked_for": "web-1"}
    assert done.stdout == ""


def test_violations_and_explanations_are_shown(api: ScriptedApi, mulligan: Mulligan) -> None:
    """Each wrong field has its line, the funnel its table, and a remedy is the next command."""
    violation = error_details_pb2.BadRequest.FieldViolation(field="spec.resources.vcpu", description="at least 1")
    bad = error_details_pb2.BadRequest(field_violations=[violation])
    api.handlers["ProvisionMachine"] = refusal(
        "INVALID_ARGUMENT", "the request is wrong", "INVALID_REQUEST", bad, explanation(), remedy="apt-get install x"
    )
    done = mulligan(*PROVISION)
    assert done.returncode == ExitCode.USAGE
    assert "  --vcpu: at least 1" in done.stderr.splitlines()
    assert "has 8 of 64 vcpu" in done.stderr
    assert "next: apt-get install x" in done.stderr.splitlines()


@pytest.mark.parametrize(
    ("field", "told"),
    [
        ("spec.name", "NAME"),
        ("spec.resources.memory_mib", "--memory"),
        ("spec.requires[1]", "--require"),
        ("spec.ssh_keys[0]", "--ssh-key"),
        ("spec.deadlines.boot_seconds", "--deadline boot"),
        ("spec.service.port", "--service"),
        ("spec.on_failure", "--on-failure"),
        ("spec.no_such_flag", "spec.no_such_flag"),
    ],
)
def test_a_wrong_field_is_told_as_its_flag(api: ScriptedApi, mulligan: Mulligan, field: str, told: str) -> None:
    """To whoever typed flags; programs, and whoever wrote a file, are told of the field."""
    violation = error_details_pb2.BadRequest.FieldViolation(field=field, description="wrong")
    bad = error_details_pb2.BadRequest(field_violations=[violation])
    api.handlers["ProvisionMachine"] = refusal("INVALID_ARGUMENT", "the request is wrong", "INVALID_REQUEST", bad)
    assert f"  {told}: wrong" in mulligan(*PROVISION).stderr.splitlines()
    if field == "spec.name":
        as_json = mulligan(*PROVISION, "--output", "json").stderr.splitlines()[-1]
        assert json.loads(as_json)["error"]["violations"] == [{"field": field, "description": "wrong"}]
        from_file = mulligan("machine", "provision", "--file", "-", stdin="name: web-1\nimage: demo\n")
        assert f"  {field}: wrong" in from_file.stderr.splitlines()


@pytest.mark.parametrize(
    ("field", "told"),
    [("seconds", "--by"), ("lever.reason", "--reason"), ("lever.run_id", "--run-id"), ("lever.none", "lever.none")],
)
def test_a_wrong_field_of_a_lever_is_told_as_its_flag(
    api: ScriptedApi, mulligan: Mulligan, field: str, told: str
) -> None:
    """Also where the flag has another name than the field."""
    violation = error_details_pb2.BadRequest.FieldViolation(field=field, description="wrong")
    bad = error_details_pb2.BadRequest(field_violations=[violation])
    api.handlers["ExtendRun"] = refusal("INVALID_ARGUMENT", "the request is wrong", "INVALID_REQUEST", bad)
    shown = mulligan("run", "extend", "provision:default:web-1", "--by", "0").stderr.splitlines()
    assert f"  {told}: wrong" in shown


def test_a_slow_answer_is_timed_out(api: ScriptedApi, mulligan: Mulligan) -> None:
    """`--timeout` on a question is how long to wait."""
    api.handlers["GetMachine"] = lambda request, context: _never(context)
    done = mulligan("machine", "show", "web-1", "--timeout", "1")
    assert done.returncode == ExitCode.TIMED_OUT


def _never(context: grpc.ServicerContext) -> None:
    gone = threading.Event()
    context.add_callback(gone.set)
    gone.wait(30)


def test_every_error_of_the_domain_has_an_exit_code() -> None:
    """No reason of the tree ends as UNEXPECTED, but for the classes that only group others."""
    groups = {"TRANSIENT", "FINAL"}
    kinds = [each for base in MulliganError.__subclasses__() for each in (base, *base.__subclasses__())]
    reasons = {kind("").reason for kind in kinds if kind.__module__ == MulliganError.__module__} - groups
    assert [reason for reason in reasons if exit_codes.of_error(reason) is ExitCode.UNEXPECTED] == []


def test_every_outcome_has_an_exit_code() -> None:
    """No outcome of the contract ends as UNEXPECTED."""
    names = [name.removeprefix("RUN_OUTCOME_") for name in run_pb2.RunOutcome.keys()]  # noqa: SIM118 - not a mapping
    outcomes = [name for name in names if name != "UNSPECIFIED"]
    assert [name for name in outcomes if exit_codes.of_outcome(name) is ExitCode.UNEXPECTED] == []


def test_every_exit_code_is_in_the_help(mulligan: Mulligan) -> None:
    """`mulligan --help` names each with its number."""
    shown = mulligan("--help").stdout
    assert [code for code in ExitCode if f"{int(code):>3} {code.name} " not in shown] == []


@pytest.mark.parametrize(
    "arguments",
    [
        ("no-such-noun",),
        ("machine", "provision"),
        ("machine", "list", "--no-such-option"),
        ("machine", "list", "--api", "nowhere"),
        ("provider", "set", "hyp-1"),
        ("provider", "set", "hyp-1", "--reserve", "vcpu"),
        ("image", "add", "debian", "https://example.org/debian.qcow2"),
    ],
)
def test_wrong_usage_says_so(mulligan: Mulligan, arguments: tuple[str, ...]) -> None:
    """A wrong command ends as USAGE, in JSON too, and asks nothing of the API."""
    plain = mulligan(*arguments)
    assert (plain.returncode, plain.stdout) == (ExitCode.USAGE, "")
    assert plain.stderr.startswith("error: ")
    assert json.loads(mulligan(*arguments, "--output=json").stderr)["error"]["exit_code"] == ExitCode.USAGE
