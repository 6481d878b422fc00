"""The agent's medium, kernel and initrd over real HTTP: any range of the ISO has the run's arguments in it."""

from __future__ import annotations

import asyncio
import dataclasses
import tempfile
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mulligan.activities.agent.image import AgentImage
from mulligan.activities.bootserver.job import JobKind, Medium
from mulligan.activities.bootserver.jobs import Jobs
from mulligan.activities.bootserver.media import Spliced
from tests.bootserver.agent_parts import HOLE_OFFSET, Caller, a_job, an_image, begun

MIB = 1024**2


def expected(agent: AgentImage, root: str, token: str) -> bytes:
    """The medium as a BMC must see it."""
    iso = bytearray(agent.iso.read_bytes())
    hole = agent.hole(f"mulligan.url={root}/v1/agent/{token}")
    iso[agent.hole_offset : agent.hole_offset + agent.hole_bytes] = hole
    return bytes(iso)


async def fetch(url: str, method: str = "GET", **headers: str) -> tuple[int, bytes, Mapping[str, str]]:
    """Status, body and headers."""
    async with aiohttp.ClientSession() as session, session.request(method, url, headers=headers) as answer:
        return answer.status, await answer.read(), answer.headers


async def test_a_medium_has_the_runs_arguments_in_it(root: str, jobs: Jobs, agent: AgentImage) -> None:
    """The file on the disk stays as it was built; what was fetched is kept as evidence."""
    job, token = begun(jobs, agent, a_job(), root)
    status, body, headers = await fetch(f"{root}/v1/media/{token}/run-1.iso")
    assert (status, body == expected(agent, root, token)) == (200, True)
    assert headers["Accept-Ranges"] == "bytes"
    agent.check()
    async with asyncio.timeout(30):
        while jobs.seen(job.id).fetched != {"medium": len(body)}:  # noqa: ASYNC110 - noted after it was sent
            await asyncio.sleep(0.02)


async def test_a_medium_is_asked_for_its_size_first(root: str, jobs: Jobs, agent: AgentImage) -> None:
    """HEAD gives the size, and counts as nothing fetched."""
    job, token = begun(jobs, agent, a_job(), root)
    status, body, headers = await fetch(f"{root}/v1/media/{token}/run-1.iso", "HEAD")
    assert (status, body, int(headers["Content-Length"])) == (200, b"", agent.iso.stat().st_size)
    assert jobs.seen(job.id).fetched == {}


@pytest.mark.parametrize(
    ("asked", "start", "end"),
    [
        ("bytes=0-511", 0, 512),
        (f"bytes={HOLE_OFFSET - 10}-{HOLE_OFFSET + 9}", HOLE_OFFSET - 10, HOLE_OFFSET + 10),
        (f"bytes={HOLE_OFFSET + 4000}-{HOLE_OFFSET + 5000}", HOLE_OFFSET + 4000, HOLE_OFFSET + 5001),
        (f"bytes={HOLE_OFFSET + 5}-{HOLE_OFFSET + 5}", HOLE_OFFSET + 5, HOLE_OFFSET + 6),
        ("bytes=100000-", 100_000, None),
        ("bytes=-100", -100, None),
        ("bytes=100-99999999999", 100, None),
        (f"bytes=100-{'9' * 5000}", 100, None),
        (f"bytes=-{'9' * 5000}", 0, None),
        (f"bytes={'0' * 5000}7-8", 7, 9),
    ],
    ids=[
        "sector",
        "over-its-begin",
        "over-its-end",
        "one-byte-of-it",
        "to-the-end",
        "the-last",
        "beyond-the-end",
        "far-beyond",
        "more-than-all",
        "many-zeros",
    ],
)
async def test_any_range_may_be_read(
    root: str, jobs: Jobs, agent: AgentImage, asked: str, start: int, end: int | None
) -> None:
    """As BMCs do that read a medium block by block."""
    _, token = begun(jobs, agent, a_job(), root)
    whole = expected(agent, root, token)
    status, body, headers = await fetch(f"{root}/v1/media/{token}/run-1.iso", Range=asked)
    first = start % len(whole)
    assert (status, body == whole[start:end]) == (206, True)
    assert headers["Content-Range"] == f"bytes {first}-{first + len(body) - 1}/{len(whole)}"


@pytest.mark.parametrize(
    ("asked", "status"),
    [
        ("bytes=99999999-", 416),
        (f"bytes={'9' * 5000}-", 416),
        ("bytes=-0", 416),
        ("bytes=5-1", 200),
        ("bytes=0-1,5-6", 200),
        ("lines=1-2", 200),
    ],
    ids=["beyond", "far-beyond", "none", "backwards", "several", "unknown-unit"],
)
async def test_ranges_that_are_none(root: str, jobs: Jobs, agent: AgentImage, asked: str, status: int) -> None:
    """Refused where nothing could be sent, else answered with all of it."""
    _, token = begun(jobs, agent, a_job(), root)
    found, body, headers = await fetch(f"{root}/v1/media/{token}/run-1.iso", Range=asked)
    size = agent.iso.stat().st_size
    assert (found, len(body)) == (status, size if status == 200 else 0)
    assert headers.get("Content-Range") == (f"bytes */{size}" if status == 416 else None)


@pytest.mark.parametrize("asked", ["bytes={}-", "bytes=-{}", "bytes=5-{}"])
async def test_numbers_that_no_file_has_break_nothing_at_the_agents_door(
    root: str, jobs: Jobs, agent: AgentImage, tmp_path: Path, asked: str
) -> None:
    """Its files are sent by aiohttp, which reads ranges by itself, and refuses what it cannot read."""
    job, token = begun(jobs, agent, a_job(), root)
    jobs.load(job.id, an_image(tmp_path, b"image"), b"seed")
    caller = Caller(f"{root}/v1/agent/{token}")
    await caller.configuration()
    for name in ("image", "seed"):
        assert await caller.get(name, Range=asked.format("9" * 5000)) == (416, b"")


async def test_a_resumed_fetch_gets_bytes_of_the_same_medium(root: str, jobs: Jobs, agent: AgentImage) -> None:
    """Each boot's medium is another one."""
    job, token = begun(jobs, agent, a_job(), root)
    _, _, headers = await fetch(f"{root}/v1/media/{token}/run-1.iso", "HEAD")
    conditions = {"Range": "bytes=5-9", "If-Range": headers["ETag"]}
    assert (await fetch(f"{root}/v1/media/{token}/run-1.iso", **conditions))[0] == 206
    _, token = begun(jobs, agent, job, root)
    assert (await fetch(f"{root}/v1/media/{token}/run-1.iso", **conditions))[0] == 200


async def test_kernel_and_initrd_are_served(root: str, jobs: Jobs, agent: AgentImage) -> None:
    """For a boot from the network."""
    job, token = begun(jobs, agent, a_job(), root)
    sizes = {"kernel": agent.kernel.stat().st_size, "initrd": agent.initrd.stat().st_size}
    for name, path in (("kernel", agent.kernel), ("initrd", agent.initrd)):
        status, body, _ = await fetch(f"{root}/v1/boot/{token}/{name}")
        assert (status, body == path.read_bytes()) == (200, True)
        assert (await fetch(f"{root}/v1/boot/{token}/{name}", Range="bytes=1-4"))[1] == path.read_bytes()[1:5]
    await noted(jobs, job.id, **{name: size + 4 for name, size in sizes.items()})


async def noted(jobs: Jobs, job: str, **fetched: int) -> None:
    """Wait until so many bytes are noted, which is done after they were sent."""
    async with asyncio.timeout(60):
        while jobs.seen(job).fetched != fetched:  # noqa: ASYNC110 - the files are another thread's
            await asyncio.sleep(0.02)


async def test_ranges_count_for_what_they_are(root: str, jobs: Jobs, agent: AgentImage) -> None:
    """Of an ISO that is served as it is, and of a kernel; what is only asked about counts for nothing."""
    job, token = begun(jobs, agent, a_job(JobKind.LIVE), root)
    jobs.equip(job.id, Medium(str(agent.kernel), "", str(agent.iso), 0, "", ""))
    iso, kernel = agent.iso.read_bytes(), agent.kernel.read_bytes()
    at, boot = f"{root}/v1/media/{token}/run-1.iso", f"{root}/v1/boot/{token}"
    assert (await fetch(at, Range="bytes=2048-4095"))[:2] == (206, iso[2048:4096])
    assert (await fetch(at, "HEAD"))[0] == 200 and (await fetch(at, Range="bytes=99999999-"))[0] == 416
    await noted(jobs, job.id, medium=2048)
    assert (await fetch(f"{boot}/kernel", Range="bytes=-100"))[:2] == (206, kernel[-100:])
    assert (await fetch(at))[:2] == (200, iso)
    assert (await fetch(f"{boot}/initrd"))[0] == 404
    await noted(jobs, job.id, medium=2048 + len(iso), kernel=100)


async def test_of_a_fetch_that_is_broken_off_counts_what_was_sent(
    root: str, jobs: Jobs, agent: AgentImage, tmp_path: Path
) -> None:
    """Not the whole file, which nobody got."""
    size, read = 256 * MIB, 8 * MIB
    with (tmp_path / "large.iso").open("wb") as file:
        file.truncate(size)
    job, token = begun(jobs, agent, a_job(JobKind.LIVE), root)
    jobs.equip(job.id, Medium("", "", str(tmp_path / "large.iso"), 0, "", ""))
    where = urlsplit(root)
    reader, writer = await asyncio.open_connection(where.hostname, where.port)
    writer.write(f"GET /v1/media/{token}/run-1.iso HTTP/1.1\r\nHost: boot\r\n\r\n".encode())
    await reader.readexactly(read)
    writer.transport.abort()
    async with asyncio.timeout(60):
        while not jobs.seen(job.id).fetched:  # noqa: ASYNC110 - the files are another thread's
            await asyncio.sleep(0.02)
    assert MIB <= jobs.seen(job.id).fetched["medium"] < size // 2


async def test_a_fetch_of_an_earlier_boot_that_ends_late_changes_nothing_of_this_one(
    root: str, jobs: Jobs, agent: AgentImage, tmp_path: Path
) -> None:
    """The BMC still reads the medium of the try before, over a connection that stays, when the server boots anew."""
    with (tmp_path / "large.iso").open("wb") as file:
        file.truncate(256 * MIB)
    before, token = begun(jobs, agent, a_job(JobKind.LIVE), root)
    jobs.equip(before.id, Medium("", "", str(tmp_path / "large.iso"), 0, "", ""))
    where = urlsplit(root)
    reader, writer = await asyncio.open_connection(where.hostname, where.port)
    writer.write(f"GET /v1/media/{token}/run-1.iso HTTP/1.1\r\nHost: boot\r\n\r\n".encode())
    await reader.readexactly(MIB)
    now, newer = begun(jobs, agent, before, root)
    assert now.id == before.id
    jobs.switching_on(now.id)
    told = jobs.seen(now.id)
    assert told.on_at is not None
    writer.transport.abort()
    # What comes after it on the same server is answered, and noted, when the broken one has been.
    assert (await fetch(f"{root}/v1/media/{newer}/run-1.iso", Range="bytes=0-2"))[0] == 206
    await noted(jobs, now.id, medium=3)
    assert jobs.seen(now.id) == dataclasses.replace(told, fetched={"medium": 3})


async def test_what_was_fetched_before_the_power_is_told_apart(root: str, jobs: Jobs, agent: AgentImage) -> None:
    """Also where it is noted afterwards."""
    job, token = begun(jobs, agent, a_job(), root)
    assert (await fetch(f"{root}/v1/media/{token}/run-1.iso", Range="bytes=0-99"))[0] == 206
    await noted(jobs, job.id, medium=100)
    begun_at = jobs.now()
    jobs.switching_on(job.id)
    jobs.note_fetched(job, "medium", 20, begun_at)
    assert (await fetch(f"{root}/v1/media/{token}/run-1.iso", Range="bytes=0-2"))[0] == 206
    await noted(jobs, job.id, medium=123)
    assert jobs.seen(job.id).before == {"medium": 120}
    jobs.begin_boot(job.id, root, job.boot.expires_at if job.boot else jobs.now(), ())
    assert (jobs.seen(job.id).before, jobs.seen(job.id).on_at) == ({}, None)


async def test_a_medium_of_another_run_or_boot_is_refused(root: str, jobs: Jobs, agent: AgentImage) -> None:
    """And one whose job is over."""
    job, token = begun(jobs, agent, a_job(), root)
    assert (await fetch(f"{root}/v1/media/{token}/run-2.iso"))[0] == 404
    assert (await fetch(f"{root}/v1/media/{token}x/run-1.iso"))[0] == 403
    _, newer = begun(jobs, agent, job, root)
    assert (await fetch(f"{root}/v1/media/{token}/run-1.iso"))[0] == 410
    assert (await fetch(f"{root}/v1/boot/{token}/kernel"))[0] == 410
    jobs.close(job.id)
    assert (await fetch(f"{root}/v1/media/{newer}/run-1.iso"))[0] == 410


@settings(max_examples=200, deadline=None)
@given(st.binary(min_size=1, max_size=300), st.data())
def test_a_hole_is_filled_wherever_it_lies(content: bytes, data: st.DataObject) -> None:
    """Every piece of every range is that of the file with the hole filled."""
    offset = data.draw(st.integers(0, len(content) - 1))
    filling = data.draw(st.binary(max_size=len(content) - offset))
    start = data.draw(st.integers(0, len(content)))
    end = data.draw(st.integers(start, len(content)))
    whole = content[:offset] + filling + content[offset + len(filling) :]
    with tempfile.NamedTemporaryFile() as file:
        Path(file.name).write_bytes(content)
        assert b"".join(Spliced(Path(file.name), offset, filling).pieces(start, end)) == whole[start:end]
