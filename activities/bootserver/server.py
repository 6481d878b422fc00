"""The boot server: the HTTP side of a partition worker, for machines under construction.

Guests call home here. Servers fetch the deploy agent (`media.py`, `ipxe.py`), which then works through `agent_door.py`;
live machines fetch what they boot in the same way, and their seed (`live_door.py`). How many connections are kept, and
for how long, is the gate's (`gate.py`).

POST /v1/call-home answers 204 when the call is accepted, 400 when it is malformed (see `calls/`), 401 without and 403
with a bad or expired token, 409 when the run does not take it (used before, or over), 413 when it is too large, and 503
with Retry-After when that cannot be decided now. The token comes as `Authorization: Bearer <token>`. GET /healthz
answers 200.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Protocol

import structlog
from aiohttp import web

from mulligan.activities.bootserver.agent_door import AgentDoor
from mulligan.activities.bootserver.calls import MalformedCall, parse_call
from mulligan.activities.bootserver.gate import Gate
from mulligan.activities.bootserver.ipxe import IpxeDoor
from mulligan.activities.bootserver.jobs import Jobs
from mulligan.activities.bootserver.live_door import LiveDoor
from mulligan.activities.bootserver.media import MediaDoor
from mulligan.activities.bootserver.tokens import Permit, check
from mulligan.activities.errors import AccessDenied, Busy, Conflict, HostNotReady, Transient
from mulligan.activities.seal import Keyring
from mulligan.activities.threads import run_blocking
from mulligan.activities.values import CallHome

BODY_BYTES = 64 * 1024
RETRY_SECONDS = 5
SHUTDOWN_SECONDS = 10.0
"""How long what is in progress may take at a stop. aiohttp waits twice for a half of it: for answers to end, and, when
nothing more is read of requests, for what ends by that; then it ends them."""

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class Listener(Protocol):
    """Who decides about calls home: in production, the run that issued the token."""

    async def on_call_home(self, permit: Permit, call: CallHome) -> bool:
        """Take the call; False when the run does not want it (token used before, another run, or a run that is over).

        Raises `Unreachable` or `Busy` when that cannot be decided now; the guest then tries again. Raises `Conflict`
        when the run can be told nothing any more, and says why.
        """


def utc_now() -> datetime:
    """The time, aware."""
    return datetime.now(UTC)


class BootServer:
    """Start it once, stop it once. It keeps nothing: what counts is kept by the listener, and in the jobs' files.

    Without `jobs` it takes calls home only. Boot servers of one process share a gate, or each has its own.
    """

    def __init__(
        self,
        keyring: Keyring,
        listener: Listener,
        jobs: Jobs | None = None,
        *,
        gate: Gate | None = None,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        self._keyring = keyring
        self._listener = listener
        self._jobs = jobs
        self._gate = gate or Gate()
        self._now = now
        self._listening: list[asyncio.Server] = []
        self._runner: web.AppRunner | None = None

    async def start(self, addresses: Sequence[tuple[str, int]]) -> tuple[tuple[str, int], ...]:
        """Listen on every (host, port), port 0 for any free one; returns what was bound, in the same order.

        Raises `HostNotReady` when one cannot be bound; then nothing listens.
        """
        app = web.Application(client_max_size=BODY_BYTES, middlewares=[self._gate.middleware()])
        app.add_routes([web.post("/v1/call-home", self._call_home), web.get("/healthz", self._healthz)])
        if self._jobs is not None:
            await run_blocking(self._jobs.index)
            for door in (AgentDoor(self._jobs), MediaDoor(self._jobs), IpxeDoor(self._jobs), LiveDoor(self._jobs)):
                app.add_routes(door.routes())
        seconds = self._gate.limits.request_seconds  # aiohttp counts it for the first request of a connection too
        half = SHUTDOWN_SECONDS / 2
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=half, keepalive_timeout=seconds)
        await self._runner.setup()
        bound: list[tuple[str, int]] = []
        try:
            for host, port in addresses:
                bound.append((host, await self._listen(self._runner, host, port)))
        except OSError as error:
            await self.stop()
            raise HostNotReady(
                f"the boot server cannot listen on {host}:{port}: {error.strerror}; choose another address or port, or "
                "end what uses it",
                remedy=f"ss -ltnp 'sport = :{port}'",
            ) from error
        log.info("boot server listens", addresses=[f"{host}:{port}" for host, port in bound])
        return tuple(bound)

    async def _listen(self, runner: web.AppRunner, host: str, port: int) -> int:
        """Listen there; gives the port. Raises `OSError`."""
        assert runner.server is not None
        listening = await asyncio.get_running_loop().create_server(self._gate.before(runner.server), host, port)
        self._listening.append(listening)
        return int(listening.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        """Take no new calls, and let those in progress end (up to 10 seconds); safe to call twice."""
        while self._listening:
            self._listening.pop().close()
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()

    async def _healthz(self, _request: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def _call_home(self, request: web.Request) -> web.Response:
        peer = request.remote or ""
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            return _refuse(401, "send the token as 'Authorization: Bearer <token>'", peer=peer)
        try:
            permit = check(self._keyring, token.strip(), self._now())
            call = parse_call(await request.read(), peer, self._now())
        except AccessDenied as error:
            return _refuse(403, error.message, peer=peer)
        except MalformedCall as error:
            return _refuse(400, str(error), peer=peer, machine_id=permit.machine_id)
        return await self._decide(permit, call)

    async def _decide(self, permit: Permit, call: CallHome) -> web.Response:
        about = {"peer": call.peer, "workflow_id": permit.workflow_id, "machine_id": permit.machine_id}
        try:
            taken = await self._listener.on_call_home(permit, call)
        except Transient as error:
            seconds = math.ceil(error.after_seconds) if isinstance(error, Busy) else 0
            response = _refuse(503, error.message, **about)
            response.headers["Retry-After"] = str(max(seconds, RETRY_SECONDS))
            return response
        except Conflict as error:
            return _refuse(409, error.message, **about)
        if not taken:
            return _refuse(409, "the run does not take this call: the token was used, or the run is over", **about)
        log.info("call home accepted", status=call.status, hostname=call.hostname, **about)
        return web.Response(status=204)


def _refuse(status: int, why: str, **about: str) -> web.Response:
    log.warning("call home refused", http_status=status, why=why, **about)
    return web.Response(status=status, text=why + "\n")
