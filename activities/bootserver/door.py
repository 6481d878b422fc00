"""What all doors of the boot server share: who is let in, and how a refusal is told and logged."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import structlog
from aiohttp import web

from mulligan.activities.bootserver.jobs import Jobs, Refused
from mulligan.activities.threads import run_blocking

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


def guarded(jobs: Jobs, door: str, handler: Handler) -> Handler:
    """The handler; what it raises as `Refused` is answered, logged, and noted for whoever waits for the job."""

    async def guard(request: web.Request) -> web.StreamResponse:
        try:
            return await handler(request)
        except Refused as refusal:
            why, peer = refusal.why, request.remote or ""
            log.warning(f"{door} refused", http_status=refusal.status, why=why, job=refusal.job, peer=peer)
            if refusal.proved:
                await run_blocking(jobs.note_refused, refusal.job, f"{peer or 'somebody'} was refused: {why}")
            return web.Response(status=refusal.status, text=why + "\n")

    return guard
