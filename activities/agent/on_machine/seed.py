"""The seed's place on the disk: as it came where the disk can hold it so, else the same files in another file system.

A seed is an ISO, whose blocks of 2048 bytes no kernel mounts from a disk with larger sectors. There the files go into a
FAT of the disk's own sectors, which cloud-init takes as well.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .disk_io import forget, write_at
from .hardware import Disk
from .partitions import MIB, Partition, add_partition, node, reread
from .tools import Failed, run

ISO_BLOCK = 2048
FAT_MIB = 8
"""Enough for a FAT of large sectors, with the files of the largest seed."""
LABEL = "CIDATA"


def seed_mib(sector: int, seed_bytes: int) -> int:
    """How many MiB a seed takes of a disk with sectors of so many bytes."""
    return -(-seed_bytes // MIB) + (1 if sector <= ISO_BLOCK else FAT_MIB)


def add_seed(disk: Disk, seed: bytes) -> Partition:
    """Put the seed into a partition of its own at the disk's end, and see that it is there."""
    where = add_partition(disk.path, seed_mib(disk.sector_bytes, len(seed)))
    if disk.sector_bytes <= ISO_BLOCK:
        write_at(disk.path, where.start, seed)
        reread(disk.path)
    else:
        reread(disk.path)
        _add_files(node(disk.path, where.number), seed)
    return where


def _add_files(device: str, seed: bytes) -> None:
    run("mkdosfs", "-n", LABEL, device)
    with tempfile.NamedTemporaryFile() as iso:
        iso.write(seed)
        iso.flush()
        with _mounted("iso9660", iso.name, "ro,loop") as files:
            with _mounted("vfat", device, "rw") as target:
                for each in sorted(files.iterdir()):
                    shutil.copyfile(each, target / each.name)
            forget(device)
            with _mounted("vfat", device, "ro") as target:
                if _contents(files) != _contents(target):
                    raise Failed("DISK_FAILED", f"{device} does not keep the seed's files; the disk may be broken")


def _contents(folder: Path) -> dict[str, bytes]:
    return {each.name: each.read_bytes() for each in folder.iterdir()}


@contextmanager
def _mounted(kind: str, device: str, options: str) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        run("mount", "-t", kind, "-o", options, device, folder)
        try:
            yield Path(folder)
        finally:
            run("umount", folder)
