"""`mulligan provider add` for a server behind a BMC, on the embedded stack; its password is found nowhere else."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from mulligan.api.cli.exit_codes import ExitCode
from tests.drivers.bmc.machine import Machine, a_mac
from tests.drivers.bmc.server import PASSWORD, USER, LyingBmc
from tests.services.stack import Stack

DISK = b"\x00" * 510 + b"\x55\xaa" + b"\x00" * (2 << 20)
WRONG = "canary-that-is-wrong"


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack that knows two credentials, and an image."""
    with Stack(tmp_path_factory.mktemp("bmc")) as running:
        running.up()
        credentials = running.state_dir / "credentials.yaml"
        credentials.touch(0o600)
        credentials.write_text(
            f"rack: {{username: {USER}, password: {PASSWORD}}}\nold: {{username: {USER}, password: {WRONG}}}\n"
        )
        (running.state_dir / "images").mkdir(exist_ok=True)
        (running.state_dir / "images" / "disk.raw").write_bytes(DISK)
        call(running, "image", "add", "demo", str(running.state_dir / "images" / "disk.raw"), "--login", "demo")
        yield running


@pytest.fixture(scope="module")
def bmc() -> Iterator[LyingBmc]:
    """A BMC that repeats passwords in what it refuses."""
    with LyingBmc(Machine("1"), Machine("2", serial="SN-4711-B")).listening() as running:
        running.lies.echoes = True
        yield running


def call(stack: Stack, *arguments: str, code: ExitCode = ExitCode.OK) -> subprocess.CompletedProcess[str]:
    """Run `mulligan` to its end, which must be this one; nothing that it says is secret."""
    done = stack.run(*arguments, seconds=90)
    assert done.returncode == code, done.stdout + done.stderr
    assert PASSWORD not in done.stdout + done.stderr
    return done


def test_a_server_is_added_by_its_bmc(stack: Stack, bmc: LyingBmc) -> None:
    """Looked at, registered as given whole, with its facts, and by what it boots the agent; nothing is changed."""
    call(stack, "provider", "add", "srv-1", f"{bmc.url}/redfish/v1/Systems/1", "--credential", "rack")
    told = json.loads(call(stack, "provider", "show", "srv-1", "--output", "json").stdout)
    assert "driver.redfish" in str(told)
    assert "SN-4711-A" in str(told)
    assert {"boot.disk", "boot.virtual-media", "deploy.agent"} <= set(told.get("provider", told)["capabilities"])
    assert "52:54:00:00:00:01" in told.get("provider", told)["settings"]["macs"]
    assert bmc.changes() == []


def test_a_server_with_the_network_card_of_another_is_not_added(stack: Stack, bmc: LyingBmc) -> None:
    """Nor is one given it later. The refusal names the other server, and what it says to do helps."""
    add = ("provider", "add", "srv-2", f"{bmc.url}/redfish/v1/Systems/2", "--credential", "rack")
    done = call(stack, *add, code=ExitCode.CONFLICT)
    assert "belongs to provider 'srv-1'" in " ".join(done.stderr.split())
    call(stack, "provider", "show", "srv-2", code=ExitCode.NOT_FOUND)
    call(stack, *add, "--set", "macs=52:54:00:00:00:02")
    done = call(stack, "provider", "set", "srv-2", "--set", "macs=52-54-00-00-00-01", code=ExitCode.CONFLICT)
    assert "belongs to provider 'srv-1'" in " ".join(done.stderr.split())
    call(stack, "provider", "remove", "srv-2")


def test_its_bmc_is_listed(stack: Stack, bmc: LyingBmc) -> None:
    """With how it answers, asked now; shown with its server; and doctor sees that nobody else could speak to it."""
    listed = call(stack, "bmc", "list", "--provider", "srv-1", "--probe", "--output", "json").stdout
    (told,) = [json.loads(line) for line in listed.splitlines()]
    assert (told["state"], told["providers"]) == ("BMC_STATE_ANSWERS", ["srv-1"])
    assert told["asked"] >= 1 and told["failed"] == 0
    shown = call(stack, "provider", "show", "srv-1").stdout
    assert f"{told['name']} answers, answered " in shown
    findings = [json.loads(line) for line in stack.run("doctor", "--output", "json", seconds=90).stdout.splitlines()]
    about = {each["name"]: each for each in findings}
    assert about["lanes"]["state"] == about["locks"]["state"] == "fine"
    assert "partition default, which has servers" in about["lanes"]["asked"]
    assert bmc.changes() == []


def test_a_setting_that_is_mistyped_is_said_with_the_nearest(stack: Stack, bmc: LyingBmc) -> None:
    """And with what is wrong about the others."""
    url = f"{bmc.url}/redfish/v1/Systems/1"
    wrong = ("--set", "boot_ulr=http://10.0.0.1:7421", "--set", "boot_from=cd")
    done = call(stack, "provider", "add", "srv-9", url, "--credential", "rack", *wrong, code=ExitCode.USAGE)
    told = " ".join((done.stdout + done.stderr).split())
    assert "nearest are boot_url" in told
    assert "auto, virtual-media, network" in told


@pytest.mark.parametrize(
    ("path", "credential", "code", "said"),
    [
        ("/redfish/v1/Systems/1", "old", ExitCode.DENIED, "check the user name and password"),
        ("/redfish/v1/Systems/1", "rakc", ExitCode.NOT_FOUND, "nearest are rack"),
        ("/redfish/v1/Systems/9", "rack", ExitCode.NOT_FOUND, "2 (serial number SN-4711-B)"),
        ("/redfish/v1", "rack", ExitCode.USAGE, "--set serial=NUMBER"),
    ],
)
def test_what_is_wrong_is_said(
    stack: Stack, bmc: LyingBmc, path: str, credential: str, code: ExitCode, said: str
) -> None:
    """At the prompt, with what to do."""
    done = call(stack, "provider", "add", "srv-9", bmc.url + path, "--credential", credential, code=code)
    assert said in " ".join((done.stdout + done.stderr).split())


def test_a_bmc_that_does_not_answer_is_said(stack: Stack) -> None:
    """After a few attempts, and not after minutes."""
    url = "redfish://127.0.0.1:1/redfish/v1/Systems/1"
    done = call(stack, "provider", "add", "srv-9", url, "--credential", "rack", code=ExitCode.NOT_READY)
    assert "no answer from https://127.0.0.1:1" in " ".join((done.stdout + done.stderr).split())


def test_a_server_whose_bmc_is_gone_can_be_forgotten(stack: Stack) -> None:
    """At once: nothing of it has to answer for that."""
    with LyingBmc(Machine("1", mac=a_mac())).listening() as gone:
        call(stack, "provider", "add", "srv-3", f"{gone.url}/redfish/v1/Systems/1", "--credential", "rack")
    call(stack, "provider", "remove", "srv-3")
    call(stack, "provider", "show", "srv-3", code=ExitCode.NOT_FOUND)


def test_passwords_are_kept_in_their_file_only(stack: Stack) -> None:
    """Neither in a log, nor in the database, nor in Temporal's, nor among a process's arguments."""
    held = [path for path in stack.state_dir.rglob("*") if path.is_file() and _holds_one(path.read_bytes())]
    held += [path for path in Path("/proc").glob("[0-9]*/cmdline") if _holds_one(_read(path))]
    assert held == [stack.state_dir / "credentials.yaml"]


def test_a_worker_that_ends_leaves_no_session(stack: Stack, bmc: LyingBmc) -> None:
    """The one that is shared still is open a moment after its use, and is ended with the worker."""
    call(stack, "provider", "add", "srv-1", f"{bmc.url}/redfish/v1/Systems/1", "--credential", "rack")
    assert len(bmc.sessions) == 1
    stack.stop()
    assert bmc.sessions == {}


def _holds_one(content: bytes) -> bool:
    return PASSWORD.encode() in content or WRONG.encode() in content


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # the process ended meanwhile
        return b""
