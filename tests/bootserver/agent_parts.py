"""What tests of the deploy agent's doors share: a small agent's image, jobs, and the machine's side of the protocol."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp

from mulligan.activities.agent.image import FILES, ISO, MANIFEST, AgentImage, empty_hole, folder_of
from mulligan.activities.bootserver.job import Job, JobKind, Medium, Payload
from mulligan.activities.bootserver.jobs import Jobs

HOLE_OFFSET = 70_001
DISK = {"path": "/dev/sda", "serial": "S-1", "wwn": "0x5000c500a1b2c3d4", "model": "ST4000", "size_bytes": 4 * 10**12}


def an_agent(directory: Path) -> AgentImage:
    """A build of the agent whose files are small; loaded as any other."""
    version = "sha256:" + "a" * 64
    folder = directory / folder_of(version)
    folder.mkdir(parents=True)
    content = {name: (name.encode() + bytes(range(256))) * 512 for name in FILES}
    iso = bytearray(content[ISO])
    hole = empty_hole()
    iso[HOLE_OFFSET : HOLE_OFFSET + len(hole)] = hole
    content[ISO] = bytes(iso)
    files = {}
    for name, data in content.items():
        (folder / name).write_bytes(data)
        files[name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    manifest = {"version": version, "hole_offset": HOLE_OFFSET, "hole_bytes": len(hole), "linux": "6.1", "files": files}
    (directory / MANIFEST).write_text(json.dumps(manifest))
    return AgentImage.load(directory)


def a_job(kind: JobKind = JobKind.DEPLOY, **said: Any) -> Job:
    """A job as an activity asks for it."""
    given = {"workflow_id": "provision:shop:web-1", "run_id": "run-1", "asked_by": "run-1"} | said
    return Job(id=f"m-1-1-{kind}", kind=kind, machine="web-1", **given)


def written(jobs: Jobs, job: str) -> bool:
    """Whether a disk may have been changed by this job, which there is."""
    found = jobs.find(job)
    assert found is not None
    return found.written


def a_medium(agent: AgentImage, url: str) -> Medium:
    """What a run boots."""
    arguments = f"mulligan.url={url}"
    return Medium(
        str(agent.kernel), str(agent.initrd), str(agent.iso), agent.hole_offset, agent.hole(arguments).decode(),
        agent.command_line(arguments),
    )  # fmt: skip


def begun(
    jobs: Jobs, agent: AgentImage, job: Job, url: str, *, macs: tuple[str, ...] = (), seconds: int = 60
) -> tuple[Job, str]:
    """The job opened, and the agent booted for it; gives the job and the token."""
    jobs.open(job)
    expires = datetime.now(UTC) + timedelta(seconds=seconds)
    token = jobs.token(jobs.begin_boot(job.id, url, expires, macs))
    jobs.equip(job.id, a_medium(agent, f"{url}/v1/agent/{token}"))
    jobs.switching_on(job.id)
    return jobs.booted(job.id), token


def an_image(directory: Path, content: bytes) -> Payload:
    """A raw disk to be served."""
    path = directory / "image.disk"
    path.write_bytes(content)
    return Payload(str(path), len(content), f"sha256:{hashlib.sha256(content).hexdigest()}")


@dataclass
class Caller:
    """One boot of the agent, by plain requests."""

    url: str
    """Up to and with the token."""
    boot: str = "boot-1"

    async def get(self, name: str, **headers: str) -> tuple[int, bytes]:
        """Status and body."""
        return await self._ask("GET", name, None, headers)

    async def post(self, name: str, said: object) -> tuple[int, bytes]:
        """Status and body."""
        return await self._ask("POST", name, said if isinstance(said, bytes) else json.dumps(said).encode(), {})

    async def _ask(self, method: str, name: str, body: bytes | None, more: dict[str, str]) -> tuple[int, bytes]:
        headers = {"X-Mulligan-Boot": self.boot, **more} if self.boot else more
        url = f"{self.url}/{name}"
        async with (
            aiohttp.ClientSession() as session,
            session.request(method, url, data=body, headers=headers) as answer,
        ):
            return answer.status, await answer.read()

    async def configuration(self) -> dict[str, Any]:
        """What it shall do; the first thing that an agent asks."""
        status, body = await self.get("configuration")
        assert status == 200, body
        return dict(json.loads(body))

    async def report(self, phase: str, **said: Any) -> str:
        """Say something; gives the order."""
        status, body = await self.post("reports", {"phase": phase, **said})
        assert status == 200, body
        return str(json.loads(body)["order"])
