"""Which disk is taken by each hint, and what UEFI is told of it."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from mulligan.activities.agent.on_machine import firmware
from mulligan.activities.agent.on_machine.choose import GIB, choose
from mulligan.activities.agent.on_machine.hardware import Disk, disks
from mulligan.activities.agent.on_machine.partitions import EFI_SYSTEM
from mulligan.activities.agent.on_machine.tools import Failed
from tests.agent.machine import MIB, Machine

THERE = [
    Disk("/dev/nvme0n1", 400 * GIB, serial="N-1", wwn="0025385B71B00A11", model="PM9A3"),
    Disk("/dev/sda", 1000 * GIB, serial="S-1", wwn="5000c500a1b2c3d4", model="ATA ST1000NX", rotational=True),
    Disk("/dev/sdb", 2000 * GIB, serial="S-2", wwn="5000c500a1b2c3d5", model="ATA ST2000NX", rotational=True),
    Disk("/dev/sdc", 2000 * GIB, serial="U-1", model="Virtual Media", removable=True),
]
"""The smallest is the one that is taken where nothing is asked for."""

PLAYED = """#!/bin/sh
echo "$@" >>{heard}
[ $# -gt 0 ] || cat <<END
BootOrder: 0001,0003,0007,000A
Boot0001* UEFI PXEv4
Boot0003* Mulligan
Boot0007* Mulligan2
Boot000A  Mulligan
END
"""
"""`efibootmgr`, of a firmware that boots the network first and knows of earlier machines."""


@pytest.mark.parametrize(
    ("hints", "path"),
    [
        ({}, "/dev/nvme0n1"),
        ({"serial": "s-2"}, "/dev/sdb"),
        ({"wwn": "0x5000C500A1B2C3D4"}, "/dev/sda"),
        ({"wwn": "eui.0025385b71b00a11"}, "/dev/nvme0n1"),
        ({"model": "st2000"}, "/dev/sdb"),
        ({"kind": "rotational"}, "/dev/sda"),
        ({"kind": "solid-state"}, "/dev/nvme0n1"),
        ({"min_gib": 401}, "/dev/sda"),
        ({"min_gib": 1001}, "/dev/sdb"),
        ({"model": "st", "min_gib": 1500}, "/dev/sdb"),
    ],
    ids=["none", "serial", "wwn", "eui", "model", "rotational", "solid-state", "size", "larger", "both"],
)
def test_each_hint_decides(hints: dict[str, Any], path: str) -> None:
    """However it is written."""
    assert choose(THERE, hints, GIB, GIB).path == path


@pytest.mark.parametrize(
    ("hints", "why"),
    [
        ({"serial": "U-1"}, "it is removable"),
        ({"serial": "S-9"}, "its serial number is not S-9"),
        ({"wwn": "5000"}, "its WWN is not 5000"),
        ({"model": "nvme"}, "its model does not contain nvme"),
        ({"serial": "N-1", "kind": "rotational"}, "it is not rotational"),
        ({"serial": "S-1", "kind": "solid-state"}, "it is rotational"),
        ({"serial": "S-1", "min_gib": 1001}, f"and {1001 * GIB} are needed"),
    ],
    ids=["removable", "serial", "wwn", "model", "not-rotational", "rotational", "size"],
)
def test_without_the_disk_that_was_asked_for_none_is_taken(hints: dict[str, Any], why: str) -> None:
    """Why not is said of each."""
    with pytest.raises(Failed, match=why) as failed:
        choose(THERE, hints, GIB, GIB)
    assert all(disk.path in str(failed.value) for disk in THERE)


def test_a_disk_is_known_by_what_the_kernel_says(machine: Machine) -> None:
    """Each kind of disk says it elsewhere; whatever hangs on USB is not the machine's own."""
    machine.disk("sda", 8, **{"device/wwid": "naa.5000C500A1B2C3D4", "device/vendor": "ATA", "queue/rotational": "1"})
    machine.disk("nvme0n1", 8, wwid="eui.0025385B71B00A11", **{"device/vendor": "0x144d"})
    usb = machine.sys / "devices/usb1/block/sdb"
    usb.mkdir(parents=True)
    (usb / "size").write_text("2048")
    (machine.sys / "block/sdb").symlink_to(usb)
    nvme, ata, stick = disks(machine.sys, machine.dev)
    assert (nvme.wwn, nvme.model, nvme.rotational, nvme.ata) == ("0025385b71b00a11", "TESTDISK", False, False)
    assert (ata.wwn, ata.model, ata.rotational, ata.ata) == ("5000c500a1b2c3d4", "ATA TESTDISK", True, True)
    assert (nvme.removable, ata.removable, stick.removable) == (False, False, True)


def tabled(disk: Path, script: str) -> None:
    """Give the disk this partition table."""
    subprocess.run(["sfdisk", "--quiet", disk], input=script, text=True, check=True)


def test_the_firmware_is_told_to_boot_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In place of what was said of earlier machines, and of nothing else."""
    disk, heard, variables = tmp_path / "disk", tmp_path / "heard", tmp_path / "efivars"
    with disk.open("wb") as file:
        file.truncate(8 * MIB)
    variables.mkdir()
    monkeypatch.setattr(firmware, "VARIABLES", variables)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/efibootmgr").write_text(PLAYED.format(heard=heard))
    (tmp_path / "bin/efibootmgr").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=":")
    assert "keeps no boot entries" in firmware.set_boot_entry(str(disk))
    (variables / "BootOrder").touch()
    assert "no EFI system partition" in firmware.set_boot_entry(str(disk))
    assert not heard.exists()
    tabled(disk, f"label: gpt\nsize=1MiB\nsize=1MiB, type={EFI_SYSTEM}\n")
    assert firmware.set_boot_entry(str(disk)) == f"the firmware boots partition 2 of {disk} first"
    assert heard.read_text().splitlines() == [
        "",
        "--quiet --bootnum 0003 --delete-bootnum",
        "--quiet --bootnum 000A --delete-bootnum",
        rf"--quiet --create --disk {disk} --part 2 --label Mulligan --loader \EFI\BOOT\BOOTX64.EFI",
    ]


def test_a_firmware_that_takes_no_entry_is_no_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Most find the disk by themselves; it is said in the run."""
    disk, variables, played = tmp_path / "disk", tmp_path / "efivars", tmp_path / "efibootmgr"
    with disk.open("wb") as file:
        file.truncate(8 * MIB)
    tabled(disk, f"label: gpt\nsize=1MiB, type={EFI_SYSTEM}\n")
    variables.mkdir()
    (variables / "BootOrder").touch()
    monkeypatch.setattr(firmware, "VARIABLES", variables)
    played.write_text("#!/bin/sh\n[ $# -eq 0 ] || { echo No space left on device >&2; exit 5; }\n")
    played.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    said = firmware.set_boot_entry(str(disk))
    assert said.startswith("the firmware did not take a boot entry: ") and "No space left on device" in said
