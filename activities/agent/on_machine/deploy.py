"""Writing the image: choose the disk, ask, write, read back, give it its seed, and make it the one that is booted."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from . import disk_io
from .choose import choose
from .firmware import another_first, first_of_bios, set_boot_entry
from .hardware import DEV, SYS, Disk, disks
from .home import Home
from .other_seeds import LOOK_SECONDS, require_no_other_seed
from .partitions import HEAD_BYTES, MIB, require_place, sector_of
from .reporter import Reporter
from .seed import add_seed, seed_mib
from .side_by_side import within
from .stream import fetched, image_head, image_pieces
from .tools import Failed


def deploy(
    home: Home, reporter: Reporter, asked: Mapping[str, Any], sys: Path = SYS, dev: Path = DEV
) -> dict[str, Any]:
    """Do it; the result. Raises `Failed`, and whatever the reporter raises when the work must stop."""
    image, seed = asked["image"], asked["seed"]
    size, wanted = int(image["disk_bytes"]), str(image["digest"])
    reporter.at("choosing", "choosing the disk")
    head = image_head(home, image, HEAD_BYTES)
    require_place(head)
    sector = sector_of(head)
    room = (seed_mib(sector, int(seed["bytes"])) + 1) * MIB
    there = disks(sys, dev)
    disk = choose(there, asked.get("root_disk") or {}, size, room, sector)
    unknown = require_no_other_seed(disk, reporter, sys, dev)
    (first,) = within(LOOK_SECONDS, [partial(first_of_bios, there, sys)], reporter.check)
    home.permit(disk.as_json(), "write")

    def written(done: int) -> None:
        reporter.at("writing", f"writing the image to {disk.named}", done, size)

    def read(done: int) -> None:
        reporter.at("checking", f"reading {disk.named} back", done, size)

    written(0)
    _wipe_end(disk)
    came = disk_io.write(disk.path, image_pieces(home, image), written)
    _same("IMAGE_MISMATCH", "the bytes that came", (size, wanted), came)
    read(0)
    given = disk_io.digest_of(disk.path, size, read)
    _same("DISK_FAILED", f"what {disk.named} gives back", (size, wanted), (size, given))
    reporter.at("configuring", "giving the disk its seed and its boot entry")
    data = b"".join(fetched(home, "seed", int(seed["bytes"])))
    _same("SEED_MISMATCH", "the seed", (len(data), str(seed["digest"])), (len(data), disk_io.digest(data)))
    where = add_seed(disk, data)
    return {
        "disk": disk.as_json(),
        "written_bytes": size,
        "digest": wanted,
        "read_back": True,
        "seed_partition": where.number,
        "boot_entry": set_boot_entry(disk.path) + another_first(disk, first) + unknown,
    }


def _wipe_end(disk: Disk) -> None:
    """Forget what an earlier owner left at the disk's end: the copy of a GPT, the labels of a RAID or a pool of disks.

    The new system would find them and might put such an array together. The image ends before.
    """
    disk_io.write_at(disk.path, disk.size_bytes - MIB, bytes(MIB))


def _same(name: str, what: str, wanted: tuple[int, str], found: tuple[int, str]) -> None:
    if wanted != found:
        told = f"{what}: {found[0]} bytes, {found[1]}; asked for were {wanted[0]} bytes, {wanted[1]}"
        raise Failed(name, f"{told}. Nothing will be booted from it")
