"""What the call home tells of the disk beneath `/`: read from a made-up /sys, and from that of this very machine."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mulligan.activities.agent.on_machine import hardware
from mulligan.activities.home_evidence import same_disk
from mulligan.activities.images import build, seed
from mulligan.activities.values import DiskIdentity

GIB_SECTORS = 1 << 21


class Kernel:
    """A folder in which a kernel tells of block devices, and of what is mounted."""

    def __init__(self, folder: Path) -> None:
        self.sys = folder / "sys"
        self.mounts = folder / "mountinfo"
        self.mounts.write_text("22 1 0:21 / /proc rw - proc proc rw\n")
        for needed in ("block", "dev/block", "devices"):
            (self.sys / needed).mkdir(parents=True)

    def device(self, name: str, number: str, *, of: str = "", beneath: Iterable[str] = (), **facts: str) -> None:
        """A disk, a partition of another, or what is made of others."""
        block = self.sys / "devices" / of / name
        facts = {"size": str(GIB_SECTORS), **({"partition": "1"} if of else {}), **facts}
        for fact, value in facts.items():
            (block / fact).parent.mkdir(parents=True, exist_ok=True)
            (block / fact).write_bytes(value.encode("latin-1"))
        (block / "slaves").mkdir()
        for each in beneath:
            (block / "slaves" / each.rpartition("/")[2]).symlink_to(self.sys / "devices" / each)
        if not of:
            (self.sys / "block" / name).symlink_to(block)
        (self.sys / "dev/block" / number).symlink_to(block)

    def mount(self, where: str, number: str, source: str = "/dev/root", kind: str = "ext4") -> None:
        """A line of mountinfo."""
        with self.mounts.open("a") as file:
            file.write(f"30 1 {number} / {where} rw,relatime shared:1 - {kind} {source} rw\n")

    def told(self) -> list[dict[str, Any]]:
        """What the script says there."""
        text = seed.call_home_script("m-1", "http://127.0.0.1:1/", "token").replace('"/sys"', repr(str(self.sys)))
        return disks_said(text.replace('"/proc/self/mountinfo"', repr(str(self.mounts))))

    def told_by_the_demo_image(self) -> dict[str, Any]:
        """What its last stage says there of its only disk."""
        script = (Path(build.__file__).parent / "demo_late.sh").read_text()
        functions = re.findall(r"^(?:disk|json_word|json_list)\(\) \{.*?(?:^\}| \})$", script, re.MULTILINE | re.DOTALL)
        assert len(functions) == 3
        text = "\n".join([*functions, "disk"])
        text = text.replace("/sys/dev", f"{self.sys}/dev").replace("/proc/self/mountinfo", str(self.mounts))
        done = subprocess.run(["sh", "-c", text], capture_output=True, text=True, check=True)
        return dict(json.loads(done.stdout))


def disks_said(script: str) -> list[dict[str, Any]]:
    """What the script says of disks, in a process of its own, without doing anything else."""
    ends = "\nmain()\n"
    assert script.endswith(ends)
    code = script.removesuffix(ends) + "\nprint(json.dumps(disks()))\n"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True)
    return list(json.loads(done.stdout))


@pytest.fixture
def kernel(tmp_path: Path) -> Kernel:
    """A kernel that knows of nothing yet."""
    return Kernel(tmp_path)


KINDS: dict[str, dict[str, str]] = {
    "virtio": {"serial": "LAB-1", "device/vendor": "0x1af4"},
    "sata": {
        "device/vpd_pg80": "\0\x80\0\x14  S3Z8NB0K123\0",
        "device/vendor": "ATA     ",
        "device/model": "Samsung SSD 860 ",
        "device/wwid": "naa.5002538E40A1B2C3",
    },
    "nvme": {"device/serial": "S4EV  ", "device/model": "Samsung 970", "wwid": "eui.0025385B9150A1B2"},
    "nameless": {},
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_disk_is_told_as_the_deploy_agent_tells_it(kernel: Kernel, kind: str) -> None:
    """The two must never take one disk for two: what one of them says, the other says too."""
    kernel.device("sda", "8:0", **KINDS[kind])
    kernel.device("sda1", "8:1", of="sda")
    kernel.mount("/", "8:1")
    (told,) = kernel.told()
    assert told.pop("mount") == "/"
    (known,) = hardware.disks(kernel.sys)
    written = DiskIdentity(known.path, known.serial, known.wwn, known.model, known.size_bytes)
    seen = DiskIdentity(**told)
    assert replace(seen, wwn="") == replace(written, wwn="")
    assert same_disk(written, seen) is (None if kind == "nameless" else True)
    assert "" not in told.values(), "what cannot be told is left out"


@pytest.mark.parametrize("kind", KINDS)
def test_the_demo_image_tells_it_likewise(kernel: Kernel, kind: str) -> None:
    """By a shell script: it has no Python."""
    kernel.device("sda", "8:0", **KINDS[kind])
    kernel.device("sda1", "8:1", of="sda")
    kernel.mount("/", "8:1")
    (expected,) = kernel.told()
    told = kernel.told_by_the_demo_image()
    assert {name: value for name, value in told.items() if value} == expected


def test_boot_is_told_where_it_lies_on_another_disk(kernel: Kernel) -> None:
    """And only there."""
    for name, major in (("sda", 8), ("sdb", 9)):
        kernel.device(name, f"{major}:0", serial=f"S-{name}")
        kernel.device(f"{name}1", f"{major}:1", of=name)
        kernel.device(f"{name}2", f"{major}:2", of=name)
    kernel.mount("/", "8:2")
    kernel.mount("/boot", "8:1")
    assert [each["serial"] for each in kernel.told()] == ["S-sda"]
    kernel.mount("/boot", "9:1")  # mounted over it: the last one counts
    assert [(each["mount"], each["serial"]) for each in kernel.told()] == [("/", "S-sda"), ("/boot", "S-sdb")]


def test_the_disks_beneath_a_raid_and_a_logical_volume_are_told(kernel: Kernel) -> None:
    """However deep they lie."""
    for name, major in (("sda", 8), ("sdb", 9)):
        kernel.device(name, f"{major}:0", serial=f"S-{name}")
        kernel.device(f"{name}1", f"{major}:1", of=name)
    kernel.device("md0", "10:0", beneath=("sda/sda1", "sdb/sdb1"))
    kernel.device("dm-0", "11:0", beneath=("md0",))
    kernel.mount("/", "11:0")
    assert [each["serial"] for each in kernel.told()] == ["S-sda", "S-sdb"]


def test_a_file_system_of_several_devices_is_found_by_the_one_that_it_names(kernel: Kernel) -> None:
    """btrfs has a device number of its own, which no block device has."""
    number = Path("/dev/null").stat().st_rdev  # a device that every machine has; here it stands for a disk
    kernel.device("sda", f"{os.major(number)}:{os.minor(number)}", serial="S-1")
    kernel.mount("/", "0:99", source="/dev/null", kind="btrfs")
    assert [each["serial"] for each in kernel.told()] == ["S-1"]


@pytest.mark.parametrize(
    ("number", "source"),
    [("0:30", "overlay"), ("0:31", "tmpfs"), ("7:0", "/dev/loop0"), ("12:34", "/dev/not-there"), ("x", "/")],
    ids=["overlay", "memory", "loop", "gone", "damaged"],
)
def test_of_what_lies_on_no_disk_nothing_is_said(kernel: Kernel, number: str, source: str) -> None:
    """And nothing fails."""
    kernel.device("loop0", "7:0")
    kernel.mount("/", number, source=source)
    assert kernel.told() == []


def test_what_is_said_of_this_machine_is_true() -> None:
    """Its kernel knows each disk that is said, and that size of it; in a container there may be none."""
    for told in disks_said(seed.call_home_script("m-1", "http://127.0.0.1:1/", "token")):
        block = Path("/sys/block") / Path(told["path"]).name
        assert int((block / "size").read_text()) * 512 == told["size_bytes"]
        assert told["mount"] in ("/", "/boot")
