"""A raw disk compressed for its way to a server: made once, verified, kept beside the image."""

from __future__ import annotations

import asyncio
import subprocess
from pathlib import Path

import pytest

from mulligan.activities.drivers.base import BaseImage, Deadline
from mulligan.activities.errors import ImageRejected, Unreachable
from mulligan.activities.images.packed import packed_disk
from mulligan.activities.images.raw import RawDisk, raw_disk
from mulligan.activities.images.store import ImageStore
from mulligan.activities.threads import run_blocking
from mulligan.activities.values import ImageFormat
from tests.images.test_raw import CONTENT, DIGEST, KEY, an_image, names_in

LONG = 60


async def disk_of(folder: Path) -> tuple[BaseImage, RawDisk]:
    """An image, and its raw disk."""
    image = an_image(folder, ImageFormat.QCOW2)
    return image, await raw_disk(image, lambda *_: None, Deadline.after(LONG))


async def made(image: BaseImage, disk: RawDisk, said: list[str] | None = None) -> tuple[Path, int]:
    """Where it is, and its size."""
    heard = said if said is not None else []
    packed = await packed_disk(image, disk, lambda doing, *_: heard.append(doing), Deadline.after(LONG))
    return packed.path, packed.bytes


async def test_it_expands_to_the_disk(tmp_path: Path) -> None:
    """By the program that the deploy agent has; it is smaller, and is told while it is made."""
    said: list[str] = []
    path, size = await made(*await disk_of(tmp_path), said)
    command = ["zstd", "--decompress", "--stdout", "--quiet", path]
    done = await run_blocking(subprocess.run, command, capture_output=True, check=True, timeout=LONG)
    assert done.stdout == CONTENT
    assert size == path.stat().st_size < len(CONTENT)
    assert set(said) == {"compress", "verify"}


async def test_it_is_made_once(tmp_path: Path) -> None:
    """Also when many ask at once; afterwards not a byte is read."""
    image, disk = await disk_of(tmp_path)
    first = await asyncio.gather(*(made(image, disk) for _ in range(4)))
    assert len(set(first)) == 1
    inode, said = first[0][0].stat().st_ino, list[str]()
    assert await made(image, disk, said) == first[0]
    assert (said, first[0][0].stat().st_ino) == ([], inode)


async def test_one_that_was_touched_is_made_anew(tmp_path: Path) -> None:
    """What was found out about it holds no longer."""
    image, disk = await disk_of(tmp_path)
    path, size = await made(image, disk)
    path.chmod(0o600)
    path.write_bytes(b"x")
    assert await made(image, disk) == (path, size)


async def test_a_disk_that_was_changed_leaves_nothing(tmp_path: Path) -> None:
    """No server is to wait for bytes that its agent will refuse."""
    image, disk = await disk_of(tmp_path)
    before = sorted(names_in(tmp_path))
    disk.path.chmod(0o600)
    disk.path.write_bytes(CONTENT[::-1])
    with pytest.raises(ImageRejected, match="was changed since it was prepared"):
        await made(image, disk)
    assert sorted(names_in(tmp_path)) == before


async def test_too_little_time_leaves_nothing(tmp_path: Path) -> None:
    """It is tried again later."""
    image, disk = await disk_of(tmp_path)
    before = sorted(names_in(tmp_path))
    with pytest.raises(Unreachable):
        await packed_disk(image, disk, lambda *_: None, Deadline.after(0))
    assert sorted(names_in(tmp_path)) == before


async def test_it_goes_with_its_image(tmp_path: Path) -> None:
    """When an image is removed from the store, so is all that was made of it."""
    store = ImageStore(tmp_path / "cache")
    _, disk = (found := await disk_of(tmp_path / "cache"))
    await made(*found)
    assert disk.digest == DIGEST
    assert await store.remove(KEY)
    assert names_in(tmp_path / "cache") == []
