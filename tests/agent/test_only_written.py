"""Only what an earlier boot wrote is erased: the kernel may give its name to another disk in this boot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mulligan.activities.agent.on_machine.hardware import disks
from mulligan.activities.agent.on_machine.known import same
from tests.agent.machine import MIB, Machine, deployment, disk_image, erasing

OLD = b"old " * (MIB // 4)
VOLUMES = {"sda": "5000000000000001", "sdb": "5000000000000002"}
CONTROLLER = {"device/serial": "controller-1", "device/model": "VD"}
BARE = {"device/serial": "", "device/model": ""}


def plugged(machine: Machine, name: str, mib: int = 8, **facts: str) -> Path:
    """A disk that tells as little as is said."""
    return machine.disk(name, mib, **{**BARE, **facts})


def told(machine: Machine, name: str) -> dict[str, Any]:
    """The disk as the boot server keeps it."""
    return next(disk.as_json() for disk in disks(machine.sys, machine.dev) if disk.path.endswith(name))


def erased(machine: Machine, *only: dict[str, Any]) -> list[str]:
    """The names of the disks that are erased; none where it fails, which it then says as it should."""
    before = {disk.name: disk.read_bytes() for disk in machine.dev.iterdir()}
    with erasing("metadata", only=only) as server:
        machine.boot(server.url)
    changed = sorted(name for name, content in before.items() if (machine.dev / name).read_bytes() != content)
    asked = sorted(Path(permit["disk"]["path"]).name for permit in server.permits)
    assert asked == changed, "asked for what it does not erase"
    if not changed:
        assert server.last["error"]["name"] == "NOT_ERASED"
        assert "cannot be told" in server.last["error"]["message"] or "put it back" in server.last["error"]["message"]
    return changed


def other_boot(tmp_path: Path) -> Machine:
    """The same server, booted once more."""
    return Machine(tmp_path / "again")


@pytest.mark.parametrize("serial", ["", "controller-1"])
def test_a_disk_is_found_again_under_another_name(tmp_path: Path, serial: str) -> None:
    """Volumes of a controller: their serial number is its own, or there is none, and their names are swapped."""
    first, again = Machine(tmp_path / "first"), other_boot(tmp_path)
    facts = {**CONTROLLER, "device/serial": serial}
    for name, wwn in VOLUMES.items():
        plugged(first, name, 32, **facts, wwid=f"naa.{wwn}")
        plugged(again, {"sda": "sdb", "sdb": "sda"}[name], 32, **facts, wwid=f"naa.{wwn}")
    with deployment(disk_image(tmp_path, "gpt")) as server:
        first.boot(server.url)
    wrote = server.permits[0]["disk"]
    assert wrote["path"].endswith("sda")
    assert erased(again, wrote | {"path": str(again.dev / "sda")}) == ["sdb"]


def test_a_name_alone_erases_nothing(machine: Machine) -> None:
    """As permits of an older boot server have it: nothing else is known of a disk without a serial number."""
    disk = plugged(machine, "vda")
    assert erased(machine, {"path": str(disk), "serial": ""}) == []


def test_what_tells_least_is_known_by_its_size_where_only_one_is_so_large(machine: Machine) -> None:
    """A disk of a virtual machine."""
    plugged(machine, "vda", 8)
    plugged(machine, "vdb", 12)
    wrote = told(machine, "vda") | {"path": str(machine.dev / "vdb")}
    assert erased(machine, wrote) == ["vda"]


def test_of_two_that_fit_none_is_erased(machine: Machine) -> None:
    """One of them was never written, and which is not told."""
    for name in ("vda", "vdb"):
        plugged(machine, name)
    assert erased(machine, told(machine, "vda")) == []
    for name in ("sda", "sdb"):
        plugged(machine, name, **CONTROLLER)
    assert erased(machine, told(machine, "sda")) == []
    assert erased(machine, {"path": str(machine.dev / "sda"), "serial": "controller-1"}) == []


def test_what_is_known_for_certain_is_erased_whatever_becomes_of_the_rest(machine: Machine) -> None:
    """And the failure names the other one."""
    known = machine.disk("sda", 8)
    twins = [plugged(machine, name) for name in ("vda", "vdb")]
    with erasing("metadata", only=[told(machine, "sda"), told(machine, "vda")]) as server:
        machine.boot(server.url)
    assert server.last["error"]["message"].startswith("1 disk(s) could not be erased, 1 were. ")
    assert "which of " in server.last["error"]["message"]
    assert known.read_bytes()[:MIB] == bytes(MIB)
    assert [twin.read_bytes() for twin in twins] == [OLD * 8] * 2


def test_a_disk_in_the_written_ones_place_is_left_alone(machine: Machine) -> None:
    """It has the name, and the serial number of the controller, and is another by its size, model or WWN."""
    plugged(machine, "sda", **CONTROLLER, wwid="naa.5000000000000001")
    there = told(machine, "sda")
    for other in ({"size_bytes": 9 * MIB, "wwn": ""}, {"model": "OTHER VD", "wwn": ""}, {"wwn": "5000000000000002"}):
        assert erased(machine, there | other) == []


def test_a_disk_with_two_paths_is_one(machine: Machine) -> None:
    """It is erased by one of them."""
    for name in ("sda", "sdb"):
        machine.disk(name, 8, **{"device/serial": "S-1", "wwid": "naa.5000000000000001"})
    assert erased(machine, told(machine, "sdb")) == ["sda"]


def test_a_disk_that_both_names_agree_on_may_have_grown(machine: Machine) -> None:
    """A hidden area was lifted, or a new firmware calls it something else."""
    machine.disk("sda", 8, wwid="naa.5000000000000001")
    (disk,) = disks(machine.sys, machine.dev)
    assert same(disk, disk.as_json() | {"size_bytes": 4 * MIB, "model": "T"}) is True
    assert same(disk, disk.as_json() | {"size_bytes": 4 * MIB, "wwn": ""}) is False
