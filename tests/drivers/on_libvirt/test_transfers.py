"""The two ways of a base into a pool: copied where the pool is a directory of this host, sent through libvirt else."""

from __future__ import annotations

import asyncio
import os
import threading
import uuid
from pathlib import Path

import libvirt
import pytest

from mulligan.activities.drivers.libvirt import bases
from mulligan.activities.drivers.libvirt.bases import base_prefix
from mulligan.activities.drivers.libvirt.driver import LibvirtDriver
from mulligan.activities.drivers.libvirt.local import copy_into, open_volume
from mulligan.activities.drivers.libvirt.transfer import Stopped
from mulligan.activities.errors import Transient, Unreachable
from tests.drivers.contract import Deadline, soon
from tests.drivers.on_libvirt.host import dense_image


def placed(pool: libvirt.virStoragePool, digest: str) -> Path:
    """The base's file."""
    (name,) = (one for one in pool.listVolumes() if one.startswith(base_prefix(digest)) and one.endswith(".raw"))
    return Path(pool.storageVolLookupByName(name).path())


def report(_done: int, _total: int) -> None:
    """Nobody looks."""


@pytest.mark.parametrize("way", ["copied", "sent"])
async def test_a_base_is_the_same_whichever_way_it_came(
    driver: LibvirtDriver, tmp_path: Path, pool: libvirt.virStoragePool, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """Holes included, and its progress ends at its size."""
    image = dense_image(tmp_path)
    with image.path.open("ab") as file:
        file.truncate(64 << 20)
        file.seek(0, os.SEEK_END)
        file.write(b"end")
    if way == "sent":
        monkeypatch.setattr(bases, "open_volume", lambda *_: None)
    seen: list[tuple[int, int]] = []
    await driver.place_base(image, lambda _doing, done, total: seen.append((done, total)), soon())
    assert placed(pool, image.digest).read_bytes() == image.path.read_bytes()
    assert placed(pool, image.digest).stat().st_blocks * 512 < 40 << 20
    assert seen[-1] == ((64 << 20) + 3, (64 << 20) + 3)


@pytest.mark.parametrize("way", ["copied", "sent"])
async def test_either_way_can_be_cancelled_and_leaves_nothing(
    driver: LibvirtDriver, tmp_path: Path, pool: libvirt.virStoragePool, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """The volume that was begun is removed."""
    image, loop = dense_image(tmp_path), asyncio.get_running_loop()
    if way == "sent":
        monkeypatch.setattr(bases, "open_volume", lambda *_: None)
    placing: list[asyncio.Task[None]] = []

    def cancel(*_: object) -> None:
        if not placing[0].cancelling():
            loop.call_soon_threadsafe(placing[0].cancel)

    placing.append(asyncio.create_task(driver.place_base(image, cancel, soon())))
    await asyncio.wait(placing)
    whole = await driver.has_base(image.digest, soon())
    assert placing[0].cancelled() or whole  # the last block may have been on its way already
    left = [name for name in pool.listVolumes() if name.startswith(base_prefix(image.digest))]
    assert bool(left) == whole


def test_only_a_file_of_the_size_that_was_asked_for_is_written_to(tmp_path: Path, pool: libvirt.virStoragePool) -> None:
    """A path that leads to something else on this host, or nowhere, is another host's."""
    volume = pool.createXML(f"<volume><name>{uuid.uuid4()}</name><capacity>4096</capacity></volume>")
    path = Path(volume.path())
    assert open_volume(volume, 4097) is None
    found = open_volume(volume, 4096)
    assert found is not None
    os.close(found)
    path.rename(path.with_name("elsewhere"))
    assert open_volume(volume, 4096) is None
    path.symlink_to("elsewhere")
    assert open_volume(volume, 4096) is None
    path.unlink()
    path.with_name("elsewhere").unlink()


def test_a_copy_ends_when_told_or_late_or_cut_short(tmp_path: Path) -> None:
    """With the error that says so."""
    image, stopped, none = dense_image(tmp_path), threading.Event(), threading.Event()
    stopped.set()

    def cut(_done: int, _total: int) -> None:
        os.truncate(image.path, 1)

    with (tmp_path / "target").open("wb", buffering=0) as file:
        with pytest.raises(Stopped):
            copy_into(file.fileno(), image.path, report, deadline=soon(), stop=stopped)
        with pytest.raises(Unreachable):
            copy_into(file.fileno(), image.path, report, deadline=Deadline.after(0), stop=none)
        with pytest.raises(Transient, match="shorter"):
            copy_into(file.fileno(), image.path, cut, deadline=soon(), stop=none)
