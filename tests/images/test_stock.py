"""What a store says of an image before it is asked to have it."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest

from mulligan.activities.drivers.base import Deadline
from mulligan.activities.errors import AccessDenied, ImageRejected, NotFound, Unsupported
from mulligan.activities.images.store import ImageStore, Stock
from mulligan.activities.values import Image, ImageFormat

DISK = b"\x00" * 510 + b"\x55\xaa" + b"\x00" * (1 << 20)


@pytest.fixture
def image(tmp_path: Path) -> Image:
    """A raw disk in a file from which images may come."""
    path = tmp_path / "images" / "disk.raw"
    path.parent.mkdir()
    path.write_bytes(DISK)
    digest = f"sha256:{hashlib.sha256(DISK).hexdigest()}"
    return Image("demo", path.as_uri(), digest, ImageFormat.RAW)


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    """An empty store."""
    return ImageStore(tmp_path / "cache", file_roots=[tmp_path / "images"])


async def test_what_is_not_here_would_be_fetched(store: ImageStore, image: Image) -> None:
    """A local file tells its size, whatever was registered; a remote one is believed."""
    assert await store.stock(image) == Stock(0, len(DISK))
    remote = replace(image, source="https://example.org/disk.raw", size_bytes=77)
    assert await store.stock(remote) == Stock(0, 77)


async def test_what_is_here_would_not(store: ImageStore, image: Image) -> None:
    """Wherever it came from."""
    await store.ensure(image, lambda *_: None, Deadline.after(30))
    assert await store.stock(image) == Stock(len(DISK), 0)
    assert await store.stock(replace(image, source="https://example.org/disk.raw")) == Stock(len(DISK), 0)


async def test_what_cannot_be_had_is_said_before(store: ImageStore, image: Image, tmp_path: Path) -> None:
    """As far as it can be told without the bytes."""
    with pytest.raises(NotFound):
        await store.stock(replace(image, source=(tmp_path / "images" / "other.raw").as_uri()))
    with pytest.raises(AccessDenied):
        await store.stock(replace(image, source="file:///etc/hostname"))
    with pytest.raises(Unsupported):
        await store.stock(replace(image, source="ftp://example.org/disk.raw"))
    await store.ensure(image, lambda *_: None, Deadline.after(30))
    with pytest.raises(ImageRejected):
        await store.stock(replace(image, format=ImageFormat.QCOW2))
