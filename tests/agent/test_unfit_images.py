"""Images that have no place for a seed: found before a disk is touched where their beginning tells it, and blamed."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from mulligan.activities.agent.on_machine.partitions import HEAD_BYTES, require_place
from mulligan.activities.agent.on_machine.tools import Failed
from mulligan.activities.patience import IMAGE_FAULT
from tests.agent.machine import MIB, Machine, deployment, disk_image, image_with_large_sectors

ENTRIES, SIGNATURE = 446, slice(510, 512)
PRIMARIES = [f"start={2048 * (number + 1)}, size=2048" for number in range(4)]
EXTENDED = "start=8192, size=8192, type=5"
LOGICAL = "start=10240, size=2048"


def tabled(folder: Path, *lines: str) -> bytes:
    """An image with the table that `sfdisk` makes of this."""
    path = folder / "tabled"
    path.write_bytes(os.urandom(12 * MIB))
    script = "\n".join(lines) + "\n"
    subprocess.run(["sfdisk", "--quiet", "--wipe", "always", path], input=script, text=True, check=True)
    return path.read_bytes()


def refused(machine: Machine, image: bytes) -> tuple[str, str, int]:
    """The name of the error that this image ends in, what is said, and how many permits were asked for."""
    with deployment(image) as server:
        done = machine.boot(server.url)
    assert server.last["phase"] == "failed", done.stdout + done.stderr
    error = server.last["error"]
    assert error["name"].startswith(IMAGE_FAULT)
    return error["name"], error["message"], len(server.permits)


@pytest.mark.parametrize("lines", [PRIMARIES, [*PRIMARIES[:3], EXTENDED, LOGICAL]], ids=["primary", "extended"])
def test_an_image_whose_mbr_is_full_touches_no_disk(machine: Machine, tmp_path: Path, lines: list[str]) -> None:
    """No server is to blame for it, and no other one would do."""
    disk = machine.disk("sda", 32)
    name, said, permits = refused(machine, tabled(tmp_path, "label: dos", *lines))
    assert (name, permits) == ("IMAGE_TABLE_FULL", 0)
    assert "at most three, or with a GPT" in said
    assert disk.read_bytes() == b"old " * (MIB // 4) * 32


def test_an_image_without_a_partition_table_touches_no_disk(machine: Machine) -> None:
    """It is said what to do."""
    disk = machine.disk("sda", 32)
    name, said, permits = refused(machine, b"no table" * MIB)
    assert (name, permits) == ("IMAGE_WITHOUT_TABLE", 0)
    assert "give an image with one" in said
    assert disk.read_bytes() == b"old " * (MIB // 4) * 32


def test_what_is_kept_before_a_gpt_is_no_table_of_its_own(tmp_path: Path) -> None:
    """Without the GPT nothing finds the partitions."""
    head = bytearray(disk_image(tmp_path, "gpt")[:HEAD_BYTES])
    require_place(bytes(head))
    head[512:520] = bytes(8)
    with pytest.raises(Failed, match="no partition table"):
        require_place(bytes(head))


def test_a_gpt_decides_whatever_stands_before_it(tmp_path: Path) -> None:
    """Of either sector, and hybrid: four partitions are told to those who know no GPT, or nothing at all."""
    four = tabled(tmp_path, "label: dos", *PRIMARIES)[ENTRIES:512]
    for image in (disk_image(tmp_path, "gpt"), image_with_large_sectors()):
        for before in (image[ENTRIES:512], four, bytes(66)):
            require_place(image[:ENTRIES] + before + image[512:HEAD_BYTES])


def test_an_mbr_with_a_free_place_gets_its_seed_beside_logical_partitions(machine: Machine, tmp_path: Path) -> None:
    """Whatever is within the extended one."""
    machine.disk("sda", 32)
    with deployment(tabled(tmp_path, "label: dos", *PRIMARIES[:2], EXTENDED, LOGICAL)) as server:
        machine.boot(server.url)
    assert server.last["result"]["seed_partition"] == 4


@pytest.mark.parametrize(
    ("lines", "size"),
    [
        (["label: gpt", "table-length: 4", *PRIMARIES], 12),
        (["label: gpt", "start=2048"], 6),
        (["label: dos", "start=2048"], 6),
    ],
    ids=["gpt-full", "gpt-cut", "mbr-cut"],
)
def test_a_table_that_takes_no_more_is_the_images_fault(
    machine: Machine, tmp_path: Path, lines: list[str], size: int
) -> None:
    """Also where only its tool notices: a GPT without a free entry, or partitions of more than the image holds."""
    machine.disk("sda", 12 if size < 12 else 32)
    name, said, _ = refused(machine, tabled(tmp_path, *lines)[: size * MIB])
    assert name == "IMAGE_TABLE_UNFIT"
    assert "takes no partition for the seed" in said


def test_a_gpt_that_is_spoilt_is_the_images_fault(machine: Machine, tmp_path: Path) -> None:
    """Tools then take what is kept before it for a table, and nothing would boot from the disk."""
    machine.disk("sda", 32)
    image = bytearray(disk_image(tmp_path, "gpt"))
    image[512 + 40] ^= 0xFF
    assert refused(machine, bytes(image))[0] == "IMAGE_WITHOUT_TABLE"


def test_a_disk_that_fails_under_its_table_is_no_fault_of_the_image(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What gives nothing back where the table stands is broken, whatever the table's tool says."""
    machine.disk("sda", 32)
    image = disk_image(tmp_path, "gpt")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/sgdisk").write_text('#!/bin/sh\ntruncate --size=512K "$2"\nexit 4\n')
    (tmp_path / "bin/sgdisk").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=":")
    with deployment(image) as server:
        machine.boot(server.url)
    assert server.last["error"]["name"] == "DISK_FAILED"
