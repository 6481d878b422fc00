"""The deploy agent's door: its configuration, its reports, the permit to change a disk, the image and the seed.

Every request names the token in its path, and in X-Mulligan-Boot the boot of the agent that asks. The first boot that
takes the configuration owns the token. 403: not our token, or expired. 404: no such job. 409: another boot owns the
token, or the permit is refused. 410: the job is over, or another boot was begun. After any of these the agent must do
nothing more.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import structlog
from aiohttp import web

from mulligan.activities.bootserver.checks import absent, forbidden, gone, unproved
from mulligan.activities.bootserver.door import Handler, guarded
from mulligan.activities.bootserver.identity import mistaken, untold
from mulligan.activities.bootserver.job import Job, JobKind, Payload, Report
from mulligan.activities.bootserver.jobs import Jobs, Refused
from mulligan.activities.bootserver.reports import BODY_BYTES, Malformed, parse_permit, parse_report
from mulligan.activities.holes import data_stretches
from mulligan.activities.threads import run_blocking

Stretches = list[tuple[int, int]] | None
NOT_ERASED = "NOT_ERASED"
_TOLD_OF_DISKS = ("path", "serial", "wwn", "model", "size_bytes")
"""What is told of each disk that is to be erased, where not all are."""
"""As the agent calls it when it could not erase a disk."""
BOOT_HEADER = "X-Mulligan-Boot"

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class AgentDoor:
    """The agent's routes."""

    def __init__(self, jobs: Jobs) -> None:
        self._jobs = jobs

    def routes(self) -> list[web.RouteDef]:
        """Below /v1/agent/TOKEN."""
        at = "/v1/agent/{token}"
        gets = {"configuration": self._configuration, "image": self._image, "seed": self._seed}
        posts = {"reports": self._reports, "permits": self._permits}
        return [  # no HEAD: who asks for the configuration owns the token
            *(web.get(f"{at}/{name}", self._guarded(name, do), allow_head=False) for name, do in gets.items()),
            *(web.post(f"{at}/{name}", self._guarded(name, do)) for name, do in posts.items()),
        ]

    def _guarded(self, name: str, handler: Handler) -> Handler:
        return guarded(self._jobs, f"agent's {name}", handler)

    async def _configuration(self, request: web.Request) -> web.StreamResponse:
        token, owner = _caller(request)
        job = await run_blocking(self._jobs.own, token, owner, request.remote or "")
        log.info("the agent asked for its configuration", job=job.id, peer=request.remote, boot=owner)
        return web.json_response(configuration(job, await run_blocking(_stretches, job)))

    async def _reports(self, request: web.Request) -> web.StreamResponse:
        token, owner = _caller(request)
        job = await run_blocking(self._jobs.owned, token, owner)
        try:
            told = parse_report(await _body(request), self._jobs.now())
        except Malformed as error:
            return web.Response(status=400, text=f"{error}\n")
        hardware = (await run_blocking(self._jobs.seen, job.id)).hardware
        if told.result is not None:
            why = unproved(job, told.result, told.hardware or hardware)
            missing = () if why else absent(job.wrote, told.result)
            if why := why or gone(missing):
                if job.kind is JobKind.ERASE:  # another boot of it would say the same
                    failed = Report.failed(self._jobs.now(), NOT_ERASED, f"it is done; but {why}")
                    await run_blocking(self._jobs.fail, token, owner, failed, missing)
                raise Refused(409, f"the agent says that it is done, and {why}", job.id)
        order = await run_blocking(self._jobs.report, token, owner, told.report, told.result, told.hardware)
        return web.json_response({"order": order})

    async def _permits(self, request: web.Request) -> web.StreamResponse:
        token, owner = _caller(request)
        job = await run_blocking(self._jobs.owned, token, owner)
        try:
            asked = parse_permit(await _body(request))
        except Malformed as error:
            return web.Response(status=400, text=f"{error}\n")
        hardware = (await run_blocking(self._jobs.seen, job.id)).hardware
        if why := mistaken(job.identity, hardware) or untold(job.identity, hardware) or forbidden(job, asked, hardware):
            raise Refused(409, f"{asked.named} must not be changed: {why}", job.id)
        await run_blocking(self._jobs.permit, token, owner, asked.given(self._jobs.now()))
        log.info("the agent may change a disk", job=job.id, what=asked.what, disk=asked.named)
        return web.Response(status=204)

    async def _image(self, request: web.Request) -> web.StreamResponse:
        job = await run_blocking(self._jobs.owned, *_caller(request))
        return _file(job, job.packed or job.image, "image")

    async def _seed(self, request: web.Request) -> web.StreamResponse:
        job = await run_blocking(self._jobs.owned, *_caller(request))
        return _file(job, job.seed, "seed")


def configuration(job: Job, stretches: Stretches = None) -> dict[str, Any]:
    """What the agent is told to do. Outside of the stretches (first byte, byte after the last) the image is zeros."""
    told: dict[str, Any] = {
        "job": job.id,
        "kind": job.kind,
        "machine": job.machine,
        "firmware": job.firmware,
        "root_disk": asdict(job.root_disk),
        "erase": job.erase,
    }
    if job.only:
        told["only"] = [{name: getattr(disk, name) for name in _TOLD_OF_DISKS} for disk in job.only]
    if job.image is not None:
        told["image"] = {
            "bytes": (job.packed or job.image).bytes,
            "compression": "zstd" if job.packed is not None else "none",
            "disk_bytes": job.image.bytes,
            "digest": job.image.digest,
        }
        if stretches is not None:
            told["image"]["data"] = stretches
    if job.seed is not None:
        told["seed"] = {"bytes": job.seed.bytes, "digest": job.seed.digest}
    return told


def _stretches(job: Job) -> Stretches:
    """Where the image is not a hole; None where that is not known, or of no use because it is compressed."""
    if job.image is None or job.packed is not None:
        return None
    try:
        return data_stretches(Path(job.image.path), job.image.bytes)
    except OSError:
        return None


def _file(job: Job, payload: Payload | None, what: str) -> web.FileResponse:
    """The file, by ranges where they are asked for, sent by the kernel."""
    path = Path(payload.path) if payload is not None else None
    if path is None or not path.is_file():  # one system call
        raise Refused(404, f"there is no {what} for this job here any more", job.id)
    return web.FileResponse(path, headers={"Content-Type": "application/octet-stream", "Cache-Control": "no-store"})


def _caller(request: web.Request) -> tuple[str, str]:
    """The token, and which boot of the agent asks."""
    owner = request.headers.get(BOOT_HEADER, "")
    if not owner or len(owner) > 128 or not owner.isprintable():
        raise Refused(403, f"{BOOT_HEADER} must say which boot of the agent asks, in at most 128 characters")
    return request.match_info["token"], owner


async def _body(request: web.Request) -> bytes:
    return await request.clone(client_max_size=BODY_BYTES).read()
