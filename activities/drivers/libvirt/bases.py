"""Base images: kept once per pool, and never taken for whole before they are.

A volume cannot be renamed, so wholeness is a second, empty volume: `mulligan-base-<digest>-<attempt>.<format>` is
filled first, its size is checked, and only then `<that name>.whole` is made. The attempt's random name keeps two
uploads at once apart: neither can write into, or vouch for, the other's bytes. Attempts that were broken off are swept
by a later upload.
"""

from __future__ import annotations

import os
import secrets
import threading
import time
import xml.etree.ElementTree as ET
from collections.abc import Collection
from dataclasses import dataclass

import libvirt

from mulligan.activities.drivers.base import BaseImage, Deadline, Progress
from mulligan.activities.drivers.libvirt.local import copy_into, open_volume
from mulligan.activities.drivers.libvirt.marks import PREFIX
from mulligan.activities.drivers.libvirt.pools import Pool
from mulligan.activities.drivers.libvirt.transfer import create_volume, upload_file
from mulligan.activities.errors import InvalidRequest, Transient
from mulligan.activities.values import ImageFormat

WHOLE = ".whole"
ABANDONED_SECONDS = 900
"""An unfinished base to which nothing was written for so long is swept. Only space hangs on it: whoever still sends to
a swept volume finds it gone at the end, and tries again."""


@dataclass(frozen=True, slots=True)
class PlacedBase:
    """A whole base in the pool."""

    path: str
    format: ImageFormat
    capacity: int
    """Bytes of the disk that it describes."""


def base_prefix(digest: str) -> str:
    """What the names of a digest's bases start with (128 bits of it name it well enough)."""
    algorithm, _, value = digest.partition(":")
    if algorithm not in {"sha256", "sha512"} or len(value) < 64:
        raise InvalidRequest(
            f"{digest!r} is not a digest; write sha256:<64 hex digits> or sha512:<128 hex digits>",
            violations=[("image.digest", "must be sha256:<hex> or sha512:<hex>")],
        )
    return f"{PREFIX}-base-{value[:32]}-"


def find_base(pool: Pool, digest: str) -> PlacedBase | None:
    """A whole base of the digest; None where a fresh look finds none."""
    found = _known_base(pool, digest)
    if found is None:
        pool.refresh()
        found = _known_base(pool, digest)
    return found


def _known_base(pool: Pool, digest: str) -> PlacedBase | None:
    names = pool.names(base_prefix(digest))
    for name in names:
        whole = name + WHOLE in names
        volume = pool.volume(name) if whole else None
        if volume is not None:
            return PlacedBase(volume.path(), ImageFormat(name.rpartition(".")[2]), int(volume.info()[1]))
    return None


def place_base(
    connection: libvirt.virConnect,
    pool: Pool,
    image: BaseImage,
    *,
    progress: Progress,
    deadline: Deadline,
    stop: threading.Event,
) -> None:
    """Put the base into the pool, whole or not at all."""
    if find_base(pool, image.digest) is not None:
        return
    sweep(pool)
    size = image.path.stat().st_size
    name = f"{base_prefix(image.digest)}{secrets.token_hex(4)}.{image.format.value}"
    volume = create_volume(pool, name, size)

    def report(done: int, total: int) -> None:
        progress("placing image", done, total)

    try:
        target = open_volume(volume, size)
        if target is None:
            upload_file(connection, volume, image.path, report, deadline=deadline, stop=stop)
        else:
            with os.fdopen(target, "wb", buffering=0):
                copy_into(target, image.path, report, deadline=deadline, stop=stop)
        _check(volume, name, size)
        pool.refresh()  # so that the size of the disk in a qcow2 is known
        if find_base(pool, image.digest) is None:
            create_volume(pool, name + WHOLE, 0)
        else:  # another upload of the same ended first: machines may be built on it already
            pool.delete(name)
    except BaseException:  # whatever it was, a cancel too: nothing half made, and passed on
        pool.delete(name)
        raise


def _check(volume: libvirt.virStorageVol, name: str, size: int) -> None:
    physical = int(volume.infoFlags(libvirt.VIR_STORAGE_VOL_GET_PHYSICAL)[2])
    if physical != size:
        raise Transient(
            f"volume {name} holds {physical} bytes after {size} were sent; it was removed and will be sent again"
        )


def sweep(pool: Pool) -> None:
    """Remove unfinished bases to which nobody writes any more."""
    names = pool.names(f"{PREFIX}-base-")
    for name in names:
        if name.endswith(WHOLE):
            if name.removesuffix(WHOLE) not in names:
                pool.delete(name)
        elif name + WHOLE not in names and _idle_seconds(pool, name) > ABANDONED_SECONDS:
            pool.delete(name)


def remove_bases(pool: Pool, only: Collection[str] | None) -> tuple[str, ...]:
    """Remove the bases of these digests, or of all, also unfinished ones; those that a volume is built on stay.

    What says that a base is whole goes first: one that is half removed is never built on.
    """
    pool.refresh()
    prefixes = tuple(base_prefix(digest) for digest in only) if only is not None else (f"{PREFIX}-base-",)
    names = [name for name in pool.names(f"{PREFIX}-base-") if name.startswith(prefixes) and not name.endswith(WHOLE)]
    used = _built_on(pool) if names else set()
    removed = []
    for name in names:
        volume = pool.volume(name)
        if volume is not None and volume.path() not in used:
            pool.delete(name + WHOLE)
            pool.delete(name)
            removed.append(name)
    return tuple(removed)


def _built_on(pool: Pool) -> set[str]:
    """The paths on which volumes of the pool are built."""
    paths = set()
    for name in pool.names(""):
        volume = None if name.startswith(f"{PREFIX}-base-") else pool.volume(name)
        if volume is not None:
            below = ET.fromstring(volume.XMLDesc(0)).findtext("backingStore/path")  # noqa: S314 - libvirt wrote it
            paths.add(below or "")
    return paths


def _idle_seconds(pool: Pool, name: str) -> float:
    volume = pool.volume(name)
    if volume is None:
        return 0.0
    written = ET.fromstring(volume.XMLDesc(0)).findtext("target/timestamps/mtime")  # noqa: S314 - libvirt wrote it
    return time.time() - float(written) if written else 0.0
