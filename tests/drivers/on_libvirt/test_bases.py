"""Images on the real libvirt: a base is there whole or not at all, and disks are made on it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import libvirt
import pytest

from mulligan.activities.drivers.libvirt.bases import WHOLE, base_prefix
from mulligan.activities.drivers.libvirt.driver import LibvirtDriver
from mulligan.activities.errors import InvalidRequest, NotFound, Transient
from tests.drivers.contract import MarkFactory, boot_sector_image, silent, soon
from tests.drivers.on_libvirt.host import dense_image


async def test_a_base_that_was_never_placed_is_not_there(driver: LibvirtDriver) -> None:
    """Nothing is taken for a base that is not one."""
    assert not await driver.has_base("sha256:" + "0" * 64, soon())


async def test_a_disk_smaller_than_its_base_is_refused(
    driver: LibvirtDriver, tmp_path: Path, mark: MarkFactory
) -> None:
    """The request is wrong, it says how much is needed, and nothing is left of the attempt."""
    image = boot_sector_image(tmp_path, "mulligan: big", 3 << 30)
    await driver.place_base(image, silent, soon())
    with pytest.raises(InvalidRequest, match="3 GiB or more"):
        await driver.create_disks(mark(), image.digest, 2, b"seed", soon())
    assert await driver.remains(mark().machine_id, soon()) == ()


async def test_disks_on_a_base_that_is_not_there_are_refused(driver: LibvirtDriver, mark: MarkFactory) -> None:
    """The error names the digest; nothing is left of the attempt."""
    with pytest.raises(NotFound, match="f" * 64):
        await driver.create_disks(mark(), "sha256:" + "f" * 64, 1, b"seed", soon())
    assert await driver.remains(mark().machine_id, soon()) == ()


async def test_holes_are_not_sent(driver: LibvirtDriver, tmp_path: Path, pool: libvirt.virStoragePool) -> None:
    """A sparse image of 2 GiB takes next to no room in the pool, and its progress ends at its size."""
    image = boot_sector_image(tmp_path, "mulligan: sparse", 2 << 30)
    seen: list[tuple[int, int]] = []
    await driver.place_base(image, lambda _doing, done, total: seen.append((done, total)), soon())
    name = next(
        each for each in pool.listVolumes() if each.startswith(base_prefix(image.digest)) and each.endswith(".raw")
    )
    _kind, capacity, allocation = pool.storageVolLookupByName(name).info()
    assert capacity == 2 << 30
    assert allocation < 1 << 20
    assert seen[-1] == (2 << 30, 2 << 30)
    assert seen == sorted(seen)


async def test_a_cancelled_upload_leaves_nothing(
    driver: LibvirtDriver, tmp_path: Path, pool: libvirt.virStoragePool
) -> None:
    """The sending stops at the next block, what was sent is removed, and the base is not there."""
    image, loop = dense_image(tmp_path), asyncio.get_running_loop()
    sending: list[asyncio.Task[None]] = []
    done_when_cancelled: list[int] = []

    def cancel(_doing: str, done: int, total: int) -> None:
        if done > total // 2 and not done_when_cancelled:
            done_when_cancelled.append(done)
            asyncio.run_coroutine_threadsafe(cancel_it(), loop).result()

    async def cancel_it() -> None:
        sending[0].cancel()
        await asyncio.sleep(0)

    sending.append(asyncio.create_task(driver.place_base(image, cancel, soon())))
    with pytest.raises(asyncio.CancelledError):
        await sending[0]
    assert 0 < done_when_cancelled[0] < 32 << 20
    assert not await driver.has_base(image.digest, soon())
    assert not [name for name in pool.listVolumes() if name.startswith(base_prefix(image.digest))]


async def test_an_upload_that_was_killed_is_never_taken_for_whole(
    driver: LibvirtDriver, tmp_path: Path, pool: libvirt.virStoragePool
) -> None:
    """What a killed process left is not a base, and the next upload gives a whole one beside it."""
    image = dense_image(tmp_path)
    torn = base_prefix(image.digest) + "deadbeef.raw"
    pool.createXML(f"<volume><name>{torn}</name><capacity>{32 << 20}</capacity></volume>")
    assert not await driver.has_base(image.digest, soon())
    await driver.place_base(image, silent, soon())
    assert await driver.has_base(image.digest, soon())
    assert torn + WHOLE not in pool.listVolumes()
    pool.storageVolLookupByName(torn).delete()


async def test_an_image_that_shrinks_while_it_is_sent_is_not_kept(
    driver: LibvirtDriver, tmp_path: Path, pool: libvirt.virStoragePool
) -> None:
    """A base that could not be sent whole is an error, and is removed."""
    image = dense_image(tmp_path)

    def cut(_doing: str, done: int, _total: int) -> None:
        with image.path.open("ab") as file:
            file.truncate(done)

    with pytest.raises(Transient):
        await driver.place_base(image, cut, soon())
    assert not [name for name in pool.listVolumes() if name.startswith(base_prefix(image.digest))]


async def test_two_uploads_at_once_give_one_usable_base(driver: LibvirtDriver, tmp_path: Path) -> None:
    """Neither disturbs the other."""
    image = dense_image(tmp_path)
    await asyncio.gather(*(driver.place_base(image, silent, soon()) for _ in range(2)))
    assert await driver.has_base(image.digest, soon())
