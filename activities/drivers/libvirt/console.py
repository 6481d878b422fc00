"""The serial console: QEMU's log of it is a file in the pool's directory, so it is read as a volume, near or far."""

from __future__ import annotations

import codecs

import libvirt

from mulligan.activities.drivers.base import ConsoleChunk
from mulligan.activities.drivers.libvirt.disks import CONSOLE, volume_name
from mulligan.activities.drivers.libvirt.marks import own_domain
from mulligan.activities.drivers.libvirt.pools import Pool
from mulligan.activities.drivers.libvirt.transfer import download
from mulligan.activities.values import Mark

MOST = 64 * 1024
"""Bytes that one read gives at most."""


def read_console(connection: libvirt.virConnect, pool: Pool, mark: Mark, offset: int) -> ConsoleChunk:
    """The console from `offset` bytes on.

    The log begins anew at every power on, and when it is rotated (2 MiB by default): an offset past its end reads from
    its beginning, and the chunk's `offset` says so.
    """
    own_domain(connection, mark)
    volume = _log(pool, volume_name(mark.machine_id, CONSOLE))
    if volume is None:
        return ConsoleChunk(0, 0, "")
    block = download(connection, volume, offset, MOST)
    if not block and offset > int(volume.infoFlags(libvirt.VIR_STORAGE_VOL_GET_PHYSICAL)[2]):
        offset, block = 0, download(connection, volume, 0, MOST)
    return chunk_of(offset, block)


def _log(pool: Pool, name: str) -> libvirt.virStorageVol | None:
    """The log as a volume; libvirt learns of a new file only by looking at the directory."""
    volume = pool.volume(name)
    if volume is None:
        pool.refresh(must=False)
        volume = pool.volume(name)
    return volume


def chunk_of(offset: int, block: bytes) -> ConsoleChunk:
    """The bytes as text; a character cut at the end is left for the next read."""
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    text = decoder.decode(block)
    pending = len(decoder.getstate()[0])
    return ConsoleChunk(offset, offset + len(block) - pending, text)
