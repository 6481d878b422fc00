"""Images from real servers: whole, resumed, changed, cut off, refused, gone."""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import replace

import pytest

from mulligan.activities.drivers.base import Deadline
from mulligan.activities.errors import (
    AccessDenied,
    Busy,
    ImageRejected,
    InvalidRequest,
    NotFound,
    Unreachable,
    Unsupported,
)
from mulligan.activities.images.fetch import shown

MIB = 1024**2


async def test_an_image_is_fetched_verified_and_kept(store, origin, disk, seen, deadline, left):
    """The happy path: bytes on disk, read-only, with progress in bytes and nothing else left."""
    origin.content = disk
    base = await store.ensure(origin.image(), seen, deadline)
    assert base.path.read_bytes() == disk
    assert base.virtual_size_bytes == len(disk)
    assert base.path.stat().st_mode & 0o777 == 0o444
    assert seen.words == ["download", "verify", "inspect"]
    assert ("download", len(disk), len(disk)) in seen.lines
    assert left() == ["json", "raw"]


async def test_sha512_names_an_image_too(store, origin, disk, seen, deadline):
    """Both digests that are accepted work."""
    origin.content = disk
    digest = "sha512:" + hashlib.sha512(disk).hexdigest()
    assert (await store.ensure(origin.image(digest=digest), seen, deadline)).digest == digest


@pytest.mark.parametrize("digest", ["md5:" + "0" * 32, "sha1:" + "0" * 40, "sha256:" + "A" * 64, "", "../x"])
async def test_weak_and_malformed_digests_are_refused(store, origin, seen, deadline, digest):
    """Nothing is fetched for a digest that proves nothing."""
    with pytest.raises(InvalidRequest):
        await store.ensure(origin.image(digest=digest), seen, deadline)
    assert origin.requests == []


async def test_a_dropped_connection_is_resumed_by_range(store, origin, disk, seen, deadline, left):
    """The second try asks for the rest only, on condition that the file is the same."""
    origin.content, origin.cut_at = disk, MIB
    with pytest.raises(Unreachable):
        await store.ensure(origin.image(), seen, deadline)
    assert left() == ["part", "part.json"]
    origin.cut_at = None
    base = await store.ensure(origin.image(), seen, deadline)
    assert base.path.read_bytes() == disk
    assert 0 < int(origin.requests[1]["Range"].removeprefix("bytes=").removesuffix("-")) <= MIB
    assert origin.requests[1]["If-Range"] == '"one"'
    assert left() == ["json", "raw"]


async def test_a_server_without_ranges_starts_over(store, origin, disk, seen, deadline):
    """A 200 where a 206 was hoped for replaces the earlier bytes."""
    origin.content, origin.cut_at, origin.ranges = disk, MIB, False
    with pytest.raises(Unreachable):
        await store.ensure(origin.image(), seen, deadline)
    origin.cut_at = None
    assert (await store.ensure(origin.image(), seen, deadline)).path.read_bytes() == disk


async def test_a_server_that_answers_with_another_range_is_not_believed(store, origin, disk, seen, deadline):
    """The next try asks for everything."""
    origin.content, origin.cut_at, origin.shift = disk, MIB, 7
    with pytest.raises(Unreachable):
        await store.ensure(origin.image(), seen, deadline)
    origin.cut_at = None
    with pytest.raises(Unreachable, match="another range"):
        await store.ensure(origin.image(), seen, deadline)
    assert (await store.ensure(origin.image(), seen, deadline)).path.read_bytes() == disk
    assert "Range" not in origin.requests[2]


async def test_a_file_that_changed_meanwhile_starts_over(store, origin, disk, seen, deadline):
    """The server's new ETag makes it send everything, and the digest decides over all of it."""
    origin.content, origin.cut_at = disk[::-1], MIB
    image = origin.image(digest="sha256:" + hashlib.sha256(disk).hexdigest())
    with pytest.raises(Unreachable):
        await store.ensure(image, seen, deadline)
    origin.content, origin.etag, origin.cut_at = disk, '"two"', None
    assert (await store.ensure(image, seen, deadline)).path.read_bytes() == disk


async def test_a_resume_that_mixed_two_files_is_repeated_whole(store, origin, disk, seen, deadline):
    """A server that does not say that the file changed costs one more download, not a wrong verdict."""
    origin.content, origin.cut_at, origin.etag = disk[::-1], MIB, 'W/"weak"'
    image = origin.image(digest="sha256:" + hashlib.sha256(disk).hexdigest())
    with pytest.raises(Unreachable):
        await store.ensure(image, seen, deadline)
    origin.content, origin.cut_at = disk, None
    assert (await store.ensure(image, seen, deadline)).path.read_bytes() == disk
    assert [("Range" in headers) for headers in origin.requests] == [False, True, False]
    assert "If-Range" not in origin.requests[1]


async def test_a_partial_that_rotted_is_noticed(store, origin, disk, seen, deadline, tmp_path):
    """The digest is computed over what is on the disk, earlier bytes included."""
    origin.content, origin.cut_at = disk, MIB
    with pytest.raises(Unreachable):
        await store.ensure(origin.image(), seen, deadline)
    part = next((tmp_path / "store").glob("*.part"))
    part.write_bytes(b"\0" * MIB)
    origin.cut_at = None
    assert (await store.ensure(origin.image(), seen, deadline)).path.read_bytes() == disk


async def test_a_wrong_digest_says_expected_and_got_and_leaves_nothing(store, origin, disk, seen, deadline, left):
    """Other bytes than the declared ones are never kept."""
    origin.content = disk
    wrong = "sha256:" + "0" * 64
    with pytest.raises(ImageRejected, match=wrong) as raised:
        await store.ensure(origin.image(digest=wrong), seen, deadline)
    assert raised.value.metadata["found"] == origin.image().digest
    assert "inspect" not in seen.words
    assert left() == []


async def test_a_truncated_file_is_refused_before_it_is_fetched(store, origin, disk, seen, deadline, left):
    """The server's length is compared with the declared one."""
    origin.content = disk[:MIB]
    with pytest.raises(ImageRejected, match="truncated"):
        await store.ensure(origin.image(size_bytes=len(disk)), seen, deadline)
    assert left() == []


async def test_too_large_by_its_announced_length(store, origin, disk, seen, deadline, left):
    """Nothing is downloaded beyond the limit."""
    origin.content = b"x" * (65 * MIB)
    with pytest.raises(ImageRejected, match="at most"):
        await store.ensure(origin.image(), seen, deadline)
    assert left() == []


async def test_too_large_without_an_announced_length(store, origin, disk, seen, deadline, left):
    """A server that hides the length is cut off at the limit."""
    origin.content, origin.announce = disk * 22, False
    with pytest.raises(ImageRejected, match="sends more"):
        await store.ensure(origin.image(), seen, deadline)
    assert left() == []


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (401, AccessDenied), (403, AccessDenied), (404, NotFound), (410, NotFound), (418, NotFound),
        (500, Unreachable), (502, Unreachable), (503, Busy), (429, Busy),
    ],
)  # fmt: skip
async def test_every_status_has_its_error(store, origin, seen, deadline, left, status, error):
    """The status decides whether another try can help."""
    origin.status = status
    with pytest.raises(error, match=str(status)):
        await store.ensure(origin.image(), seen, deadline)
    assert left() == []


async def test_a_busy_server_says_when(store, origin, seen, deadline):
    """Retry-After is handed on."""
    origin.status, origin.headers = 503, {"Retry-After": "17"}
    with pytest.raises(Busy) as raised:
        await store.ensure(origin.image(), seen, deadline)
    assert raised.value.after_seconds == 17


async def test_nobody_listens(store, origin, seen, deadline, unused_port, left):
    """A refused connection is worth another try."""
    source = f"http://127.0.0.1:{unused_port}/x"
    with pytest.raises(Unreachable):
        await store.ensure(origin.image(source=source), seen, deadline)
    assert left() == []


async def test_a_slow_server_meets_the_deadline_and_is_resumed(store, origin, disk, seen, deadline):
    """What came before the deadline is not lost."""
    origin.content, origin.hold_at = disk, MIB
    with pytest.raises(Unreachable):
        await store.ensure(origin.image(), seen, Deadline.after(1.0))
    origin.hold_at = None
    await store.ensure(origin.image(), seen, deadline)
    assert origin.requests[1]["Range"] == f"bytes={MIB}-"


async def test_a_cancel_keeps_the_bytes_and_frees_the_lock(store, origin, disk, seen, deadline, left, eventually):
    """A cancelled run leaves what the next one can go on from."""
    origin.content, origin.hold_at = disk, MIB
    task = asyncio.create_task(store.ensure(origin.image(), seen, deadline))
    await eventually(lambda: any(done == MIB for _, done, _ in seen.lines))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert left() == ["part", "part.json"]


async def test_an_image_that_vanished_after_an_interruption_leaves_nothing(store, origin, disk, seen, deadline, left):
    """A partial of something that is gone is of no use."""
    origin.content, origin.cut_at = disk, MIB
    with pytest.raises(Unreachable):
        await store.ensure(origin.image(), seen, deadline)
    origin.status = 404
    with pytest.raises(NotFound):
        await store.ensure(origin.image(), seen, deadline)
    assert left() == []


async def test_bytes_are_taken_as_served_whatever_their_content_encoding(store, origin, disk, seen, deadline):
    """The digest is of the file, so nothing is decoded on the way."""
    origin.content, origin.headers = disk, {"Content-Encoding": "gzip"}
    assert (await store.ensure(origin.image(), seen, deadline)).path.read_bytes() == disk


@pytest.mark.parametrize("source", ["ftp://host/x", "simulated:debian", "disk.img", "gopher://x", ""])
async def test_only_known_schemes_are_fetched(store, origin, seen, deadline, source):
    """The allow-list is http, https and file."""
    with pytest.raises(Unsupported):
        await store.ensure(origin.image(source=source), seen, deadline)


async def test_a_source_that_is_no_address_is_an_invalid_request(store, origin, seen, deadline):
    """With the field's name."""
    with pytest.raises(InvalidRequest) as raised:
        await store.ensure(origin.image(source="http://[::1/x"), seen, deadline)
    assert raised.value.violations[0][0] == "source"


async def test_a_simulated_image_says_where_it_works(store, origin, seen, deadline):
    """The way out is in the message."""
    with pytest.raises(Unsupported, match="only works on simulated providers"):
        await store.ensure(origin.image(source="simulated:debian"), seen, deadline)


def test_secrets_in_addresses_are_not_shown():
    """User, password and signed queries stay out of messages."""
    assert shown("https://me:pw@host:81/a.img?sig=secret") == "https://host:81/a.img"
    assert shown("file:///a/b") == "file:///a/b"


async def test_an_allowed_local_file_is_copied(store, origin, roots, disk, seen, deadline):
    """The copy does not follow later changes of the file."""
    (roots / "disk.img").write_bytes(disk)
    origin.content = disk
    image = origin.image(source=f"file://{roots}/disk.img")
    base = await store.ensure(image, seen, deadline)
    (roots / "disk.img").write_bytes(b"changed")
    assert base.path.read_bytes() == disk


async def test_local_files_outside_the_allowed_directories_are_refused(store, origin, roots, tmp_path, seen, deadline):
    """Neither directly, nor by `..`, nor by a symbolic link, nor by escapes."""
    (tmp_path / "secret").write_bytes(b"x" * 512)
    (roots / "link").symlink_to(tmp_path / "secret")
    image = origin.image()
    for path in (f"{tmp_path}/secret", f"{roots}/../secret", f"{roots}/link", f"{roots}/%2e%2e/secret", "/dev/zero"):
        with pytest.raises(AccessDenied, match="outside"):
            await store.ensure(replace(image, source=f"file://{path}"), seen, deadline)


async def test_a_local_file_that_is_not_there(store, origin, roots, seen, deadline, left):
    """Missing files and directories are not found; another host's are unsupported."""
    with pytest.raises(NotFound):
        await store.ensure(origin.image(source=f"file://{roots}/none.img"), seen, deadline)
    with pytest.raises(NotFound):
        await store.ensure(origin.image(source=f"file://{roots}"), seen, deadline)
    with pytest.raises(Unsupported):
        await store.ensure(origin.image(source=f"file://elsewhere{roots}/x"), seen, deadline)
    with pytest.raises(NotFound):
        await store.ensure(origin.image(source=f"file://{roots}/{'n' * 300}"), seen, deadline)
    with pytest.raises(InvalidRequest, match="%00"):
        await store.ensure(origin.image(source=f"file://{roots}/%00"), seen, deadline)
    assert left() == []
