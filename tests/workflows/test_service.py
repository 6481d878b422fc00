"""The level `service`, asked of real servers on loopback."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from aiohttp import web

from mulligan.activities import verify
from mulligan.activities.drivers.base import Deadline
from mulligan.activities.drivers.simulated import open_simulated
from mulligan.activities.values import Mark, Outcome, Service, ServiceKind, VerifyLevel
from mulligan.activities.verify import WrongAnswer, ask_service
from tests.workflows.stack import QUICK, Stack, until

HOST = "127.0.0.1"


@asynccontextmanager
async def says(text: bytes, *, then_wait: bool = False) -> AsyncIterator[int]:
    """A server that says this to whoever connects, and then hangs up or waits; its port."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):  # the client may have heard enough
            writer.write(text)
            await writer.drain()
            if then_wait:
                await reader.read()
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


async def test_lines_before_the_ssh_banner_are_passed_over() -> None:
    """A server may greet first (RFC 4253, section 4.2)."""
    async with says(b"Welcome.\r\nAuthorised use only.\r\nSSH-2.0-test\r\n") as port:
        found = await ask_service(HOST, Service(ServiceKind.SSH, port))
    assert found.observed.endswith("says SSH-2.0-test")


@pytest.mark.parametrize("text", [b"x" * 200_000, b"hello\n" * 200, b""], ids=["long line", "many lines", "nothing"])
async def test_whatever_a_port_says_is_a_wrong_answer_at_worst(text: bytes) -> None:
    """Neither endless lines nor endlessly many of them are an error of ours."""
    async with says(text) as port:
        with pytest.raises(WrongAnswer, match="expected an SSH banner"):
            await ask_service(HOST, Service(ServiceKind.SSH, port))


async def test_a_port_that_says_something_else_and_waits_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it said is known before the time is up."""
    monkeypatch.setattr(verify, "BANNER_SECONDS", 0.2)
    async with says(b"220 mail ready\r\n", then_wait=True) as port:
        with pytest.raises(WrongAnswer, match="220 mail ready"):
            await ask_service(HOST, Service(ServiceKind.SSH, port))


async def test_a_machine_that_goes_off_while_its_address_is_awaited_fails_at_once(stack: Stack) -> None:
    """Power is looked at again after it was proved: a dead guest is not waited for until the deadline."""
    project, (host,) = await stack.hosts(personality="boots-then-silent")
    deadlines = replace(QUICK, verify_seconds=600, run_seconds=900)
    handle = await stack.start(stack.request(project, deadlines=deadlines, verify=VerifyLevel.ADDRESS))
    await until(lambda: stack.has_finished(handle, "boot"))
    driver = await open_simulated(host, stack.site.drivers_dir)

    async def logs_in() -> bool:
        return "login:" in (await driver.console(mark, 0, Deadline.after(10))).text

    machine = stack.inventory.machine(project, "m")
    fence = stack.inventory.claim_by_id(machine.claim_id).fence
    mark = Mark(project, "m", machine.id, machine.run_id, fence)
    await until(logs_in)
    await driver.power_off(mark, Deadline.after(10))
    async with asyncio.timeout(60):
        last = (await stack.story(handle))[-1]
    await driver.close()
    assert last.outcome is Outcome.FAILED
    assert "was switched on, but" in last.message


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
