"""What a live machine asks for: by iPXE what to boot, and from cloud-init who it is (NoCloud's seed, file by file).

GET /v1/seed/TOKEN/NAME answers with a file of the seed for as long as the machine lives: a live system forgets all of
it when it starts anew. Whoever may read the kernel's command line on the machine may read its seed; so may, where it is
booted from the network, whoever asks for its script by its MAC. Addresses tell nobody apart: a machine may have another
one after each start, and a system another than the firmware before it. That the address changed is logged.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import structlog
from aiohttp import web

from mulligan.activities.bootserver.door import guarded
from mulligan.activities.bootserver.job import Boot, Job, JobKind, Medium
from mulligan.activities.bootserver.jobs import Jobs, Refused
from mulligan.activities.threads import run_blocking

AGAIN_SECONDS = 5

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class LiveDoor:
    """The seed's route."""

    def __init__(self, jobs: Jobs) -> None:
        self._jobs = jobs

    def routes(self) -> list[web.RouteDef]:
        """/v1/seed/TOKEN/NAME; HEAD too."""
        return [web.get("/v1/seed/{token}/{name}", guarded(self._jobs, "seed", self._seed))]

    async def _seed(self, request: web.Request) -> web.StreamResponse:
        job, boot = await run_blocking(self._jobs.admit, request.match_info["token"])
        name = request.match_info["name"]
        text = (await run_blocking(seed_files, job)).get(name) if job.kind is JobKind.LIVE else None
        if text is None:
            raise Refused(404, f"the seed of this machine has no {name[:64]!r}", job.id)
        if request.method != "HEAD":
            await run_blocking(self._jobs.note_fetched, job, name, len(text.encode()))
            await run_blocking(self._note_peer, job, boot, request.remote or "")
        return web.Response(text=text, content_type="text/plain", headers={"Cache-Control": "no-store"})

    def _note_peer(self, job: Job, boot: Boot, peer: str) -> None:
        """Keep which address has the seed, and say so where another one had it before. Blocks."""
        if peer == boot.peer:
            return
        if boot.peer:
            log.warning("the seed of a live machine went to another address", job=job.id, peer=peer, before=boot.peer)
        now = replace(boot, peer=peer)
        self._jobs.change(job.id, lambda found: replace(found, boot=now) if found.boot == boot else found)


def packed(files: Mapping[str, str]) -> bytes:
    """A seed's files, by name, as a job keeps them."""
    return json.dumps(dict(files)).encode()


def seed_files(job: Job) -> dict[str, str]:
    """What `packed` made; nothing where the job has no seed. Blocks."""
    try:
        found = json.loads(Path(job.seed.path).read_bytes()) if job.seed is not None and job.seed.bytes else {}
    except FileNotFoundError:  # closed just now
        found = {}
    return dict(found)


def live_script(job: Job, token: str) -> str:
    """The iPXE script that boots the live image; when that fails, it is asked again: the machine may be gone by then.

    An ISO is booted through the BIOS's own services, which UEFI has not.
    """
    medium = job.boot.medium if job.boot is not None else None
    return (
        "#!ipxe\n"
        f"echo mulligan: booting the live image of {job.machine}\n"
        f"{_booting(job, medium, token) if medium is not None else ''}"
        ":again\n"
        f"echo mulligan: the live image could not be booted, asking again in {AGAIN_SECONDS} seconds\n"
        f"sleep {AGAIN_SECONDS}\n"
        "imgfree\n"
        f"chain --replace {job.url}/v1/ipxe?mac=${{netX/mac}} || goto again\n"
    )


def _booting(job: Job, medium: Medium, token: str) -> str:
    if not medium.kernel:
        iso = f"{job.url}/v1/media/{token}/{job.run_id}.iso"
        return f"iseq ${{platform}} pcbios || goto again\nsanboot --no-describe {iso} || goto again\n"
    at = f"{job.url}/v1/boot/{token}"
    if not medium.initrd:
        return f"kernel {at}/kernel {medium.command_line} || goto again\nboot || goto again\n"
    return (
        f"kernel {at}/kernel initrd=initrd {medium.command_line} || goto again\n"
        f"initrd --name initrd {at}/initrd || goto again\n"
        "boot || goto again\n"
    )
