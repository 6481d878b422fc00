"""Images with holes, disks with other sectors, and what is said meanwhile, by the program as it runs on the machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.agent.machine import MIB, Machine, deployment, disk_image


def test_what_is_zeros_is_not_fetched(machine: Machine, tmp_path: Path) -> None:
    """The disk holds zeros there all the same, whatever was there before; what was cut off goes on in its stretch."""
    image = bytearray(96 * MIB)
    image[: 12 * MIB] = disk_image(tmp_path, "dos")
    image[90 * MIB : 91 * MIB + 5] = b"far " * (MIB // 4) + b"away!"
    disk = machine.disk("sda", 120)
    server = deployment(bytes(image))
    server.configuration["image"]["data"] = [[0, 12 * MIB], [90 * MIB, 91 * MIB + 5]]
    server.cut_after = 7 * MIB
    with server:
        done = machine.boot(server.url)
    assert server.last["phase"] == "waiting", done.stdout + done.stderr
    assert disk.read_bytes()[MIB : 96 * MIB] == bytes(image[MIB:])
    asked = [asked for asked in server.asked if asked.startswith("image")]
    ranges = ["0-8191", f"0-{12 * MIB - 1}", f"{7 * MIB}-{12 * MIB - 1}", f"{90 * MIB}-{91 * MIB + 4}"]
    assert asked == [f"image bytes={each}" for each in ranges]


def test_zeros_that_are_none_are_noticed(machine: Machine, tmp_path: Path) -> None:
    """The digest is that of the whole disk, also of what nobody sent."""
    machine.disk("sda", 32)
    server = deployment(disk_image(tmp_path, "gpt"))
    server.configuration["image"]["data"] = [[0, 5 * MIB]]
    with server:
        machine.boot(server.url)
    assert server.last["error"]["name"] == "IMAGE_MISMATCH"


@pytest.mark.parametrize("label", ["gpt", "dos"])
def test_an_image_for_other_sectors_is_not_written(machine: Machine, tmp_path: Path, label: str) -> None:
    """On a disk with sectors of 4096 bytes nothing would find the partitions; which disk it was is said, and why."""
    disk = machine.disk("sda", 32, **{"queue/logical_block_size": "4096"})
    with deployment(disk_image(tmp_path, label)) as server:
        machine.boot(server.url)
    assert server.last["error"]["name"] == "NO_DISK"
    assert (
        "sda (TESTDISK, serial-sda): its sectors have 4096 bytes, and the image is made for 512"
        in (server.last["error"]["message"])
    )
    assert server.permits == []
    assert disk.read_bytes() == b"old " * (MIB // 4) * 32


def test_a_disk_that_only_writes_large_sectors_is_as_any(machine: Machine, tmp_path: Path) -> None:
    """512e: what it is asked in counts, not what it makes of it."""
    machine.disk("sda", 32, **{"queue/logical_block_size": "512", "queue/physical_block_size": "4096"})
    with deployment(disk_image(tmp_path, "gpt")) as server:
        machine.boot(server.url)
    disk = server.last["result"]["disk"]
    assert (disk["sector_bytes"], disk["physical_bytes"]) == (512, 4096)


def test_who_stands_before_the_machine_can_read_along(machine: Machine, tmp_path: Path) -> None:
    """What it does, and how far it is: some lines for each piece of work, not one for each report."""
    machine.disk("sda", 64)
    with deployment(disk_image(tmp_path, "gpt", 48)) as server:
        said = machine.boot(server.url).stdout.splitlines()
    for phase, work in (("writing", "writing the image to"), ("checking", "reading")):
        first, *rest = [line.removeprefix(f"{phase}: ") for line in said if line.startswith(f"{phase}: ")]
        assert first.startswith(work)
        percents = [int(line.split(" % after ")[0]) for line in rest]
        assert percents == sorted(set(percents)) and percents[-1] == 100, said
        assert len(percents) <= 20
