"""Who may keep a connection to the boot server: peers without any token, slow ones, and many of them."""

from __future__ import annotations

import asyncio
import resource
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from mulligan.activities.agent.image import AgentImage
from mulligan.activities.bootserver.gate import Gate, Limits
from mulligan.activities.bootserver.job import JobKind, Medium
from mulligan.activities.bootserver.jobs import Jobs
from mulligan.activities.bootserver.server import BootServer
from mulligan.activities.seal import Keyring
from tests.bootserver.agent_parts import a_job, begun
from tests.bootserver.conftest import Run

MIB = 1024**2
HALF_A_HEAD = b"GET /healthz HTTP/1.1\r\nHost: boot\r\nX-More: "
ASKS = b"GET /healthz HTTP/1.1\r\nHost: boot\r\n\r\n"
Line = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Dial = Callable[..., Awaitable[Line]]
"""Begins a connection, from another address where one is said, and sends what it is given."""


@asynccontextmanager
async def serving(keyring: Keyring, jobs: Jobs, **limits: float) -> AsyncIterator[tuple[Dial, str]]:
    """A boot server with these limits, and where it is."""
    server = BootServer(keyring, Run(), jobs, gate=Gate(Limits(**limits)))  # type: ignore[arg-type]
    ((host, port),) = await server.start([("127.0.0.1", 0)])
    lines: list[Line] = []

    async def dial(said: bytes, source: str = "127.0.0.1") -> Line:
        reader, writer = await asyncio.open_connection(host, port, local_addr=(source, 0))
        writer.write(said)
        lines.append((reader, writer))
        return reader, writer

    yield dial, f"http://{host}:{port}"
    for _, writer in lines:
        writer.transport.abort()
    await server.stop()


async def is_ended(line: Line) -> bool:
    """Wait until the boot server ends the connection; whether it said nothing before."""
    async with asyncio.timeout(30):
        try:
            return await line[0].read() == b""
        except ConnectionError:
            return True


async def answers(line: Line) -> bool:
    """Whether the request is answered, and not the connection ended."""
    async with asyncio.timeout(30):
        try:
            return (await line[0].read(15)).startswith(b"HTTP/1.1 200")
        except ConnectionError:
            return False


async def test_half_a_head_is_not_waited_for(keyring: Keyring, jobs: Jobs) -> None:
    """Nor a peer that says nothing at all."""
    async with serving(keyring, jobs, request_seconds=0.2) as (dial, _):
        lines = [await dial(HALF_A_HEAD), await dial(b"")]
        assert [await is_ended(line) for line in lines] == [True, True]


async def test_a_head_that_comes_byte_by_byte_is_not_waited_for(keyring: Keyring, jobs: Jobs) -> None:
    """What counts is when it began, not when the last byte came."""
    async with serving(keyring, jobs, request_seconds=0.2) as (dial, _), asyncio.timeout(30):
        reader, writer = await dial(HALF_A_HEAD)
        ended = asyncio.create_task(is_ended((reader, writer)))
        while not ended.done():
            writer.write(b"x")
            await asyncio.wait([ended], timeout=0.02)
        assert await ended


async def test_a_connection_without_another_request_is_ended(keyring: Keyring, jobs: Jobs) -> None:
    """After the answer to the first."""
    async with serving(keyring, jobs, request_seconds=0.2) as (dial, _):
        line = await dial(ASKS)
        assert await answers(line)
        await is_ended(line)


async def test_half_a_body_is_not_waited_for(
    keyring: Keyring, jobs: Jobs, agent: AgentImage, caplog: pytest.LogCaptureFixture
) -> None:
    """Wherever a body is read; that is no error of ours."""
    async with serving(keyring, jobs, request_seconds=0.2) as (dial, root):
        _, token = begun(jobs, agent, a_job(), root)
        jobs.own(token, "boot-1", "127.0.0.1")
        body = b"Host: boot\r\nX-Mulligan-Boot: boot-1\r\nContent-Length: 100\r\n\r\n{"
        line = await dial(f"POST /v1/agent/{token}/reports HTTP/1.1\r\n".encode() + body)
        assert await is_ended(line)
    assert caplog.text == ""


async def test_a_download_that_goes_on_is_not_cut(
    keyring: Keyring, jobs: Jobs, agent: AgentImage, tmp_path: Path
) -> None:
    """It began before another connection that was ended meanwhile, and comes whole."""
    size = 64 * MIB
    with (tmp_path / "large.iso").open("wb") as file:
        file.truncate(size)
    async with serving(keyring, jobs, request_seconds=0.2) as (dial, root):
        job, token = begun(jobs, agent, a_job(JobKind.LIVE), root)
        jobs.equip(job.id, Medium("", "", str(tmp_path / "large.iso"), 0, "", ""))
        reader, _ = await dial(f"GET /v1/media/{token}/run-1.iso HTTP/1.1\r\nHost: boot\r\n\r\n".encode())
        await reader.readuntil(b"\r\n\r\n")
        assert await is_ended(await dial(HALF_A_HEAD))
        async with asyncio.timeout(60):
            assert len(await reader.readexactly(size)) == size


async def test_a_peer_that_takes_nothing_of_what_is_sent_is_dropped(
    keyring: Keyring, jobs: Jobs, agent: AgentImage, tmp_path: Path
) -> None:
    """Else it would keep a file open besides."""
    with (tmp_path / "large.iso").open("wb") as file:
        file.truncate(256 * MIB)
    async with serving(keyring, jobs, stalled_seconds=0.2) as (dial, root):
        job, token = begun(jobs, agent, a_job(JobKind.LIVE), root)
        jobs.equip(job.id, Medium("", "", str(tmp_path / "large.iso"), 0, "", ""))
        reader, _ = await dial(f"GET /v1/media/{token}/run-1.iso HTTP/1.1\r\nHost: boot\r\n\r\n".encode())
        async with asyncio.timeout(30):
            while not jobs.seen(job.id).fetched:  # noqa: ASYNC110 - noted in a file, when it was broken off
                await asyncio.sleep(0.02)
            with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
                await reader.readexactly(256 * MIB)


@pytest.mark.parametrize("limit", ["per_peer", "connections"])
async def test_more_connections_than_there_may_be_are_ended(keyring: Keyring, jobs: Jobs, limit: str) -> None:
    """Of one peer, or of all; said once, with the peer. When one ends there is room for another."""
    async with serving(keyring, jobs, **{limit: 3}) as (dial, _):
        held = [await dial(HALF_A_HEAD) for _ in range(3)]
        with capture_logs() as logs:
            assert [await answers(await dial(ASKS)) for _ in range(3)] == [False] * 3
            assert await answers(await dial(ASKS, "127.0.0.2")) is (limit == "per_peer")
        told = [each for each in logs if each["event"] == "a connection was refused, there are too many"]
        assert [(each["peer"], each["open_from_it"]) for each in told] == [("127.0.0.1", 3)]
        held[0][1].transport.abort()
        async with asyncio.timeout(30):
            while not await answers(await dial(ASKS)):
                pass


async def test_connections_leave_most_descriptors_to_the_worker(
    keyring: Keyring, jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its job files and its BMCs need them."""
    monkeypatch.setattr(resource, "getrlimit", lambda _: (12, 12))
    async with serving(keyring, jobs) as (dial, _):
        for _ in range(3):
            await dial(HALF_A_HEAD)
        assert not await answers(await dial(ASKS))


async def test_boot_servers_of_one_process_share_their_limits(keyring: Keyring) -> None:
    """They share its descriptors."""
    gate = Gate(Limits(per_peer=1))
    servers = [BootServer(keyring, Run(), gate=gate) for _ in range(2)]
    (first,), (second,) = [await server.start([("127.0.0.1", 0)]) for server in servers]
    _, held = await asyncio.open_connection(*first)
    held.write(HALF_A_HEAD)
    await held.drain()
    line = await asyncio.open_connection(*second)
    line[1].write(ASKS)
    assert not await answers(line)
    held.transport.abort()
    for server in servers:
        await server.stop()
