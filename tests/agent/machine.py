"""A machine for the deploy agent's program: what it sees of hardware is a folder, and its disks are files there."""

from __future__ import annotations

import gzip
import hashlib
import os
import struct
import subprocess
import sys
import uuid
import zlib
from pathlib import Path
from typing import Any

from mulligan.activities.agent import on_machine
from tests.agent.boot_server import BootServer

HOME = Path(on_machine.__file__).parents[1]
MIB = 1024**2
SEED = b"seed " * 1000


class Machine:
    """A machine of which the program sees only what is in a folder: its disks are sparse files there."""

    def __init__(self, folder: Path) -> None:
        self.sys, self.dev = folder / "sys", folder / "dev"
        for needed in ("sys/block", "sys/class/net", "sys/class/dmi/id", "dev"):
            (folder / needed).mkdir(parents=True)
        self._line = folder / "cmdline"

    def disk(self, name: str, mib: int, **facts: str) -> Path:
        """Plug in a disk full of what somebody else left there."""
        block = self.sys / "block" / name
        (block / "device").mkdir(parents=True)
        (block / "size").write_text(str(mib * MIB // 512))
        for fact, value in {"device/serial": f"serial-{name}", "device/model": "TESTDISK", **facts}.items():
            (block / fact).parent.mkdir(exist_ok=True)
            (block / fact).write_text(value)
        path = self.dev / name
        path.write_bytes(b"old " * (MIB // 4) * mib)
        return path

    def boot(self, url: str, seconds: float = 60, memory: int = 0) -> subprocess.CompletedProcess[str]:
        """Run the program to its end; with `memory`, neither it nor a program that it calls gets more bytes."""
        self._line.write_text(f"BOOT_IMAGE=/vmlinuz console=ttyS0 mulligan.url={url}\n")
        limited = ["prlimit", f"--data={memory}"] if memory else []
        command = [*limited, sys.executable, "-E", "-s", "-u", "-m", "on_machine.main"]
        options = ["--command-line", self._line, "--sys", self.sys, "--dev", self.dev]
        return subprocess.run(
            [*map(str, command + options)], cwd=HOME, capture_output=True, text=True, timeout=seconds, check=False
        )


def disk_image(folder: Path, label: str, mib: int = 12) -> bytes:
    """A partitioned disk with one partition of random bytes, as an image has it."""
    path = folder / f"image-{label}"
    path.write_bytes(os.urandom(mib * MIB))
    start = 1 * MIB // 512
    script = f"label: {label}\nstart={start}, size={(mib - 3) * MIB // 512}\n"
    subprocess.run(["sfdisk", "--quiet", "--wipe", "always", path], input=script, text=True, check=True)
    return path.read_bytes()


def image_with_large_sectors(mib: int = 12, sector: int = 4096) -> bytes:
    """A disk with a GPT as it is on sectors of so many bytes (UEFI 2.10, section 5.3)."""
    last, first = mib * MIB // sector - 1, MIB // sector
    kind, own = uuid.UUID("0fc63daf-8483-4772-8e79-3d69d8477de4"), uuid.uuid4()
    entry = struct.pack(
        "<16s16sQQQ72s", kind.bytes_le, own.bytes_le, first, last - first, 0, "data".encode("utf-16-le")
    )
    entries = entry.ljust(128 * 128, b"\0")
    where = len(entries) // sector

    def header(mine: int, other: int, table: int) -> bytes:
        places = (mine, other, 2 + where, last - 1 - where)
        fields = [b"EFI PART", 0x10000, 92, 0, 0, *places, own.bytes_le, table, 128, 128, zlib.crc32(entries)]
        form = "<8sIIIIQQQQ16sQIII"
        fields[3] = zlib.crc32(struct.pack(form, *fields))
        return struct.pack(form, *fields).ljust(sector, b"\0")

    disk = bytearray(os.urandom(mib * MIB))
    protective = struct.pack("<B3sB3sII", 0, b"\0\2\0", 0xEE, b"\xff\xff\xff", 1, last)
    disk[:sector] = (bytes(446) + protective + bytes(48) + b"\x55\xaa").ljust(sector, b"\0")
    disk[sector : (2 + where) * sector] = header(1, last, 2) + entries
    disk[(last - where) * sector :] = entries + header(last, 1, last - where)
    return bytes(disk)


def digest(data: bytes) -> str:
    """As images are named."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def deployment(image: bytes, compression: str = "none", **hints: Any) -> BootServer:
    """A job that writes this image."""
    packed = {
        "none": lambda: image,
        "gzip": lambda: gzip.compress(image, 1),
        "zstd": lambda: subprocess.run(["zstd", "-q", "-c"], input=image, capture_output=True, check=True).stdout,
    }[compression]()
    said = {"bytes": len(packed), "compression": compression, "disk_bytes": len(image), "digest": digest(image)}
    seed = {"bytes": len(SEED), "digest": digest(SEED)}
    asked = {"job": "j", "kind": "deploy", "machine": "m", "root_disk": hints, "image": said, "seed": seed}
    return BootServer(asked, {"image": packed, "seed": SEED})


def erasing(mode: str, **more: Any) -> BootServer:
    """A job that erases."""
    return BootServer({"job": "j", "kind": "erase", "machine": "m", "erase": mode, **more})
