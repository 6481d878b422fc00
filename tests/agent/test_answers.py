"""What the agent makes of the boot server's answers: which end a boot, which are waited out, and never a loop."""

from __future__ import annotations

from pathlib import Path

import pytest

from mulligan.activities.agent.on_machine.main import POWER_OFF
from tests.agent.machine import MIB, Machine, deployment, disk_image, erasing


@pytest.mark.parametrize("refused", ["configuration", "permits", "reports"])
@pytest.mark.parametrize("status", [400, 405, 413, 422, 431])
def test_an_answer_that_will_not_change_ends_the_boot(machine: Machine, refused: str, status: int) -> None:
    """Whatever the request was: the disk stays as it is, and why is said."""
    disk = machine.disk("sda", 8)
    server = erasing("metadata")
    server.refuse, server.refuse_status = refused, status
    with server:
        done = machine.boot(server.url)
    assert done.returncode == POWER_OFF
    assert f"refuses this boot: {refused}: {status} this job is over" in done.stdout
    assert disk.read_bytes() == b"old " * (MIB // 4) * 8


@pytest.mark.parametrize("status", [408, 425, 429, 500, 503])
def test_an_answer_that_says_to_come_again_is_waited_out(machine: Machine, status: int) -> None:
    """A boot is not over for it."""
    machine.disk("sda", 8)
    server = erasing("metadata")
    server.away, server.away_status = 1, status
    with server:
        machine.boot(server.url)
    assert server.last["phase"] == "waiting"


def test_hardware_that_is_too_much_is_told_without_its_lists(machine: Machine) -> None:
    """What tells the server from others arrives, and the work goes on."""
    for number in range(8):
        machine.disk(f"sd{'abcdefgh'[number]}", 2)
    (machine.sys / "class/dmi/id/product_serial").write_text("S-1\n")
    server = erasing("metadata", only=[{"path": "/dev/sda", "serial": "serial-sda"}])
    server.most = 1000
    with server:
        done = machine.boot(server.url)
    assert server.last["phase"] == "waiting", done.stdout + done.stderr
    told = server.reports[0]["hardware"]
    assert told["serial"] == "S-1"
    assert "disks" not in told and "nics" not in told
    assert "the boot server takes no such report" in done.stdout


def test_a_result_that_is_too_much_is_a_failure_with_a_name(machine: Machine) -> None:
    """It is not told for ever, and nobody believes what cannot be looked at."""
    for name in ("sda", "sdb", "sdc"):
        machine.disk(name, 2)
    server = erasing("metadata")
    server.most = 700
    with server:
        done = machine.boot(server.url)
    assert done.returncode == POWER_OFF
    assert server.last["error"]["name"] == "REPORT_TOO_LARGE"
    assert "413 too large" in server.last["error"]["message"]


@pytest.mark.parametrize("status", [200, 202, 301, 302, 307])
def test_only_a_permit_is_a_permit(machine: Machine, status: int) -> None:
    """What a proxy answers in the boot server's place is none: nothing is written."""
    disk = machine.disk("sda", 8)
    server = erasing("metadata")
    server.refuse, server.refuse_status, server.leads = "permits", status, "http://proxy.example/login"
    with server:
        done = machine.boot(server.url)
    assert done.returncode == POWER_OFF
    assert f"permits: it answered {status} and leads to http://proxy.example/login, and not 204" in done.stdout
    assert disk.read_bytes() == b"old " * (MIB // 4) * 8


@pytest.mark.parametrize("name", ["configuration", "reports"])
@pytest.mark.parametrize("status", [202, 204, 302])
def test_only_an_answer_is_an_answer(machine: Machine, name: str, status: int) -> None:
    """The boot ends before anything is asked for."""
    machine.disk("sda", 8)
    server = erasing("metadata")
    server.refuse, server.refuse_status = name, status
    with server:
        done = machine.boot(server.url)
    assert f"refuses this boot: {name}: it answered {status}, and not 200" in done.stdout
    assert (done.returncode, server.permits) == (POWER_OFF, [])


@pytest.mark.parametrize("name", ["image", "seed"])
def test_only_the_bytes_that_were_asked_for_are_written(machine: Machine, tmp_path: Path, name: str) -> None:
    """A page of somebody else's is no image."""
    machine.disk("sda", 32)
    server = deployment(disk_image(tmp_path, "gpt"))
    server.refuse, server.refuse_status, server.leads = name, 302, "/elsewhere"
    with server:
        done = machine.boot(server.url)
    assert f"refuses this boot: {name}: it answered 302 and leads to /elsewhere, and not 206" in done.stdout
