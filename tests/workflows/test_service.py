"""The level `service`, asked of real servers on loopback."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from mulligan.activities.values import Service, ServiceKind
from mulligan.activities.verify import WrongAnswer, ask_service

HOST = "127.0.0.1"


@asynccontextmanager
async def says(text: bytes) -> AsyncIterator[int]:
    """A server that says this to whoever connects; its port."""

    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(text)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, HOST, 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


@asynccontextmanager
async def serves(handler: Callable[[web.Request], Awaitable[web.Response]]) -> AsyncIterator[int]:
    """An HTTP server; its port."""
    app = web.Application()
    app.router.add_get("/health", handler)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, HOST, 0)
    await site.start()
    yield site.port
    await runner.cleanup()


async def test_an_ssh_banner_is_the_evidence() -> None:
    """As it was said."""
    async with says(b"SSH-2.0-test\r\n") as port:
        found = await ask_service(HOST, Service(ServiceKind.SSH, port))
    assert (found.source, "SSH-2.0-test" in found.observed) == ("ssh-banner", True)


async def test_something_else_on_the_ssh_port_is_no_evidence() -> None:
    """A port that is open for something else does not prove a login."""
    async with says(b"220 mail ready\r\n") as port:
        with pytest.raises(WrongAnswer, match="220 mail ready"):
            await ask_service(HOST, Service(ServiceKind.SSH, port))


async def test_an_open_port_is_enough_for_tcp_and_a_closed_one_is_not() -> None:
    """Level service with `tcp` asks for a connection only."""
    async with says(b"") as port:
        assert (await ask_service(HOST, Service(ServiceKind.TCP, port))).source == "tcp"
    with pytest.raises(OSError, match=r"refused|failed"):
        await ask_service(HOST, Service(ServiceKind.TCP, port))


@pytest.mark.parametrize(("status", "good"), [(200, True), (302, True), (404, False), (503, False)])
async def test_http_must_answer_below_400(status: int, good: bool) -> None:
    """A redirect is an answer; an error is not."""

    async def handler(_: web.Request) -> web.Response:
        return web.Response(status=status)

    async with serves(handler) as port:
        service = Service(ServiceKind.HTTP, port, "/health")
        if good:
            assert str(status) in (await ask_service(HOST, service)).observed
        else:
            with pytest.raises(WrongAnswer, match=str(status)):
                await ask_service(HOST, service)
