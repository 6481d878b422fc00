"""Disks that erase themselves by ATA: that is tried first, proved by reading, and leaves no password behind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mulligan.activities.agent.on_machine.ata import PASSWORD, Security, decode
from tests.agent.machine import MIB, Machine, erasing
from tests.agent.played_hdparm import ENABLED, ENHANCED, EXPIRED, FROZEN, LOCKED, SUPPORTED, give, install, state_of

ATA = {"device/vendor": "ATA"}


@pytest.fixture(autouse=True)
def played(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ATA disks are asked by a `hdparm` that plays them."""
    monkeypatch.setenv("PATH", str(install(tmp_path / "bin")), prepend=":")


def erased(machine: Machine, disk: Path, mode: str = "full") -> dict[str, Any]:
    """The last report of a boot that erases."""
    with erasing(mode) as server:
        done = machine.boot(server.url)
    assert "result" in server.last or "error" in server.last, done.stdout + done.stderr
    assert disk.stat().st_size == 16 * MIB
    return server.last


def drive_of(disk: Path) -> dict[str, Any]:
    """What the drive is like now."""
    said: dict[str, Any] = json.loads(state_of(disk).read_text())
    return said


@pytest.mark.parametrize(
    ("rotational", "command"), [("0", "erase-enhanced"), ("1", "erase")], ids=["solid-state", "rotational"]
)
def test_a_disk_erases_itself(machine: Machine, rotational: str, command: str) -> None:
    """With a password only while it does; a solid-state disk by the way that reaches what has no address."""
    disk = machine.disk("sda", 16, **ATA, **{"queue/rotational": rotational})
    give(disk, SUPPORTED | ENHANCED)
    (done,) = erased(machine, disk)["result"]["disks"]
    assert done["how"].startswith("ATA secure erase; 1024 places")
    assert disk.read_bytes() == bytes(16 * MIB)
    assert drive_of(disk)["heard"] == ["set-pass", command]
    assert not drive_of(disk)["status"] & ENABLED


@pytest.mark.parametrize(
    ("status", "why"),
    [
        (0, "the disk offers none"),
        (SUPPORTED | FROZEN, "the firmware has frozen the disk's security"),
        (SUPPORTED | EXPIRED, "the disk has heard too many wrong passwords"),
    ],
    ids=["unsupported", "frozen", "expired"],
)
def test_a_disk_that_cannot_is_overwritten(machine: Machine, status: int, why: str) -> None:
    """And it is said why it could not; it is told nothing."""
    disk = machine.disk("sda", 16, **ATA)
    give(disk, status)
    (done,) = erased(machine, disk)["result"]["disks"]
    assert done["how"] == f"overwritten with zeros, and read back whole (no ATA secure erase: {why})"
    assert disk.read_bytes() == bytes(16 * MIB)
    assert drive_of(disk)["heard"] == []


def test_what_is_left_readable_is_overwritten(machine: Machine) -> None:
    """A disk that says that it erased itself is not believed before it reads as zeros."""
    disk = machine.disk("sda", 16, **ATA)
    give(disk, SUPPORTED, erases=0xA5)
    (done,) = erased(machine, disk)["result"]["disks"]
    assert "overwritten" in done["how"] and "after ATA secure erase not all of it reads as zeros" in done["how"]
    assert disk.read_bytes() == bytes(16 * MIB)


def test_an_erase_that_fails_leaves_no_password(machine: Machine) -> None:
    """The disk is overwritten then."""
    disk = machine.disk("sda", 16, **ATA)
    give(disk, SUPPORTED, breaks="erase")
    (done,) = erased(machine, disk)["result"]["disks"]
    assert done["how"] == "overwritten with zeros, and read back whole"
    assert drive_of(disk)["heard"] == ["set-pass", "erase", "disable"]
    assert not drive_of(disk)["status"] & ENABLED


@pytest.mark.parametrize("mode", ["full", "metadata"])
def test_a_disk_that_lost_power_while_it_erased_is_unlocked_by_the_next_boot(machine: Machine, mode: str) -> None:
    """Whatever that boot is for; then it goes on as ever."""
    disk = machine.disk("sda", 16, **ATA)
    give(disk, SUPPORTED | ENABLED | LOCKED, password=PASSWORD)
    assert len(erased(machine, disk, mode)["result"]["disks"]) == 1
    assert drive_of(disk)["heard"][:2] == ["unlock", "disable"]
    assert drive_of(disk)["password"] == ""
    assert disk.read_bytes()[:MIB] == bytes(MIB)


def test_a_disk_with_somebody_elses_password_is_not_called_erased(machine: Machine) -> None:
    """It is locked: nothing can be overwritten, and the operator reads why."""
    disk = machine.disk("sda", 16, **ATA)
    give(disk, SUPPORTED | ENABLED | LOCKED, password="theirs")
    error = erased(machine, disk)["error"]
    assert error["name"] == "NOT_ERASED"
    assert "locked by an ATA password that is not ours" in error["message"]
    assert drive_of(disk)["password"] == "theirs"


def test_a_disk_that_hides_a_part_of_it_is_not_called_erased(machine: Machine) -> None:
    """Nothing is done to it, what lifts the area is said, and the other disk is erased."""
    disk, other = machine.disk("sda", 16, **ATA), machine.disk("sdb", 16, **ATA)
    give(disk, SUPPORTED, hides=4096)
    give(other, SUPPORTED)
    before = disk.read_bytes()
    error = erased(machine, disk)["error"]
    assert error["name"] == "NOT_ERASED"
    assert error["message"].startswith("1 disk(s) could not be erased, 1 were.")
    assert f"it hides {4096 * 512} bytes at its end (a host protected area), which no erase reaches" in error["message"]
    assert f"`hdparm -N p{16 * 2048 + 4096} {disk}`" in error["message"]
    assert disk.read_bytes() == before and drive_of(disk)["heard"] == []
    assert other.read_bytes() == bytes(16 * MIB)


def test_an_erase_of_the_metadata_does_not_ask_what_is_hidden(machine: Machine) -> None:
    """It leaves nearly all of the disk readable anyway."""
    disk = machine.disk("sda", 16, **ATA)
    give(disk, SUPPORTED, hides=4096)
    assert len(erased(machine, disk, "metadata")["result"]["disks"]) == 1


@pytest.mark.parametrize(
    "hides",
    [None, "14715056(18446744073321613488?), HPA setting seems invalid (buggy kernel device driver?)", f"{2**63}, HPA"],
    ids=["refused", "invalid", "absurd"],
)
def test_a_disk_that_does_not_tell_what_it_hides_is_erased_and_that_is_said(
    machine: Machine, hides: str | None
) -> None:
    """Many have no such area, and refuse the question; nobody is told more than is known."""
    disk = machine.disk("sda", 16, **ATA)
    give(disk, SUPPORTED, hides=hides)
    (done,) = erased(machine, disk)["result"]["disks"]
    assert done["how"].endswith("(the disk does not tell whether it hides a part of it (HPA))")
    assert disk.read_bytes() == bytes(16 * MIB)


@pytest.mark.parametrize(
    ("fna", "namespaces", "how"),
    [
        (0, 2, "secure format; 1024 places and both ends, marked before, read as zeros"),
        (3, 1, "secure format; 1024 places and both ends, marked before, read as zeros"),
        (2, 2, "overwritten with zeros, and read back whole (no secure format: its controller would erase its other"),
    ],
    ids=["each-its-own", "alone", "shared"],
)
def test_a_namespace_is_formatted_where_that_touches_no_other(
    machine: Machine, tmp_path: Path, fna: int, namespaces: int, how: str
) -> None:
    """Some controllers format all namespaces at once; a permit is for one disk."""
    listed = json.dumps({"nsid_list": [{"nsid": number + 1} for number in range(namespaces)]})
    nvme = tmp_path / "bin/nvme"
    nvme.write_text(
        f"#!/bin/sh\ncase $1 in id-ctrl) echo '{{\"fna\":{fna}}}';; list-ns) echo '{listed}';;\n"
        f"format) dd if=/dev/zero of=$2 bs=1M count=16 conv=notrunc 2>/dev/null;; esac\n"
    )
    nvme.chmod(0o755)
    disk = machine.disk("nvme0n1", 16)
    (done,) = erased(machine, disk)["result"]["disks"]
    assert done["how"].startswith(how)
    assert disk.read_bytes() == bytes(16 * MIB)


def test_what_a_disk_identifies_itself_with_is_read() -> None:
    """Words 89, 90 and 128: times in steps of two minutes, of 8 or of 15 bits."""
    words = [0] * 256
    words[89], words[90], words[128] = 0x8000 | 300, 0x0105, SUPPORTED | FROZEN | ENHANCED
    assert decode(words) == Security(supported=True, frozen=True, enhanced=True, minutes=600, enhanced_minutes=10)
