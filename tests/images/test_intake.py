"""Images while they come: expanded before the last byte is there, believed only after it, and known again later."""

from __future__ import annotations

import asyncio
import gzip
import os
import threading

import pytest

from mulligan.activities.errors import ImageRejected, Unreachable
from mulligan.activities.images.disk_hash import BLOCK_BYTES, DiskHash
from mulligan.activities.images.intake import Abandoned, Intake, Tail
from mulligan.activities.values import Compression

MIB = 1024**2


def digest_of(*pieces: bytes) -> str:
    """The disk digest of these bytes."""
    disk = DiskHash()
    for piece in pieces:
        disk.update(piece)
    return disk.digest


async def test_an_image_is_expanded_while_it_comes(store, origin, seen, deadline, tmp_path, eventually, left):
    """With half of the bytes there, some of the disk is; nothing of it has a name before the digest is right."""
    disk = os.urandom(12 * MIB)
    origin.content = gzip.compress(disk, 1)
    origin.hold_at = 8 * MIB
    task = asyncio.create_task(store.ensure(origin.image(compression=Compression.GZIP), seen, deadline))
    await eventually(lambda: any(path.stat().st_size > MIB for path in (tmp_path / "store").glob("*.expanding")))
    assert "raw" not in left()
    assert seen.words == ["download"]
    origin.go.set()
    assert (await task).path.read_bytes() == disk
    assert seen.words == ["download", "verify", "expand", "inspect"]


async def test_what_was_expanded_of_a_broken_download_goes(store, origin, seen, deadline, tmp_path, left):
    """Only what can be resumed stays; the next try expands all of it."""
    disk = os.urandom(12 * MIB)
    origin.content, origin.cut_at = gzip.compress(disk, 1), 8 * MIB
    image = origin.image(compression=Compression.GZIP)
    with pytest.raises(Unreachable):
        await store.ensure(image, seen, deadline)
    assert left() == ["part", "part.json"]
    origin.cut_at = None
    assert (await store.ensure(image, seen, deadline)).path.read_bytes() == disk
    assert "Range" in origin.requests[1]


async def test_a_wrong_digest_is_the_verdict_even_where_the_bytes_cannot_be_expanded(
    store, origin, disk, seen, deadline, left
):
    """What the wrong bytes look like is of no interest."""
    origin.content = disk
    with pytest.raises(ImageRejected, match="not those of the image"):
        await store.ensure(origin.image(digest="sha256:" + "0" * 64, compression=Compression.GZIP), seen, deadline)
    assert left() == []


async def test_a_touched_disk_that_was_expanded_is_verified_again_without_a_download(store, origin, seen, deadline):
    """By the digest of the disk, holes and all; a changed one is fetched again."""
    disk = os.urandom(MIB) + bytes(2 * MIB) + b"end"
    origin.content = gzip.compress(disk, 1)
    image = origin.image(compression=Compression.GZIP)
    base = await store.ensure(image, seen, deadline)
    assert base.path.stat().st_blocks * 512 < 2 * MIB
    os.utime(base.path, (1, 1))
    assert await store.ensure(image, seen, deadline) == base
    assert len(origin.requests) == 1
    base.path.chmod(0o600)
    with base.path.open("r+b") as file:
        file.seek(2 * MIB)
        file.write(b"x")
    assert (await store.ensure(image, seen, deadline)).path.read_bytes() == disk
    assert len(origin.requests) == 2


def test_the_digest_of_a_disk_tells_where_its_zeros_are():
    """It depends on the bytes, and not on how they came."""
    data, hole = os.urandom(BLOCK_BYTES), bytes(BLOCK_BYTES)
    assert digest_of(data, hole, b"end") == digest_of(data + hole + b"end")
    different = {
        digest_of(data, hole),
        digest_of(hole, data),
        digest_of(data),
        digest_of(data, hole, hole),
        digest_of(),
    }
    assert len(different) == 5


def test_a_tail_gives_what_is_there_and_waits_for_the_rest(tmp_path):
    """Not what was written but not yet told of; nothing after the end; an error when nobody will write any more."""
    path = tmp_path / "file"
    path.write_bytes(b"onetwo")
    tail = Tail(path)
    tail.grown(3)
    assert (tail.read(2), tail.read(9), tail.tell()) == (b"on", b"e", 3)
    got: list[bytes] = []
    reader = threading.Thread(target=lambda: got.append(tail.read(9)))
    reader.start()
    tail.grown(6)
    reader.join(30)
    assert got == [b"two"]
    tail.end()
    assert tail.read(9) == b""
    tail.abandon()
    with pytest.raises(Abandoned):
        tail.read(9)
    tail.close()


def test_kept_bytes_are_read_from_the_disk(tmp_path):
    """Their digest is of what is there now."""
    path = tmp_path / "file"
    path.write_bytes(b"kept and more")
    resumed, whole = Intake(path, "sha512"), Intake(path, "sha512")
    resumed.begin(4)
    resumed.took(b" and more")
    whole.begin(13)
    assert resumed.digest == whole.digest
    assert (resumed.size, whole.size) == (13, 13)
