"""The store among others: many callers, many processes, sudden death, and files that somebody touched."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import signal
import sys
from pathlib import Path

import pytest

from mulligan.activities.drivers.base import Deadline
from mulligan.activities.errors import Busy, HostNotReady, ImageRejected, InvalidRequest, Unreachable
from mulligan.activities.images import partial
from mulligan.activities.values import Compression, ImageFormat

MIB = 1024**2

ENSURE = """
import asyncio, sys
from pathlib import Path
from mulligan.activities.drivers.base import Deadline
from mulligan.activities.images.store import ImageStore
from mulligan.activities.values import Image, ImageFormat
def show(doing, done, total):
    print(doing, done, total, flush=True)
image = Image("debian", sys.argv[2], sys.argv[3], ImageFormat.RAW)
print(asyncio.run(ImageStore(Path(sys.argv[1])).ensure(image, show, Deadline.after(60))).path, flush=True)
"""


async def start(directory: Path, origin) -> asyncio.subprocess.Process:
    """Another process that wants the image."""
    image = origin.image()
    return await asyncio.create_subprocess_exec(
        sys.executable, "-c", ENSURE, str(directory), image.source, image.digest, stdout=asyncio.subprocess.PIPE
    )


async def line(process: asyncio.subprocess.Process, beginning: str) -> str:
    """The next line of the process that begins so."""
    assert process.stdout is not None
    while text := (await process.stdout.readline()).decode():
        if text.startswith(beginning):
            return text.strip()
    raise AssertionError(f"the process ended without a line that begins with {beginning}")


async def test_many_callers_fetch_once(store, origin, disk, deadline, eventually):
    """Who waits gets the same file, and sees the other's progress."""
    origin.content, origin.hold_at = disk, MIB
    lines: list[list[tuple[str, int, int]]] = [[] for _ in range(5)]
    tasks = [
        asyncio.create_task(store.ensure(origin.image(), lambda *said, mine=mine: mine.append(said), deadline))
        for mine in lines
    ]
    await eventually(lambda: all(lines))
    origin.go.set()
    bases = await asyncio.gather(*tasks)
    assert len({base.path for base in bases}) == 1
    assert len(origin.requests) == 1


async def test_a_verdict_is_shared_by_all_who_waited(store, origin, disk, deadline, left, eventually):
    """A bad image is fetched once, however many wait for it."""
    origin.content, origin.hold_at = disk, MIB
    image = origin.image(digest="sha256:" + "0" * 64)
    waiting: list[object] = []
    tasks = [asyncio.create_task(store.ensure(image, lambda *said, n=n: waiting.append(n), deadline)) for n in range(3)]
    await eventually(lambda: len(set(waiting)) == 3)
    origin.go.set()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(result) for result in results] == [ImageRejected] * 3
    assert len(origin.requests) == 1
    assert left() == []


async def test_a_verdict_about_another_source_is_not_shared(store, origin, disk, deadline, roots, eventually):
    """The same digest from a source that works is tried, though the first source had nothing."""
    origin.content, origin.hold_at = disk, MIB
    (roots / "disk.img").write_bytes(disk)
    waiting: list[str] = []
    gone = origin.image(source=origin.url + "?other", size_bytes=len(disk))
    first = asyncio.create_task(store.ensure(gone, lambda *_: waiting.append("first"), deadline))
    await eventually(lambda: bool(waiting))
    there = origin.image(source=f"file://{roots}/disk.img")
    second = asyncio.create_task(store.ensure(there, lambda *_: waiting.append("second"), deadline))
    await eventually(lambda: "second" in waiting)
    origin.content = disk[:MIB] + b"\0" * (len(disk) - MIB)
    origin.go.set()
    with pytest.raises(ImageRejected):
        await first
    assert (await second).path.read_bytes() == disk


async def test_when_the_first_is_cancelled_a_waiter_goes_on_from_there(store, origin, disk, seen, deadline, eventually):
    """No byte is fetched twice."""
    origin.content, origin.hold_at = disk, MIB
    first = asyncio.create_task(store.ensure(origin.image(), seen, deadline))
    await eventually(lambda: any(done == MIB for _, done, _ in seen.lines))
    second = asyncio.create_task(store.ensure(origin.image(), seen, deadline))
    first.cancel()
    origin.hold_at = None
    assert (await second).path.read_bytes() == disk
    assert origin.requests[1]["Range"] == f"bytes={MIB}-"


async def test_who_waits_too_long_gives_up(store, origin, disk, seen, deadline, eventually):
    """A waiter's own deadline counts."""
    origin.content, origin.hold_at = disk, MIB
    first = asyncio.create_task(store.ensure(origin.image(), seen, deadline))
    await eventually(lambda: bool(seen.lines))
    with pytest.raises(Unreachable, match="another run"):
        await store.ensure(origin.image(), seen, Deadline.after(0.3))
    origin.go.set()
    assert (await first).path.read_bytes() == disk


async def test_two_processes_fetch_once(tmp_path, origin, disk):
    """The lock works across processes, and so does the progress."""
    origin.content, origin.hold_at = disk, MIB
    processes = [await start(tmp_path / "store", origin) for _ in range(2)]
    assert len([await line(process, "download") for process in processes]) == 2
    origin.go.set()
    paths = [await line(process, str(tmp_path)) for process in processes]
    assert [await process.wait() for process in processes] == [0, 0]
    assert paths[0] == paths[1]
    assert {path.read_bytes() for path in (tmp_path / "store").glob("*.raw")} == {disk}
    assert len(origin.requests) == 1


async def test_a_killed_process_is_resumed(tmp_path, store, origin, disk, seen, deadline, left):
    """After kill -9 the lock is free, the bytes are there, and the digest is computed over all of them."""
    origin.content, origin.hold_at = disk, MIB
    process = await start(tmp_path / "store", origin)
    await line(process, f"download {MIB}")
    process.send_signal(signal.SIGKILL)
    await process.wait()
    assert left() == ["lock", "part", "part.json"]
    origin.hold_at = None
    assert (await store.ensure(origin.image(), seen, deadline)).path.read_bytes() == disk
    assert origin.requests[1]["Range"] == f"bytes={MIB}-"
    assert ("verify", len(disk), len(disk)) in seen.lines
    assert left() == ["json", "raw"]


async def test_a_death_just_before_the_last_rename_costs_no_download(store, origin, disk, seen, deadline, left):
    """The marker is written first; without its disk it counts for nothing, and the whole download is still there."""
    origin.content = disk
    base = await store.ensure(origin.image(), seen, deadline)
    with partial.Partial(base.path.with_suffix(".part")).begin(partial.Origin.of(origin.url, total=len(disk))) as file:
        file.write(disk)
    base.path.unlink()
    assert left() == ["json", "part", "part.json"]
    assert (await store.ensure(origin.image(), seen, deadline)).path.read_bytes() == disk
    assert len(origin.requests) == 1
    assert left() == ["json", "raw"]


async def test_a_cancel_after_the_download_keeps_the_download_only(store, origin, disk, seen, deadline, left):
    """What was expanded goes, what was fetched stays, and the next run begins there."""
    origin.content = gzip.compress(disk)
    image = origin.image(compression=Compression.GZIP)

    def cancel(doing: str, _done: int, _total: int) -> None:
        if doing == "inspect":
            task.cancel()

    task = asyncio.create_task(store.ensure(image, cancel, deadline))
    with pytest.raises(asyncio.CancelledError):
        await task
    assert left() == ["part", "part.json"]
    assert (await store.ensure(image, seen, deadline)).path.read_bytes() == disk
    assert len(origin.requests) == 1


async def test_a_kept_image_needs_no_source(store, origin, disk, seen, deadline):
    """What was verified once is used at once, even when the server is gone."""
    origin.content = disk
    first = await store.ensure(origin.image(), seen, deadline)
    origin.status = 500
    seen.lines.clear()
    assert await store.ensure(origin.image(), seen, deadline) == first
    assert seen.lines == []


async def test_a_touched_file_is_verified_again_and_kept_when_it_is_right(store, origin, disk, seen, deadline):
    """A new date alone costs a verification, and no download."""
    origin.content = disk
    base = await store.ensure(origin.image(), seen, deadline)
    os.utime(base.path, (1, 1))
    seen.lines.clear()
    assert await store.ensure(origin.image(), seen, deadline) == base
    assert seen.words == ["verify"]
    assert len(origin.requests) == 1


async def test_after_another_boot_a_disk_is_verified_again_once(
    store, origin, disk, seen, deadline, tmp_path, monkeypatch
):
    """Nobody waited for it to be on the disk. What is read from there then is."""
    origin.content = disk
    base = await store.ensure(origin.image(), seen, deadline)
    (tmp_path / "boot").write_text("the next boot")
    monkeypatch.setattr("mulligan.activities.images.store.BOOT", tmp_path / "boot")
    for words in (["verify"], []):
        seen.lines.clear()
        assert await store.ensure(origin.image(), seen, deadline) == base
        assert seen.words == words
    (tmp_path / "boot").write_text("the one after it")
    seen.lines.clear()
    assert await store.ensure(origin.image(), seen, deadline) == base
    assert (seen.lines, len(origin.requests)) == ([], 1)


async def test_a_disk_that_a_loss_of_power_cut_short_is_fetched_again(
    store, origin, disk, seen, deadline, tmp_path, monkeypatch
):
    """Although its size and its date are those of what was verified."""
    origin.content = disk
    base = await store.ensure(origin.image(), seen, deadline)
    there = base.path.stat()
    base.path.chmod(0o600)
    base.path.write_bytes(bytes(len(disk)))
    base.path.chmod(0o444)
    os.utime(base.path, ns=(there.st_atime_ns, there.st_mtime_ns))
    (tmp_path / "boot").write_text("the next boot")
    monkeypatch.setattr("mulligan.activities.images.store.BOOT", tmp_path / "boot")
    assert (await store.ensure(origin.image(), seen, deadline)).path.read_bytes() == disk
    assert len(origin.requests) == 2


async def test_a_changed_file_is_fetched_again(store, origin, disk, seen, deadline):
    """A disk that is not what it was is never given out."""
    origin.content = disk
    base = await store.ensure(origin.image(), seen, deadline)
    base.path.chmod(0o600)
    base.path.write_bytes(disk[::-1])
    assert (await store.ensure(origin.image(), seen, deadline)).path.read_bytes() == disk
    assert len(origin.requests) == 2


@pytest.mark.parametrize("marker", ["", "{}", '{"format": "vmdk"}', '["x"]'])
async def test_a_damaged_marker_means_fetching_again(store, origin, disk, seen, deadline, tmp_path, marker):
    """Without a marker that can be read nothing counts as verified."""
    origin.content = disk
    await store.ensure(origin.image(), seen, deadline)
    next((tmp_path / "store").glob("*.json")).write_text(marker)
    assert (await store.ensure(origin.image(), seen, deadline)).path.read_bytes() == disk
    assert len(origin.requests) == 2


async def test_a_kept_image_is_not_given_out_under_a_wrong_declaration(store, origin, disk, seen, deadline, left):
    """The verdict is the same whether the image is there or not, and what is there stays."""
    origin.content = disk
    await store.ensure(origin.image(), seen, deadline)
    for wrong in (
        {"format": ImageFormat.QCOW2}, {"compression": Compression.XZ}, {"virtual_size_bytes": 7},
    ):  # fmt: skip
        with pytest.raises(ImageRejected, match="declar"):
            await store.ensure(origin.image(**wrong), seen, deadline)
    assert left() == ["json", "raw"]


async def test_remove_takes_everything(store, origin, disk, seen, deadline, left):
    """Removing is by digest, and idempotent."""
    origin.content = disk
    await store.ensure(origin.image(), seen, deadline)
    assert await store.remove(origin.image().digest) is True
    assert await store.remove(origin.image().digest) is False
    assert left() == []
    with pytest.raises(InvalidRequest):
        await store.remove("sha256:../../x")


async def test_what_is_being_prepared_cannot_be_removed(store, origin, disk, seen, deadline, eventually):
    """The removal is refused, and the preparation goes on."""
    origin.content, origin.hold_at = disk, MIB
    task = asyncio.create_task(store.ensure(origin.image(), seen, deadline))
    await eventually(lambda: bool(seen.lines))
    with pytest.raises(Busy):
        await store.remove(origin.image().digest)
    origin.go.set()
    assert (await task).path.read_bytes() == disk


async def test_a_lock_file_of_a_dead_process_does_not_hinder_removal(store, origin, disk, seen, deadline, tmp_path):
    """Only a lock that is held counts."""
    origin.content = disk
    base = await store.ensure(origin.image(), seen, deadline)
    base.path.with_suffix(".lock").write_text("")
    assert await store.remove(origin.image().digest) is True


async def test_a_full_disk_is_said_before_anything_is_written(store, origin, disk, seen, deadline, left, monkeypatch):
    """Free space is looked at first; here the reserve is set beyond any disk."""
    origin.content = disk
    monkeypatch.setattr(partial, "RESERVE_BYTES", 2**62)
    with pytest.raises(HostNotReady, match="not enough disk space") as raised:
        await store.ensure(origin.image(), seen, deadline)
    assert raised.value.remedy.startswith("df ")
    assert left() == []


def test_a_disk_that_runs_full_meanwhile_is_named(tmp_path):
    """The error of the write itself is told, too; /dev/full is a real full device."""
    with pytest.raises(HostNotReady, match="ran full"), partial.disk_full_named(tmp_path):
        Path("/dev/full").write_bytes(b"x")


def test_the_sidecar_holds_no_address(tmp_path):
    """An address may hold a secret, so only its digest is written."""
    part = partial.Partial(tmp_path / "x.part")
    part.begin(partial.Origin.of("https://me:secret@host/x", '"e"', 5)).close()
    text = (tmp_path / "x.part.json").read_text()
    assert "secret" not in text
    assert json.loads(text)["total"] == 5
