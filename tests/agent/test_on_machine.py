"""The deploy agent's program, run as on the machine: against an HTTP server, on disks that are files."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mulligan.activities.agent.on_machine.arguments import BadArguments, read_arguments
from mulligan.activities.agent.on_machine.choose import choose, why_not
from mulligan.activities.agent.on_machine.hardware import Disk
from mulligan.activities.agent.on_machine.main import POWER_OFF, REBOOT
from mulligan.activities.agent.on_machine.partitions import table
from mulligan.activities.agent.on_machine.reporter import Ordered
from mulligan.activities.agent.on_machine.seed import add_seed
from mulligan.activities.agent.on_machine.tools import Failed, run
from mulligan.activities.drivers.booting import read_booting
from mulligan.activities.metal import kernel_arguments
from tests.agent.boot_server import BootServer
from tests.agent.machine import MIB, SEED, Machine, deployment, digest, disk_image, erasing


@pytest.mark.parametrize("label", ["gpt", "dos"])
@pytest.mark.parametrize("compression", ["none", "gzip", "zstd"])
def test_an_image_is_written_read_back_and_given_its_seed(
    machine: Machine, tmp_path: Path, label: str, compression: str
) -> None:
    """The partition is the image's, the seed stands at the disk's end, and the other disk is as it was."""
    image = disk_image(tmp_path, label)
    disk, other = machine.disk("sda", 32), machine.disk("sdb", 40)
    with deployment(image, compression) as server:
        done = machine.boot(server.url)
    assert done.returncode == POWER_OFF, done.stdout + done.stderr
    result = server.last["result"]
    assert (result["disk"]["serial"], result["read_back"]) == ("serial-sda", True)
    written = table(str(disk))
    data, seed = written.partitions
    assert (written.label, data.start) == (label, MIB)
    content = disk.read_bytes()
    assert content[data.start : data.start + data.size] == image[data.start : data.start + data.size]
    assert content[seed.start : seed.start + len(SEED)] == SEED
    assert seed.start + seed.size > len(content) - 3 * MIB
    assert other.read_bytes() == b"old " * (MIB // 4) * 40
    assert [p["disk"]["serial"] for p in server.permits] == ["serial-sda"]
    assert len(server.boots) == 1
    check = subprocess.run(["sfdisk", "--verify", disk], capture_output=True, text=True, check=False)
    assert check.returncode == 0, check.stdout + check.stderr


def test_a_download_that_is_cut_goes_on_where_it_stopped(machine: Machine, tmp_path: Path) -> None:
    """No byte is fetched twice, and a boot server that is away for a while is waited for."""
    machine.disk("sda", 32)
    server = deployment(disk_image(tmp_path, "gpt"))
    server.cut_after, server.away = 5 * MIB, 2
    with server:
        done = machine.boot(server.url)
    assert server.last["phase"] == "waiting", done.stdout + done.stderr
    asked = [asked for asked in server.asked if asked.startswith("image")]
    assert asked == ["image bytes=0-8191", *(f"image bytes={at * MIB}-{12 * MIB - 1}" for at in (0, 5, 10))]


def test_a_compressed_download_that_is_cut_goes_on_where_it_stopped(machine: Machine, tmp_path: Path) -> None:
    """In the stream: what was expanded before is neither fetched nor written again."""
    machine.disk("sda", 32)
    server = deployment(disk_image(tmp_path, "gpt"), "zstd")
    size = len(server.files["image"])
    server.cut_after = 5 * MIB
    with server:
        done = machine.boot(server.url)
    assert server.last["phase"] == "waiting", done.stdout + done.stderr
    asked = [asked for asked in server.asked if asked.startswith("image")]
    assert asked[1:] == [f"image bytes={at * MIB}-{size - 1}" for at in (0, 5, 10)]


def test_zeros_that_came_compressed_are_made_by_the_disk(machine: Machine, tmp_path: Path) -> None:
    """Whatever was there before is gone, and the image reads back whole."""
    disk = machine.disk("sda", 32)
    image = bytearray(disk_image(tmp_path, "gpt"))
    image[4 * MIB : 9 * MIB] = bytes(5 * MIB)
    with deployment(bytes(image), "zstd") as server:
        done = machine.boot(server.url)
    assert server.last["phase"] == "waiting", done.stdout + done.stderr
    assert disk.read_bytes()[4 * MIB : 9 * MIB] == bytes(5 * MIB)


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_an_image_that_expands_to_more_than_it_should_is_refused(
    machine: Machine, tmp_path: Path, compression: str
) -> None:
    """A bomb fills no disk: the writing stops where the image was to end."""
    disk = machine.disk("sda", 32)
    image = disk_image(tmp_path, "gpt")
    with deployment(image + os.urandom(8 * MIB), compression) as server:
        server.configuration["image"]["disk_bytes"] = len(image)
        machine.boot(server.url)
    assert server.last["error"]["name"] == "IMAGE_MISMATCH"
    assert "expands to more" in server.last["error"]["message"]
    assert disk.read_bytes()[len(image) + MIB : -MIB] == (b"old " * (MIB // 4) * 32)[len(image) + MIB : -MIB]


def test_wrong_bytes_are_never_called_written(machine: Machine, tmp_path: Path) -> None:
    """What came is not what the run asked for: failed, with both digests."""
    machine.disk("sda", 32)
    server = deployment(disk_image(tmp_path, "gpt"))
    server.configuration["image"]["digest"] = digest(b"another")
    with server:
        done = machine.boot(server.url)
    assert done.returncode == POWER_OFF
    assert server.last["error"]["name"] == "IMAGE_MISMATCH"
    assert digest(b"another") in server.last["error"]["message"]


@pytest.mark.parametrize("refused", ["configuration", "permits", "reports"])
def test_who_is_refused_changes_nothing(machine: Machine, tmp_path: Path, refused: str) -> None:
    """A token that is used, expired or another run's: the disk stays as it is, and the machine is switched off."""
    disk = machine.disk("sda", 32)
    server = deployment(disk_image(tmp_path, "gpt"))
    server.refuse = refused
    with server:
        done = machine.boot(server.url)
    assert done.returncode == POWER_OFF
    assert "refuses this boot" in done.stdout
    assert disk.read_bytes() == b"old " * (MIB // 4) * 32


def test_an_order_ends_the_work(machine: Machine, tmp_path: Path) -> None:
    """A run that was cancelled while the image is written does not wait for its end."""
    machine.disk("sda", 32)
    server = deployment(disk_image(tmp_path, "gpt"))
    server.order_early, server.hold_after = "reboot", MIB
    with server:
        done = machine.boot(server.url)
    assert done.returncode == REBOOT
    assert "result" not in server.last


def test_no_disk_says_why_of_each(machine: Machine, tmp_path: Path) -> None:
    """Too small, removable, read-only: the operator reads which disk was meant and what is wrong with it."""
    machine.disk("sda", 8)
    machine.disk("sdb", 64, removable="1")
    machine.disk("sdc", 64, ro="1")
    with deployment(disk_image(tmp_path, "gpt")) as server:
        machine.boot(server.url)
    said = server.last["error"]["message"]
    assert server.last["error"]["name"] == "NO_DISK"
    assert all(why in said for why in ("are needed", "it is removable", "it is read-only"))
    assert server.permits == []


def test_nothing_of_an_earlier_owner_is_found_at_the_end_of_the_disk(machine: Machine, tmp_path: Path) -> None:
    """An image with an MBR leaves no copy of the GPT that was there before."""
    disk = machine.disk("sda", 32)
    subprocess.run(["sfdisk", "--quiet", disk], input="label: gpt\nsize=8MiB\n", text=True, check=True)
    assert disk.read_bytes()[-512:].startswith(b"EFI PART")
    with deployment(disk_image(tmp_path, "dos")) as server:
        machine.boot(server.url)
    assert server.last["phase"] == "waiting"
    assert b"EFI PART" not in disk.read_bytes()[-MIB:]


def test_a_path_to_an_nvme_disk_is_not_taken_for_a_disk(machine: Machine, tmp_path: Path) -> None:
    """With more than one controller, the kernel lists the paths too, which no one can open."""
    machine.disk("nvme0n1", 32)
    machine.disk("nvme0c0n1", 32, hidden="1").unlink()
    with deployment(disk_image(tmp_path, "gpt")) as server:
        machine.boot(server.url)
    assert server.last["phase"] == "waiting"
    assert server.last["result"]["disk"]["path"].endswith("/nvme0n1")


def test_an_image_with_an_mbr_gets_its_seed_on_a_disk_that_an_mbr_cannot_cover(tmp_path: Path) -> None:
    """The seed stands below 2 TiB then, as far up as sectors can be counted."""
    disk = tmp_path / "large"
    disk.write_bytes(disk_image(tmp_path, "dos"))
    os.truncate(disk, 3 * 1024**4)
    seed = add_seed(Disk(str(disk), disk.stat().st_size), SEED)
    assert 2 * 1024**4 - 8 * MIB < seed.start < 2 * 1024**4
    assert table(str(disk)).partitions[-1] == seed


@pytest.mark.parametrize("hybrid", [False, True])
@pytest.mark.parametrize("flag", [0x80, 0])
def test_the_entry_that_bioses_boot_by_stays_as_the_image_has_it(
    machine: Machine, tmp_path: Path, flag: int, *, hybrid: bool
) -> None:
    """Some boot no disk whose MBR has no active entry, also where it only stands before a GPT."""
    path = tmp_path / "image"
    path.write_bytes(disk_image(tmp_path, "gpt"))
    if hybrid:
        run("sgdisk", "--hybrid=1", path)
    image = bytearray(path.read_bytes())
    entries = [at for at in range(446, 510, 16) if image[at + 4]]
    image[:4], image[entries[-1]] = b"boot", flag
    disk = machine.disk("sda", 32)
    with deployment(bytes(image)) as server:
        machine.boot(server.url)
    assert server.last["phase"] == "waiting"
    after = disk.read_bytes()[:512]
    assert [after[at] for at in entries] == [image[at] for at in entries]
    assert (len(entries), after[:4]) == (2 if hybrid else 1, b"boot")


def test_a_program_that_erases_is_killed_when_the_work_must_stop() -> None:
    """Some take hours; a boot that has no business here any more does not let them go on."""

    def ordered() -> None:
        raise Ordered("power-off")

    with pytest.raises(Ordered):
        run("sleep", "3600", check=ordered)


def test_a_program_that_takes_its_time_is_told_all_and_heard_to_its_end() -> None:
    """Also when it is looked after meanwhile."""
    looked: list[str] = []
    slow = "while ! grep -q stop; do :; done; sleep 1.5; echo heard"
    assert run("sh", "-c", slow, said="stop", check=lambda: looked.append("at it")) == "heard\n"
    assert looked


def test_metadata_is_wiped_from_all_fixed_disks(machine: Machine, tmp_path: Path) -> None:
    """The partition table and both ends of disk and partition are zeros; the rest, and removable disks, stay."""
    first, second = machine.disk("sda", 32), machine.disk("sdb", 32)
    stick = machine.disk("sdc", 8, removable="1")
    first.write_bytes(disk_image(tmp_path, "gpt", 32))
    with erasing("metadata") as server:
        assert machine.boot(server.url).returncode == POWER_OFF
    assert [each["disk"]["path"] for each in server.last["result"]["disks"]] == [str(first), str(second)]
    for disk in (first, second):
        content = disk.read_bytes()
        assert content[:MIB] == content[-MIB:] == bytes(MIB)
        assert table(str(disk)).label == ""
    content = first.read_bytes()
    assert content[MIB : 2 * MIB] == content[29 * MIB : 30 * MIB] == bytes(MIB)
    assert content[2 * MIB : 29 * MIB].count(0) < MIB
    assert stick.read_bytes() == b"old " * (MIB // 4) * 8


def test_a_full_erase_overwrites_what_cannot_forget_by_itself(machine: Machine) -> None:
    """And reads it back whole."""
    disk = machine.disk("sda", 32)
    with erasing("full") as server:
        assert machine.boot(server.url).returncode == POWER_OFF
    assert disk.read_bytes() == bytes(32 * MIB)
    (done,) = server.last["result"]["disks"]
    assert "read" in done["how"]


def test_only_what_was_written_is_erased_where_the_run_says_so(machine: Machine) -> None:
    """After a try that failed, the disks that it did not touch stay as they are."""
    first, second = machine.disk("sda", 16), machine.disk("sdb", 16)
    with erasing("metadata", only=[{"serial": "serial-sdb", "path": "/dev/elsewhere"}]) as server:
        assert machine.boot(server.url).returncode == POWER_OFF
    assert second.read_bytes()[:MIB] == bytes(MIB)
    assert first.read_bytes() == b"old " * (MIB // 4) * 16


def test_a_job_that_it_does_not_know_is_said(machine: Machine) -> None:
    """An older agent is built again."""
    with BootServer({"job": "j", "kind": "paint", "machine": "m"}) as server:
        machine.boot(server.url)
    assert "mulligan agent build" in server.last["error"]["message"]


def test_a_boot_of_nobody_does_nothing(machine: Machine, tmp_path: Path) -> None:
    """Without a run on the kernel's command line the machine is switched off."""
    disk = machine.disk("sda", 8)
    done = machine.boot("")
    assert done.returncode == POWER_OFF
    assert "belongs to no run" in done.stdout
    assert disk.read_bytes() == b"old " * (MIB // 4) * 8


def test_the_hardware_is_told_once(machine: Machine) -> None:
    """Disks with their serial numbers, before anything is done."""
    machine.disk("sda", 16)
    with erasing("metadata") as server:
        machine.boot(server.url)
    told = [report["hardware"] for report in server.reports if "hardware" in report]
    assert [disk["serial"] for disk in told[0]["disks"]] == ["serial-sda"]
    assert json.dumps(told[0])


def test_arguments_are_read() -> None:
    """Among those of the kernel."""
    told = read_arguments("quiet mulligan.url=http://10.0.0.1:7421/v1/agent/t/ mulligan.address=10.0.0.5/24 x")
    assert (told.url, told.address, told.place) == (
        "http://10.0.0.1:7421/v1/agent/t",
        "10.0.0.5/24",
        ("10.0.0.1", 7421),
    )
    with pytest.raises(BadArguments):
        read_arguments("mulligan.url=https://10.0.0.1/x")


def test_arguments_are_read_as_a_provider_was_told_them() -> None:
    """Every setting of the agent's network arrives."""
    network = {"agent_address": "10.0.0.5/24", "agent_gateway": "10.0.0.1", "agent_mac": "52-54-00-00-00-0A"}
    booting = read_booting({**network, "agent_vlan": "7"})
    told = read_arguments(f"quiet {kernel_arguments('http://10.0.0.1:7421/v1/agent/t', booting)}")
    assert (told.address, told.gateway, told.mac, told.vlan) == ("10.0.0.5/24", "10.0.0.1", "52:54:00:00:00:0a", "7")


DISKS = st.builds(
    Disk,
    path=st.sampled_from(["/dev/sda", "/dev/sdb", "/dev/sdc", "/dev/sdd"]),
    size_bytes=st.integers(0, 10 * MIB),
    serial=st.sampled_from(["", "A", "B"]),
    rotational=st.booleans(),
    removable=st.booleans(),
    read_only=st.booleans(),
    sector_bytes=st.sampled_from([512, 4096]),
)


@given(st.lists(DISKS, max_size=6), st.integers(0, 10 * MIB), st.sampled_from(["any", "rotational", "solid-state"]))
def test_the_disk_that_is_chosen_is_the_smallest_that_all_is_true_of(disks: list[Disk], size: int, kind: str) -> None:
    """Never a removable or read-only one; with none that fits, nothing is chosen."""
    good = [disk for disk in disks if not why_not(disk, {"kind": kind}, size + MIB)]
    try:
        chosen = choose(disks, {"kind": kind}, size, MIB)
    except Failed as failed:
        assert not good
        assert all(disk.path in str(failed) for disk in disks)
    else:
        assert not chosen.removable
        assert not chosen.read_only
        assert kind == "any" or chosen.rotational == (kind == "rotational")
        assert chosen.sector_bytes == 512
        assert size + MIB <= chosen.size_bytes == min(disk.size_bytes for disk in good)
