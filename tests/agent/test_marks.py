"""A disk that says that it forgot everything is believed where zeros took the place of marks, not where zeros were."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from mulligan.activities.agent.on_machine import disk_io
from mulligan.activities.agent.on_machine.hardware import Disk
from mulligan.activities.agent.on_machine.marks import SAMPLES, Marks
from mulligan.activities.agent.on_machine.tools import Failed
from tests.agent.machine import MIB, Machine, erasing

SECRET = b"of the tenant before " * 3000
BLKDISCARD = """#!/bin/sh
case "$*" in *--secure*) echo "BLKSECDISCARD failed" >&2; exit 1;; esac
for disk; do :; done
{act}
"""
REALLY = "size=$(stat -c %s $disk); truncate -s 0 $disk; truncate -s $size $disk"


def how_erased(machine: Machine, folder: Path, act: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """What is said of a disk that is nearly all zeros, as `--erase metadata` leaves a new one, and discards so."""
    (folder / "bin").mkdir()
    (folder / "bin/blkdiscard").write_text(BLKDISCARD.format(act=act))
    (folder / "bin/blkdiscard").chmod(0o755)
    monkeypatch.setenv("PATH", str(folder / "bin"), prepend=":")
    disk = machine.disk("sdb", 256)
    with disk.open("wb") as file:
        file.truncate(256 * MIB)
        file.seek(100 * MIB)
        file.write(SECRET)
    with erasing("full") as server:
        machine.boot(server.url)
    with disk.open("rb") as file:
        file.seek(100 * MIB)
        assert file.read(len(SECRET)) == bytes(len(SECRET)), server.last
    how: str = server.last["result"]["disks"][0]["how"]
    return how


def test_a_discard_that_does_nothing_is_not_believed(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where it is read there were zeros before; the disk is overwritten."""
    how = how_erased(machine, tmp_path, "exit 0", monkeypatch)
    assert how == "overwritten with zeros, and read back whole (after discard not all of it reads as zeros)"


def test_a_discard_that_does_it_is_enough(machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The marks are gone with all else."""
    how = how_erased(machine, tmp_path, REALLY, monkeypatch)
    assert how == "discard; 1024 places and both ends, marked before, read as zeros"


@pytest.mark.parametrize("size", [64 * MIB, 5 * MIB + 512, MIB // 2, 512])
def test_both_ends_and_many_places_are_marked(tmp_path: Path, size: int) -> None:
    """At random, to the last byte, and nothing that was zeros stays so there."""
    path = tmp_path / "disk"
    path.write_bytes(bytes(size))
    marks = Marks(Disk(str(path), size))
    assert marks.are_zeros()
    marks.write(lambda: None)
    content = path.read_bytes()
    assert len(content) == size and not marks.are_zeros()
    for end in (content[:MIB], content[-MIB:]):
        assert end.count(0) < len(end) // 64
    if size == 64 * MIB:
        marked = sum(content[at : at + 4096].count(0) < 256 for at in range(MIB, 63 * MIB, 4096))
        assert SAMPLES * 0.9 < marked <= SAMPLES


def test_a_disk_that_keeps_no_marks_is_not_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Zeros prove nothing then; it says where."""
    path = tmp_path / "disk"
    path.write_bytes(bytes(8 * MIB))
    monkeypatch.setattr(disk_io, "write_places", lambda *_: None)
    with pytest.raises(Failed, match="does not keep what is written at byte 0"):
        Marks(Disk(str(path), 8 * MIB)).write(lambda: None)


@pytest.fixture(params=[512, 4096])
def loop(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Disk]:
    """A real block device of such sectors, which discards."""
    path = tmp_path / "disk"
    with path.open("wb") as file:
        file.truncate(16 * MIB)
    command = ["losetup", "--show", "--find", "--sector-size", str(request.param), str(path)]
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    if made.returncode:
        pytest.skip(f"no loop device can be had here: {made.stderr}")
    try:
        yield Disk(made.stdout.strip(), 16 * MIB, sector_bytes=request.param)
    finally:
        subprocess.run(["losetup", "--detach", made.stdout.strip()], check=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has loop devices")
def test_a_device_of_any_sectors_is_marked_and_discarded(loop: Disk) -> None:
    """Past the kernel's cache, which reads in whole sectors only."""
    marks = Marks(loop)
    marks.write(lambda: None)
    assert not marks.are_zeros()
    subprocess.run(["blkdiscard", "--force", loop.path], check=True)
    assert marks.are_zeros()
