"""The raw disk of an image: converted once, with its digest, and kept beside the image."""

from __future__ import annotations

import asyncio
import hashlib
import os
import subprocess
from pathlib import Path

import pytest

from mulligan.activities.drivers.base import BaseImage, Deadline
from mulligan.activities.errors import ImageRejected, Unreachable
from mulligan.activities.images.raw import raw_disk
from mulligan.activities.images.store import ImageStore
from mulligan.activities.values import ImageFormat

CONTENT = os.urandom(65536) + bytes(8 * 2**20) + os.urandom(65536)
DIGEST = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"
KEY = "sha256:" + "1" * 64


def an_image(folder: Path, kind: ImageFormat) -> BaseImage:
    """A verified image of this format, where the store keeps it."""
    folder.mkdir(exist_ok=True)
    plain, path = folder / "plain", folder / f"{KEY.replace(':', '-')}.{kind}"
    plain.write_bytes(CONTENT)
    command = ["qemu-img", "convert", "-f", "raw", "-O", kind.value, plain, path]
    subprocess.run(command, check=True, timeout=60)
    plain.unlink()
    return BaseImage(KEY, path, kind, len(CONTENT))


async def made(image: BaseImage, said: list[str] | None = None) -> tuple[Path, int, str]:
    """Where it is, its size, its digest."""
    heard = said if said is not None else []
    disk = await raw_disk(image, lambda doing, *_: heard.append(doing), Deadline.after(60))
    return disk.path, disk.bytes, disk.digest


def names_in(folder: Path) -> list[str]:
    """What lies there."""
    return [each.name for each in folder.iterdir()]


@pytest.mark.parametrize("kind", [ImageFormat.RAW, ImageFormat.QCOW2])
async def test_a_disk_is_raw_and_known_by_its_digest(tmp_path: Path, kind: ImageFormat) -> None:
    """Whatever the image is; one that is raw already is served as it is."""
    image = an_image(tmp_path, kind)
    path, size, digest = await made(image)
    assert (path.read_bytes() == CONTENT, size, digest) == (True, len(CONTENT), DIGEST)
    assert (path == image.path) is (kind is ImageFormat.RAW)
    assert path.stat().st_blocks * 512 < len(CONTENT)


async def test_it_is_made_once(tmp_path: Path) -> None:
    """Also when many ask at once; afterwards not a byte is read."""
    image = an_image(tmp_path, ImageFormat.QCOW2)
    first = await asyncio.gather(*(made(image) for _ in range(4)))
    assert len(set(first)) == 1
    inode, said = first[0][0].stat().st_ino, list[str]()
    assert await made(image, said) == first[0]
    assert (said, first[0][0].stat().st_ino) == ([], inode)


async def test_a_disk_that_was_touched_is_made_anew(tmp_path: Path) -> None:
    """What was found out about it holds no longer."""
    image = an_image(tmp_path, ImageFormat.QCOW2)
    path, _, _ = await made(image)
    path.chmod(0o600)
    path.write_bytes(b"x")
    assert (await made(image))[2] == DIGEST


async def test_a_damaged_image_leaves_nothing(tmp_path: Path) -> None:
    """It is said what qemu-img says."""
    image = an_image(tmp_path, ImageFormat.QCOW2)
    image.path.write_bytes(b"QFI\xfb" + bytes(100))
    with pytest.raises(ImageRejected, match="cannot be made raw"):
        await made(image)
    assert names_in(tmp_path) == [image.path.name]


async def test_too_little_time_leaves_nothing(tmp_path: Path) -> None:
    """It is tried again later."""
    image = an_image(tmp_path, ImageFormat.QCOW2)
    with pytest.raises(Unreachable):
        await raw_disk(image, lambda *_: None, Deadline.after(0))
    assert names_in(tmp_path) == [image.path.name]


async def test_it_goes_with_its_image(tmp_path: Path) -> None:
    """When an image is removed from the store, so is its raw disk."""
    store = ImageStore(tmp_path / "cache")
    await made(an_image(tmp_path / "cache", ImageFormat.QCOW2))
    assert await store.remove(KEY)
    assert names_in(tmp_path / "cache") == []
