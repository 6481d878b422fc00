"""Which disk a BIOS starts first, by what it said at power-on: told where it is another one than was written."""

from __future__ import annotations

from pathlib import Path

import pytest

from mulligan.activities.agent.on_machine.firmware import another_first, first_of_bios
from mulligan.activities.agent.on_machine.hardware import disks
from tests.agent.machine import Machine, deployment, disk_image

CONTROLLER = "0000:00:1f.2"


def signed(disk: Path, signature: int) -> None:
    """Give the disk an MBR of this name."""
    with disk.open("r+b") as file:
        file.seek(440)
        file.write(signature.to_bytes(4, "little"))
        file.seek(510)
        file.write(b"\x55\xaa")


def edd(machine: Machine, signature: str = "", controller: str = "") -> None:
    """Let the BIOS say this of its first disk."""
    first = machine.sys / "firmware/edd/int13_dev80"
    first.mkdir(parents=True)
    if signature:
        (first / "mbr_signature").write_text(f"{signature}\n")
    if controller:
        (machine.sys / "devices" / controller).mkdir(parents=True, exist_ok=True)
        (first / "pci_dev").symlink_to(machine.sys / "devices" / controller)


def entry_of(machine: Machine, folder: Path) -> str:
    """What is told of the boot entry, after the smallest disk was written."""
    with deployment(disk_image(folder, "dos")) as server:
        done = machine.boot(server.url)
    assert server.last["phase"] == "waiting", done.stdout + done.stderr
    assert server.last["result"]["disk"]["path"].endswith("/sda")
    told: str = server.last["result"]["boot_entry"]
    assert "keeps no boot entries" in told
    return told


def test_a_bios_that_starts_another_disk_is_told(machine: Machine, tmp_path: Path) -> None:
    """By the name in its MBR, which is read before the written one's changes."""
    written, other = machine.disk("sda", 32), machine.disk("sdb", 40)
    signed(written, 0x11223344)
    signed(other, 0xAABBCCDD)
    edd(machine, "0xaabbccdd")
    told = entry_of(machine, tmp_path)
    assert f"; its BIOS starts {other} (TESTDISK, serial-sdb, " in told
    assert told.endswith(" first: put the written disk first in its boot order, or empty that one")


@pytest.mark.parametrize("said", ["", "0x11223344", "0x99999999", "nothing"])
def test_nothing_is_told_where_nothing_says_so(machine: Machine, tmp_path: Path, said: str) -> None:
    """Not of the written disk, which had that name, nor of a stick that was booted, and not without EDD."""
    signed(machine.disk("sda", 32), 0x11223344)
    machine.disk("sdb", 40)
    signed(machine.disk("sdc", 8, removable="1"), 0x99999999)
    if said != "nothing":
        edd(machine, said)
    assert "BIOS starts" not in entry_of(machine, tmp_path)


def test_disks_of_one_name_are_not_told_apart(machine: Machine) -> None:
    """As two that were written with the same image; where one of them is written, either may be meant."""
    for name in ("sda", "sdb"):
        signed(machine.disk(name, 4), 0x11223344)
    edd(machine, "0x11223344")
    assert first_of_bios(disks(machine.sys, machine.dev), machine.sys) is None


def test_the_controller_tells_where_no_name_does(machine: Machine) -> None:
    """Where one disk only hangs on it."""
    written, other = machine.disk("sda", 4), machine.disk("sdb", 4)
    real = machine.sys / "devices" / CONTROLLER / "sdb"
    real.parent.mkdir(parents=True)
    (machine.sys / "block/sdb").rename(real)
    (machine.sys / "block/sdb").symlink_to(real)
    edd(machine, controller=CONTROLLER)
    there = disks(machine.sys, machine.dev)
    first = first_of_bios(there, machine.sys)
    assert first is not None and first.path == str(other)
    assert str(other) in another_first(there[0], first) and there[0].path == str(written)
    assert another_first(first, first) == ""


def test_a_stick_without_a_name_is_no_disk_without_one(machine: Machine) -> None:
    """The agent's own medium has none; a disk that was never written must not be taken for what the BIOS starts."""
    signed(machine.disk("sda", 4), 0x11223344)
    machine.disk("sdb", 4)
    machine.disk("sdc", 4, removable="1")
    edd(machine, "0x00000000")
    assert first_of_bios(disks(machine.sys, machine.dev), machine.sys) is None


def test_a_stick_with_a_disks_name_leaves_it_open(machine: Machine) -> None:
    """Either may be meant."""
    signed(machine.disk("sda", 4), 0x11223344)
    signed(machine.disk("sdb", 4, removable="1"), 0x11223344)
    edd(machine, "0x11223344")
    assert first_of_bios(disks(machine.sys, machine.dev), machine.sys) is None
