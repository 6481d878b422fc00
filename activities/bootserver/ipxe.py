"""iPXE scripts: the agent for a server that is to boot it, and the local disk for every other.

A server that boots from the network by habit must come up from its disk, whatever its firmware. On a BIOS the disk is
booted from iPXE itself: many a BIOS does not go on to the next device when a network boot ends. On UEFI iPXE ends with
an error, upon which the firmware's boot manager goes on to its next entry; after a success it may show its menu.
"""

from __future__ import annotations

import re

import structlog
from aiohttp import web

from mulligan.activities.bootserver.door import guarded
from mulligan.activities.bootserver.job import Job, JobKind
from mulligan.activities.bootserver.jobs import Jobs
from mulligan.activities.bootserver.live_door import live_script
from mulligan.activities.threads import run_blocking

AGAIN_SECONDS = 5

FIRST = """#!ipxe
chain --replace ipxe?mac=${netX/mac:hexhyp} || goto local
:local
"""
"""What asks for the script of the network card that iPXE booted by; the address is relative to this one's. The MAC has
hyphens, because iPXE takes what stands before the first colon of a relative address for a scheme."""

LOCAL = """\
iseq ${platform} efi && exit 1 ||
sanboot --no-describe --drive 0x80 ||
exit 1
"""

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class IpxeDoor:
    """/v1/ipxe and /v1/ipxe?mac=MAC."""

    def __init__(self, jobs: Jobs) -> None:
        self._jobs = jobs

    def routes(self) -> list[web.RouteDef]:
        """Both are the same path."""
        return [web.get("/v1/ipxe", guarded(self._jobs, "iPXE script", self._script))]

    async def _script(self, request: web.Request) -> web.StreamResponse:
        if "mac" not in request.query:
            return _text(FIRST + LOCAL)
        mac = request.query["mac"].lower().replace("-", ":")
        known = bool(re.fullmatch("[0-9a-f]{2}(:[0-9a-f]{2}){5}", mac))
        job = await run_blocking(self._jobs.for_mac, mac) if known else None
        if job is None:
            log.info("a machine boots its local disk", mac=mac[:32], peer=request.remote)
            return _text("#!ipxe\necho mulligan: nothing to do here, booting the local disk\n" + LOCAL)
        token = self._jobs.token(job)
        text = live_script(job, token) if job.kind is JobKind.LIVE else script(job, token)
        if request.method != "HEAD":
            await run_blocking(self._jobs.note_fetched, job, "script", len(text))
        log.info("a machine boots what is served for it", job=job.id, mac=mac, peer=request.remote)
        return _text(text)


def script(job: Job, token: str) -> str:
    """Boot the agent; when that fails, ask again: the job may be over by then."""
    assert job.boot is not None
    arguments = job.boot.medium.command_line if job.boot.medium is not None else ""
    at = f"{job.url}/v1/boot/{token}"
    return (
        "#!ipxe\n"
        "echo mulligan: booting the deploy agent\n"
        f"kernel {at}/kernel initrd=initrd {arguments} || goto again\n"
        f"initrd --name initrd {at}/initrd || goto again\n"
        "boot || goto again\n"
        ":again\n"
        f"echo mulligan: the deploy agent could not be booted, asking again in {AGAIN_SECONDS} seconds\n"
        f"sleep {AGAIN_SECONDS}\n"
        "imgfree\n"
        f"chain --replace {job.url}/v1/ipxe?mac=${{netX/mac}} || goto again\n"
    )


def _text(text: str) -> web.Response:
    return web.Response(text=text, content_type="text/plain", headers={"Cache-Control": "no-store"})
