"""How the image comes: in little memory, told as it goes, and never believed where the way or the disk spoils it."""

from __future__ import annotations

from pathlib import Path

import pytest

from mulligan.activities.agent.on_machine.main import POWER_OFF
from tests.agent.machine import MIB, Machine, deployment, disk_image


@pytest.mark.parametrize("compression", ["none", "zstd"])
def test_an_image_passes_through_less_memory_than_it_has_bytes(
    machine: Machine, tmp_path: Path, compression: str
) -> None:
    """Also where it is expanded on its way."""
    machine.disk("sda", 120)
    with deployment(disk_image(tmp_path, "gpt", 96), compression) as server:
        done = machine.boot(server.url, seconds=300, memory=64 * MIB)
    assert server.last["phase"] == "waiting", done.stdout + done.stderr


def test_each_report_tells_how_far_it_is_on_a_slow_network(machine: Machine, tmp_path: Path) -> None:
    """In bytes that are on the disk, long before there are enough of them to fill its cache."""
    machine.disk("sda", 32)
    image = disk_image(tmp_path, "gpt", 6)
    server = deployment(image)
    server.heard_after = MIB
    with server:
        done = machine.boot(server.url, seconds=300)
    assert server.last["phase"] == "waiting", done.stdout + done.stderr
    told = [report for report in server.reports if report["phase"] == "writing"]
    assert {report["total"] for report in told} == {len(image)}
    amounts = [report["done"] for report in told]
    assert amounts == sorted(amounts) and len(set(amounts)) >= 4, amounts


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_a_stream_that_is_spoilt_on_its_way_is_never_called_written(
    machine: Machine, tmp_path: Path, compression: str
) -> None:
    """Whoever notices first: what expands it, or the digest. The error's name says that it was no fault of the disk."""
    machine.disk("sda", 32)
    server = deployment(disk_image(tmp_path, "gpt"), compression)
    spoilt = bytearray(server.files["image"])
    for at in range(5 * MIB, 6 * MIB):
        spoilt[at] ^= 0x5A
    server.files = {**server.files, "image": bytes(spoilt)}
    with server:
        done = machine.boot(server.url)
    assert done.returncode == POWER_OFF
    assert server.last["error"]["name"] in ("IMAGE_BROKEN", "IMAGE_MISMATCH")


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_a_stream_that_ends_too_early_is_never_called_written(
    machine: Machine, tmp_path: Path, compression: str
) -> None:
    """Where it was said to end there."""
    machine.disk("sda", 32)
    server = deployment(disk_image(tmp_path, "gpt"), compression)
    server.configuration["image"]["bytes"] = 5 * MIB
    with server:
        machine.boot(server.url)
    assert server.last["error"]["name"] in ("IMAGE_BROKEN", "IMAGE_MISMATCH")


@pytest.mark.parametrize("compression", ["none", "zstd"])
def test_an_image_that_became_shorter_ends_the_boot(machine: Machine, tmp_path: Path, compression: str) -> None:
    """Asking on for bytes that there are not would never end; the next boot is told of what there is then."""
    machine.disk("sda", 32)
    server = deployment(disk_image(tmp_path, "gpt"), compression)
    server.files = {**server.files, "image": server.files["image"][: 5 * MIB]}
    with server:
        done = machine.boot(server.url)
    assert done.returncode == POWER_OFF
    assert "refuses this boot: image: 416" in done.stdout
    assert "result" not in server.last


def test_a_disk_that_does_not_keep_what_was_written_is_noticed(machine: Machine, tmp_path: Path) -> None:
    """All that came was right; what is read back is not."""
    disk = machine.disk("sda", 32)

    def forgets() -> None:
        with disk.open("r+b") as file:
            file.seek(2 * MIB)
            file.write(b"not kept")

    server = deployment(disk_image(tmp_path, "gpt"))
    server.cut_after, server.meanwhile = 10 * MIB, forgets
    with server:
        machine.boot(server.url)
    assert server.last["error"]["name"] == "DISK_FAILED"
    assert "gives back" in server.last["error"]["message"]


def test_a_seed_of_another_is_not_given(machine: Machine, tmp_path: Path) -> None:
    """A machine is not to be somebody else."""
    machine.disk("sda", 32)
    server = deployment(disk_image(tmp_path, "gpt"))
    server.files = {**server.files, "seed": server.files["seed"][::-1]}
    with server:
        machine.boot(server.url)
    assert server.last["error"]["name"] == "SEED_MISMATCH"
