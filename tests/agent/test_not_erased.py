"""What an erase does not reach: told by name, never passed over, and no reason to leave the other disks readable."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mulligan.activities.agent.on_machine.hardware import disks
from tests.agent.boot_server import BootServer
from tests.agent.machine import MIB, Machine, erasing

OLD = b"old " * (MIB // 4)
NEXT = "Replace or remove what is named here and release the machine again, or leave disks as they are with"


def failed(machine: Machine, server: BootServer) -> str:
    """Why it is not erased, as the run is told."""
    with server:
        done = machine.boot(server.url)
    assert server.last["phase"] == "failed", done.stdout + done.stderr
    error: dict[str, str] = server.last["error"]
    assert error["name"] == "NOT_ERASED"
    assert f"{NEXT} `--erase none`" in error["message"]
    return error["message"]


@pytest.mark.parametrize("mode", ["metadata", "full"])
@pytest.mark.parametrize(
    ("facts", "why"),
    [({"ro": "1"}, "it is read-only"), ({"size": "0"}, "it tells no size")],
    ids=["read-only", "dead"],
)
def test_a_disk_that_cannot_be_erased_is_named_once_the_others_are(
    machine: Machine, mode: str, facts: dict[str, str], why: str
) -> None:
    """It stands before the one that can: as little as possible is left, and no permit is asked for what is not done."""
    machine.disk("sda", 8)
    machine.disk("sdb", 8, **{"device/serial": "worn", **facts})
    good = machine.disk("sdc", 8)
    server = erasing(mode)
    said = failed(machine, server)
    assert said.startswith("1 disk(s) could not be erased, 2 were. ")
    assert "/sdb (TESTDISK, worn, " in said and f" bytes): {why}" in said
    assert good.read_bytes()[:MIB] == bytes(MIB)
    assert [permit["disk"]["serial"] for permit in server.permits] == ["serial-sda", "serial-sdc"]


def test_a_disk_that_breaks_while_it_is_erased_keeps_no_other_from_it(machine: Machine) -> None:
    """All that went wrong is told."""
    machine.disk("sda", 8).unlink()
    machine.disk("sdb", 8, ro="1")
    good = machine.disk("sdc", 8)
    said = failed(machine, erasing("metadata"))
    assert said.startswith("2 disk(s) could not be erased, 1 were. ")
    assert "sda cannot be opened" in said and "/sdb (" in said
    assert good.read_bytes()[:MIB] == bytes(MIB)


def test_a_disk_that_was_written_and_is_gone_is_told(machine: Machine) -> None:
    """Whoever has it can read it; what is still there is erased."""
    good, other = machine.disk("sda", 8), machine.disk("sdc", 8)
    only = [{"path": "/dev/sda", "serial": "serial-sda"}, {"path": "/dev/sdb", "serial": "serial-sdb"}]
    said = failed(machine, erasing("metadata", only=only))
    assert "/dev/sdb (serial-sdb): it was to be erased, and no fixed disk of this server is it" in said
    assert good.read_bytes()[:MIB] == bytes(MIB)
    assert other.read_bytes() == OLD * 8


def test_a_disk_that_is_none_of_the_written_ones_is_no_fault(machine: Machine) -> None:
    """However broken it is: nothing of this run is on it."""
    machine.disk("sda", 8)
    machine.disk("sdb", 8, ro="1")
    machine.disk("sdc", 8, size="0")
    with erasing("metadata", only=[{"path": "/dev/sda", "serial": "serial-sda"}]) as server:
        machine.boot(server.url)
    assert [each["disk"]["serial"] for each in server.last["result"]["disks"]] == ["serial-sda"]


def test_a_removable_disk_is_told_as_passed_over(machine: Machine) -> None:
    """Whoever reads the evidence sees that a bay with a disk was left as it was."""
    machine.disk("sda", 8)
    stick = machine.disk("sdb", 8, removable="1", ro="1")
    with erasing("full") as server:
        machine.boot(server.url)
    result: dict[str, Any] = server.last["result"]
    (skipped,) = result["skipped"]
    assert (skipped["disk"]["serial"], skipped["why"]) == ("serial-sdb", "it is removable")
    assert [each["disk"]["serial"] for each in result["disks"]] == ["serial-sda"]
    assert stick.read_bytes() == OLD * 8


@pytest.mark.parametrize(
    ("name", "facts"),
    [
        ("sdb", {"size": "0", "removable": "1"}),
        ("mmcblk0boot0", {"ro": "1"}),
        ("mmcblk0rpmb", {"ro": "1"}),
        ("mtdblock0", {"ro": "1"}),
        ("nvme0c0n1", {"hidden": "1", "size": "0"}),
        ("sdb", {"size": "0", "device/wwid": "naa.5000c500a1b2c3d4"}),
    ],
    ids=["empty-drive", "firmware's", "keys", "flash", "nvme-path", "path"],
)
def test_what_is_no_disk_of_its_own_fails_no_erase(machine: Machine, name: str, facts: dict[str, str]) -> None:
    """Empty drives, what belongs to the firmware, and further paths to a disk that is erased."""
    machine.disk("sda", 8, **{"device/wwid": "naa.5000c500a1b2c3d4"})
    machine.disk(name, 8, **facts)
    with erasing("metadata") as server:
        machine.boot(server.url)
    assert len(server.last["result"]["disks"]) == 1
    assert server.last["result"]["skipped"] == []


def test_a_device_of_size_0_that_nothing_stands_behind_is_no_disk(machine: Machine) -> None:
    """Drivers list names for what may be attached later."""
    machine.disk("sda", 8)
    (machine.sys / "block/rbd0").mkdir()
    (machine.sys / "block/rbd0/size").write_text("0")
    assert [Path(disk.path).name for disk in disks(machine.sys, machine.dev)] == ["sda"]
