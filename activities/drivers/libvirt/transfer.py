"""Bytes in and out of volumes by stream: the same for a local and a remote hypervisor, never whole in memory."""

from __future__ import annotations

import os
import threading
import xml.etree.ElementTree as ET
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import libvirt

from mulligan.activities.drivers.base import Deadline
from mulligan.activities.drivers.libvirt.pools import Pool
from mulligan.activities.errors import Busy, Transient

CHUNK = 1 << 18
"""Bytes per message; libvirt's own limit is 16 MiB, and it cuts at 256 KiB."""

Report = Callable[[int, int], None]


class Stopped(Exception):
    """The transfer was told to stop; never leaves this driver."""


def create_volume(
    pool: Pool, name: str, capacity: int, *, kind: str = "raw", backing: tuple[str, str] | None = None
) -> libvirt.virStorageVol:
    """Make a volume of `capacity` bytes that allocates nothing yet; `backing` is (path, format)."""
    volume = ET.Element("volume")
    ET.SubElement(volume, "name").text = name
    ET.SubElement(volume, "capacity", unit="bytes").text = str(capacity)
    ET.SubElement(volume, "allocation", unit="bytes").text = "0"
    ET.SubElement(ET.SubElement(volume, "target"), "format", type=kind)
    if backing is not None:
        below = ET.SubElement(volume, "backingStore")
        ET.SubElement(below, "path").text = backing[0]
        ET.SubElement(below, "format", type=backing[1])
    pool.handle.createXML(ET.tostring(volume, "unicode"), 0)
    return _seen(pool, name)


def _seen(pool: Pool, name: str) -> libvirt.virStorageVol:
    """The volume that was just made. When another upload ends meanwhile, libvirt looks at the directory anew and may
    forget a volume whose file was not there yet: the next look finds it."""
    found = pool.volume(name)
    if found is None:
        pool.refresh(must=False)
        found = pool.volume(name)
    if found is None:
        raise Busy(f"pool {pool.name} does not show volume {name} yet; it will be tried again", after_seconds=1.0)
    return found


def _section(file: BinaryIO, position: int, end: int) -> tuple[bool, int]:
    """Whether there is data at `position`, and for how many bytes; (True, 0) at the end."""
    if position >= end:
        return True, 0
    try:
        data = os.lseek(file.fileno(), position, os.SEEK_DATA)
    except OSError:  # ENXIO: only a hole from here to the end, or the end came nearer
        if os.fstat(file.fileno()).st_size < end:
            raise shrunk(position) from None
        return False, end - position
    if data > position:
        return False, data - position
    return True, os.lseek(file.fileno(), position, os.SEEK_HOLE) - position


def upload_file(
    connection: libvirt.virConnect,
    volume: libvirt.virStorageVol,
    path: Path,
    report: Report,
    *,
    deadline: Deadline,
    stop: threading.Event,
) -> None:
    """Send a file, holes as holes. `report` gets bytes done and bytes in all. Ends early with `Stopped` or
    `Unreachable`; the volume is then not whole."""
    end, position = path.stat().st_size, 0
    stream = connection.newStream(0)
    volume.upload(stream, 0, end, libvirt.VIR_STORAGE_VOL_UPLOAD_SPARSE_STREAM)
    try:
        with path.open("rb", buffering=0) as file:
            while position < end:
                if stop.is_set():
                    raise Stopped
                deadline.check(f"sending {path.name} to volume {volume.name()}")
                data, length = _section(file, position, end)
                position += _send_some(stream, file, position, length) if data else _skip(stream, length)
                report(position, end)
    except BaseException:  # whatever it was, a cancel too: nothing half made, and passed on
        stream.abort()
        raise
    stream.finish()


def shrunk(position: int) -> Transient:
    """The error for a file of which less was there than when the transfer began."""
    return Transient(f"the image file became shorter while it was sent: nothing at byte {position}; fetch it again")


def _send_some(stream: libvirt.virStream, file: BinaryIO, position: int, length: int) -> int:
    block = os.pread(file.fileno(), min(length, CHUNK), position)
    if not block:
        raise shrunk(position)
    sent = 0
    while sent < len(block):
        sent += stream.send(block[sent:])
    return sent


def _skip(stream: libvirt.virStream, length: int) -> int:
    stream.sendHole(length)
    return length


def upload_bytes(connection: libvirt.virConnect, volume: libvirt.virStorageVol, content: bytes) -> None:
    """Send a small content whole."""
    source, stream = BytesIO(content), connection.newStream(0)
    volume.upload(stream, 0, len(content), 0)
    stream.sendAll(lambda _stream, size, _opaque: source.read(size), None)
    stream.finish()


def download(connection: libvirt.virConnect, volume: libvirt.virStorageVol, offset: int, length: int) -> bytes:
    """At most `length` bytes from `offset` on; empty past the end."""
    parts: list[bytes] = []

    def keep(_stream: libvirt.virStream, block: bytes, _opaque: object) -> int:
        parts.append(block)
        return len(block)

    stream = connection.newStream(0)
    volume.download(stream, offset, length, 0)
    stream.recvAll(keep, None)
    stream.finish()
    return b"".join(parts)
