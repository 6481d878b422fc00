"""A machine's volumes: its copy-on-write disk, its seed, and the empty volume whose name carries the fence.

Volumes have no metadata, so the name says whose they are: `mulligan-<uuid>-disk.qcow2`, `-seed.iso`, `-console.log`,
`-nvram.fd`, and `-fence-<n>`, which is made first and removed last. A machine without a disk has, in its place,
`-medium.qcow2`, or `-kernel.qcow2` and `-initrd.qcow2`.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET

import libvirt

from mulligan.activities.drivers.base import LiveSource
from mulligan.activities.drivers.libvirt.bases import PlacedBase, find_base
from mulligan.activities.drivers.libvirt.marks import guard, own_domain, volume_prefix
from mulligan.activities.drivers.libvirt.pools import Pool
from mulligan.activities.drivers.libvirt.transfer import create_volume, upload_bytes
from mulligan.activities.errors import Busy, Conflict, InvalidRequest, Leftover, NotFound
from mulligan.activities.values import ImageFormat, Mark

DISK, SEED, CONSOLE, NVRAM, FENCE = "disk.qcow2", "seed.iso", "console.log", "nvram.fd", "fence-"
MEDIUM, KERNEL, INITRD = "medium.qcow2", "kernel.qcow2", "initrd.qcow2"
"""What a machine without a disk boots: built on the base, which thereby is not removed. A medium is booted itself; of a
kernel and an initrd it is the base that is."""
SECTOR_BYTES = 2048
"""Of a CD; libvirt rounds sizes up to half as much."""
GIB = 1 << 30
SWEEPS = 3
"""How often what a fresh look still shows is deleted again, before it is said to be left over."""


def volume_name(machine_id: str, part: str) -> str:
    """The name of one of the machine's volumes."""
    return volume_prefix(machine_id) + part


def fence_of(pool: Pool, mark: Mark) -> int | None:
    """The newest fence that the machine's volumes carry.

    Raises `StaleFence` when it is newer than the mark's, `Conflict` when there is a disk that carries none.
    """
    fences, strange = _look(pool, mark)
    if strange and not fences:
        pool.refresh()
        fences, strange = _look(pool, mark)
    if strange and not fences:
        raise Conflict(
            f"volume {strange[0]} in pool {pool.name} carries no mark of Mulligan's; it was not touched. "
            f"Look at it with `virsh vol-info --pool {pool.name} {strange[0]}`",
            object=strange[0],
        )
    if not fences:
        return None
    guard(mark, max(fences), f"the disk of machine {mark.machine_id}")
    return max(fences)


def _look(pool: Pool, mark: Mark) -> tuple[list[int], list[str]]:
    """The fences that the machine's volumes carry, and its disks."""
    prefix = volume_prefix(mark.machine_id)
    names = pool.names(prefix)
    fences = [int(rest) for name in names if (rest := name.removeprefix(prefix + FENCE)).isdecimal()]
    known = {prefix + part for part in (DISK, SEED, MEDIUM, KERNEL, INITRD)}
    return fences, [name for name in names if name in known]


def create_disks(
    connection: libvirt.virConnect, pool: Pool, mark: Mark, *, digest: str, disk_gib: int, seed: bytes
) -> None:
    """Make disk and seed. What an older fence left is cleaned first; what this fence made is kept where it is right."""
    pool.refresh()
    base = _base_for(pool, digest, disk_gib)
    running = _take_over(connection, pool, mark)
    _ensure_disk(pool, volume_name(mark.machine_id, DISK), base, disk_gib * GIB, running=running)
    if not running:
        _write_seed(connection, pool, volume_name(mark.machine_id, SEED), seed)


def place_live(connection: libvirt.virConnect, pool: Pool, mark: Mark, *, source: LiveSource, seed: bytes) -> None:
    """Make what the machine boots in the place of a disk, and its seed, if it has one; as `create_disks` does."""
    pool.refresh()
    wanted = {MEDIUM if source.format is ImageFormat.ISO else KERNEL: source.digest, INITRD: source.initrd_digest}
    bases = {part: _base(pool, digest) for part, digest in wanted.items() if digest}
    running = _take_over(connection, pool, mark)
    for part, base in bases.items():
        size = -(-base.capacity // SECTOR_BYTES) * SECTOR_BYTES
        _ensure_disk(pool, volume_name(mark.machine_id, part), base, size, running=running)
    if seed and not running:
        _write_seed(connection, pool, volume_name(mark.machine_id, SEED), seed)


def _take_over(connection: libvirt.virConnect, pool: Pool, mark: Mark) -> bool:
    """Clean what an older fence left, and put this one there; whether the machine runs."""
    owned, fence = own_domain(connection, mark), fence_of(pool, mark)
    if fence is not None and fence < mark.fence:
        if owned is not None and owned[0].isActive():
            owned[0].destroy()
        delete_all(pool, mark.machine_id)
    _ensure(pool, volume_name(mark.machine_id, f"{FENCE}{mark.fence}"))
    return owned is not None and bool(owned[0].isActive())


def _base(pool: Pool, digest: str) -> PlacedBase:
    base = find_base(pool, digest)
    if base is None:
        raise NotFound(f"pool {pool.name} has no whole base of {digest}; place the image first", digest=digest)
    return base


def _base_for(pool: Pool, digest: str, disk_gib: int) -> PlacedBase:
    base = _base(pool, digest)
    if disk_gib * GIB < base.capacity:
        needed = -(-base.capacity // GIB)
        raise InvalidRequest(
            f"a disk of {disk_gib} GiB was asked for, but the image describes one of {base.capacity} bytes; "
            f"ask for {needed} GiB or more",
            violations=[("resources.disk_gib", f"must be at least {needed} for this image")],
            needed=needed,
        )
    return base


def _ensure(pool: Pool, name: str) -> None:
    if pool.volume(name) is None:
        create_volume(pool, name, 0)


def _ensure_disk(pool: Pool, name: str, base: PlacedBase, capacity: int, *, running: bool) -> None:
    there = pool.volume(name)
    if there is not None:
        found = ET.fromstring(there.XMLDesc(0))  # noqa: S314 - libvirt wrote it
        size, below = int(found.findtext("capacity", "0")), found.findtext("backingStore/path")
        if size == capacity and below == base.path:
            return
        if running:
            raise Conflict(
                f"volume {name} is of {size} bytes on {below}, not of {capacity} on {base.path}, and its machine runs; "
                "power it off, then retry",
                object=name,
            )
        pool.delete(name)
    elif running:
        raise Busy(f"the machine runs, but pool {pool.name} does not show its disk {name}; it will be looked for again")
    below = base.format if base.format is ImageFormat.QCOW2 else ImageFormat.RAW
    create_volume(pool, name, capacity, kind="qcow2", backing=(base.path, below.value))


def _write_seed(connection: libvirt.virConnect, pool: Pool, name: str, seed: bytes) -> None:
    pool.delete(name)
    upload_bytes(connection, create_volume(pool, name, len(seed)), seed)


def delete_parts(pool: Pool, machine_id: str, *parts: str) -> None:
    """Delete the machine's volumes whose part begins so, e.g. `console.log` with what it was rotated to."""
    prefix = volume_prefix(machine_id)
    for name in pool.names(prefix):
        if name.removeprefix(prefix).startswith(parts):
            pool.delete(name)


def delete_all(pool: Pool, machine_id: str) -> None:
    """Delete every volume of the machine, the one with the fence last."""
    pool.refresh()
    fences = volume_prefix(machine_id) + FENCE
    for name in sorted(pool.names(volume_prefix(machine_id)), key=lambda name: name.startswith(fences)):
        pool.delete(name)


def remove_disks(connection: libvirt.virConnect, pool: Pool, mark: Mark) -> None:
    """Remove all the machine's volumes, then list afresh to be sure."""
    owned = own_domain(connection, mark)
    fence_of(pool, mark)
    if owned is not None and owned[0].isActive():
        raise Conflict(f"domain {owned[0].name()} runs on the disk that shall be removed; power it off first")
    left: list[str] = []
    for _ in range(SWEEPS):
        delete_all(pool, mark.machine_id)
        left = remaining_volumes(pool, mark.machine_id)
        if not left:
            break
    if left:
        raise Leftover(
            f"pool {pool.name} still lists {', '.join(left)} after the removal; delete them with "
            f"`virsh vol-delete --pool {pool.name} <name>`",
            objects=left,
        )


def remaining_volumes(pool: Pool, machine_id: str) -> list[str]:
    """The machine's volumes, from a fresh look at the directory."""
    pool.refresh()
    return [f"volume {pool.name}/{name}" for name in pool.names(volume_prefix(machine_id))]
