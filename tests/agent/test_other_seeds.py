"""A seed on a disk that is not written: the new system might take it for its own, so nothing is written beside it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from unittest.mock import Mock

import pytest

from mulligan.activities.agent.on_machine import other_seeds
from mulligan.activities.agent.on_machine.hardware import disks
from mulligan.activities.agent.on_machine.other_seeds import labels, require_no_other_seed
from mulligan.activities.agent.on_machine.reporter import Ordered
from mulligan.activities.images.seed import build_seed
from mulligan.activities.values import MachineRequest, Mark, Resources
from tests.agent.machine import MIB, Machine, deployment, disk_image

REQUEST = MachineRequest("shop", "web-1", "debian", Resources(1, 512, 0))
MARK = Mark("shop", "web-1", "m-1", "run-1", 1)


def an_iso(label: str = "cidata") -> bytes:
    """A seed as it is made for machines, which are labelled in both of its trees."""
    made = build_seed(REQUEST, MARK, user_data="", call_home_url="http://h", call_home_token="t")
    wide = "cidata".encode("utf-16-be"), label.encode("utf-16-be")
    return made.replace(b"cidata", label.encode()).replace(*wide)


def a_fat(folder: Path, label: str, *options: str, mib: int = 4) -> bytes:
    """A FAT of this label."""
    path = folder / "fat"
    path.write_bytes(bytes(mib * MIB))
    subprocess.run(
        ["mformat", "-i", path, "-T", str(mib * MIB // 512), "-s", "32", "-h", "64", "-v", label, *options, "::"],
        check=True,
        env={"MTOOLS_SKIP_CHECK": "1", "PATH": "/usr/bin:/bin"},
    )
    return path.read_bytes()


def put(disk: Path, content: bytes, start: int = 0) -> bytes:
    """Let the disk hold this from there on; all of it now."""
    with disk.open("r+b") as file:
        file.seek(start)
        file.write(content)
    return disk.read_bytes()


def tabled(disk: Path, label: str) -> None:
    """Give the disk two partitions; the second, for a seed, begins at 20 MiB."""
    script = f"label: {label}\nstart=2048, size=2048\nstart={20 * MIB // 512}, size={10 * MIB // 512}\n"
    subprocess.run(["sfdisk", "--quiet", "--wipe", "always", disk], input=script, text=True, check=True)


def refused(machine: Machine, image: bytes, written: Path) -> str:
    """Why nothing is written: told by name, and before a permit is asked for."""
    before = written.read_bytes()
    with deployment(image) as server:
        done = machine.boot(server.url)
    assert server.last["phase"] == "failed", done.stdout + done.stderr
    assert server.last["error"]["name"] == "OTHER_SEED"
    assert server.permits == []
    assert written.read_bytes() == before
    message: str = server.last["error"]["message"]
    assert "Erase or unplug what is named here, or choose it as the root disk" in message
    return message


@pytest.mark.parametrize("label", ["gpt", "dos"])
def test_an_older_seed_in_a_partition_of_another_disk_stops_all(machine: Machine, tmp_path: Path, label: str) -> None:
    """As one is left by `--erase none`, when another disk was the root disk."""
    disk, other = machine.disk("sda", 32), machine.disk("sdb", 40)
    tabled(other, label)
    before = put(other, an_iso(), 20 * MIB)
    said = refused(machine, disk_image(tmp_path, label), disk)
    assert f"{other}2, labelled cidata, of {other} (TESTDISK, serial-sdb, " in said
    assert other.read_bytes() == before


@pytest.mark.parametrize("name", ["sdb", "sr0"])
def test_a_stick_or_a_cd_of_the_whole_counts_too(machine: Machine, tmp_path: Path, name: str) -> None:
    """Whatever is plugged in, without a partition table, in capitals."""
    disk, stick = machine.disk("sda", 32), machine.disk(name, 8, removable="1")
    put(stick, an_iso("CIDATA"))
    assert f"{stick}, labelled CIDATA, of {stick} (" in refused(machine, disk_image(tmp_path, "gpt"), disk)


def test_a_fat_counts_as_an_iso_does(machine: Machine, tmp_path: Path) -> None:
    """Disks of large sectors have their seed in one."""
    disk, other = machine.disk("sda", 32), machine.disk("sdb", 40)
    tabled(other, "gpt")
    put(other, a_fat(tmp_path, "CIDATA"), 20 * MIB)
    assert f"{other}2, labelled CIDATA" in refused(machine, disk_image(tmp_path, "gpt"), disk)


def test_a_seed_on_the_disk_that_is_written_is_in_nobodys_way(machine: Machine, tmp_path: Path) -> None:
    """Nor is what another path to it shows, an empty drive, or a medium with another label, as the agent boots from."""
    facts = {"device/wwid": "naa.5000c500a1b2c3d4"}
    disk, path = machine.disk("sda", 32, **facts), machine.disk("sdb", 32, **facts)
    for each in (disk, path):
        tabled(each, "gpt")
        put(each, an_iso(), 20 * MIB)
    put(machine.disk("sdc", 8, removable="1"), an_iso("AGENT1"))
    machine.disk("sr0", 8, removable="1").unlink()
    with deployment(disk_image(tmp_path, "gpt"), serial="serial-sda") as server:
        done = machine.boot(server.url)
    assert server.last["phase"] == "waiting", done.stdout + done.stderr
    assert [permit["disk"]["serial"] for permit in server.permits] == ["serial-sda"]


@pytest.mark.parametrize("options", [(), ("-F",)], ids=["FAT16", "FAT32"])
def test_both_labels_of_a_fat_are_read(tmp_path: Path, options: tuple[str, ...]) -> None:
    """As blkid does: of the boot sector, and of the root directory, in which it may be changed later."""
    disk = tmp_path / "disk"
    disk.write_bytes(bytes(MIB) + a_fat(tmp_path, "FIRST", *options, mib=40))
    subprocess.run(["mlabel", "-i", f"{disk}@@1M", "::SECOND"], check=True, env={"PATH": "/usr/bin:/bin"})
    content = disk.read_bytes()
    where = MIB + (71 if options else 43)
    disk.write_bytes(content[:where] + b"FIRST      " + content[where + 11 :])
    assert labels(str(disk), MIB) == ["FIRST", "SECOND"]
    said = subprocess.run(["blkid", "-p", "-O", str(MIB), disk], capture_output=True, text=True, check=True).stdout
    assert 'LABEL="SECOND"' in said and 'LABEL_FATBOOT="FIRST"' in said


def test_what_is_no_file_system_has_no_label(tmp_path: Path) -> None:
    """Nor has a disk that ends before, or is not there."""
    disk = tmp_path / "disk"
    disk.write_bytes(b"\x55\xaa" * MIB)
    assert labels(str(disk), 0) == labels(str(disk), 8 * MIB) == labels(str(tmp_path / "none"), 0) == []


def test_a_drive_that_does_not_answer_holds_up_nothing(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A virtual CD whose source is away, a disk that is reset again and again: that is said, and the work may be told
    to stop meanwhile."""
    machine.disk("sda", 8)
    drive = machine.disk("sr0", 4, removable="1")
    drive.unlink()
    os.mkfifo(drive)
    monkeypatch.setattr(other_seeds, "LOOK_SECONDS", 0.3)
    reporter = Mock()
    try:
        (written,) = disks(machine.sys, machine.dev)
        said = require_no_other_seed(written, reporter, machine.sys, machine.dev)
        assert said == f"; whether there is an older seed on {drive} is not known"
        reporter.at.assert_called_once_with("choosing", f"looking for older seeds on {drive}")
        reporter.check.side_effect = Ordered("power-off")
        with pytest.raises(Ordered):
            require_no_other_seed(written, reporter, machine.sys, machine.dev)
    finally:
        for _ in range(2):
            os.close(os.open(drive, os.O_RDWR))  # lets go who waits for it
