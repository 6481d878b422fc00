"""Deploying: a server's disk written by the deploy agent, where a hypervisor would make disks. Next to the provider."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from temporalio import activity

from mulligan.activities import calls
from mulligan.activities.beat import Beat, beating
from mulligan.activities.bmc import boot_server_url, identity_of
from mulligan.activities.bootserver.job import Job, JobKind, Payload, Seen
from mulligan.activities.bootserver.reports import identity, text
from mulligan.activities.bootserver.tokens import issue
from mulligan.activities.drivers.booting import Transfer, read_booting
from mulligan.activities.errors import Busy, MulliganError
from mulligan.activities.firmware import firmware_for
from mulligan.activities.images.packed import packed_disk
from mulligan.activities.images.raw import raw_disk
from mulligan.activities.images.seed import build_seed
from mulligan.activities.metal import Metal
from mulligan.activities.patience import Awaited, Patience
from mulligan.activities.site import Site, attempt_deadline
from mulligan.activities.threads import run_blocking
from mulligan.activities.values import DiskIdentity, Evidence, Image, Mark, Target

SOURCE = "deploy-agent"
ERASES_SECONDS = 1500.0
"""An agent that erases is at work for so long after it was heard of: as long as `Patience` gives servers to come."""
ASKED_SECONDS = 600.0
"""An erase whose agent is not booted yet is at work for so long after an attempt asked for it: as long as a slow BMC
takes for all that comes before, or the next attempt to come."""
AGAIN_SECONDS = 30.0


class DeployActivities:
    """Disks written."""

    def __init__(self, site: Site, patience: Patience | None = None) -> None:
        self._site = site
        self._patience = patience or Patience()

    @activity.defn(name=calls.DEPLOY.name)
    async def deploy(self, asked: calls.DisksIn) -> calls.Deployed:
        """Boot the agent, let it write the image and read it back, and switch the server off again.

        A job that is done is not done again; an agent that is at work is waited for, whoever booted it.
        """
        target, mark, jobs = asked.target, asked.mark, self._site.jobs
        async with beating(f"booting the deploy agent on {target.name}") as beat, self._site.driver(target) as driver:
            metal = Metal(self._site, driver, target, mark, beat, self._patience)
            job = await self._job(asked, beat)
            if job.result is None:
                if job.boot is None or job.boot.at is None:
                    await metal.boot_agent(job, asked.token_seconds)
                job = await Awaited(jobs, target.name, beat, self._patience, metal.how_far).done(job.id)
            seen = await run_blocking(jobs.seen, job.id)
            if not job.closed:
                await metal.leave(job.id)
        assert job.result is not None
        disk = disk_of(job)
        digest = text(job.result.get("digest", ""))[:19]
        said = f"the image is on {target.name}, on {disk.named}, and was read back as {digest}"
        return calls.Deployed(said, disk.named, evidence_of(job, seen), written=disk)

    async def _job(self, asked: calls.DisksIn, beat: Beat) -> Job:
        """The job of this claim. It is there before anything is asked of the BMC, so that its undo knows of it."""
        site, mark = self._site, asked.mark
        wanted = Job(
            id=await run_blocking(site.jobs.name, asked.target.name, mark, JobKind.DEPLOY),
            kind=JobKind.DEPLOY,
            machine=mark.machine,
            workflow_id=asked.workflow_id,
            run_id=mark.run_id,
            asked_by=mark.run_id,
            firmware=firmware_for(asked.image, asked.request.firmware),
            root_disk=asked.request.root_disk,
            provider=asked.target.name,
            identity=identity_of(asked.target),
        )
        await run_blocking(forget_what_was_erased, site, asked.target.name, mark)
        job = await run_blocking(site.jobs.open, wanted)
        if job.result is not None:
            return job
        image, packed = await prepared(site, asked.target, asked.image, beat)
        seed = await run_blocking(self._seed, asked) if job.seed is None else b""
        return await run_blocking(site.jobs.load, job.id, image, seed, packed)

    def _seed(self, asked: calls.DisksIn) -> bytes:
        mark, keyring = asked.mark, self._site.keyring
        expires = datetime.now(UTC) + timedelta(seconds=asked.token_seconds)
        token = issue(keyring, asked.workflow_id, mark.run_id, mark.machine_id, str(asked.try_number), expires)
        plain = keyring.open(asked.request.user_data) if asked.request.user_data else ""
        where = f"{boot_server_url(self._site, asked.target)}/v1/call-home"
        return build_seed(asked.request, mark, user_data=plain, call_home_url=where, call_home_token=token)


async def prepared(site: Site, target: Target, image: Image, beat: Beat) -> tuple[Payload, Payload | None]:
    """The image as a raw disk on this host, verified, and the same compressed where it goes to the server so; fetched,
    converted and compressed where that was not done yet."""
    try:
        base = await site.store.ensure(image, beat, attempt_deadline())
        disk = await raw_disk(base, beat, attempt_deadline())
        plain = Payload(str(disk.path), disk.bytes, disk.digest)
        if read_booting(target.settings).transfer is Transfer.RAW:
            return plain, None
        packed = await packed_disk(base, disk, beat, attempt_deadline())
        return plain, Payload(str(packed.path), packed.bytes, disk.digest)
    except MulliganError as error:
        error.metadata = {**error.metadata, "blame": "image"}  # no server is to blame for an image's source
        raise


def forget_what_was_erased(site: Site, name: str, mark: Mark) -> None:
    """When disks were erased for this claim before, the image is written anew.

    Raises `Busy` while they are being erased: by a release, if this is an attempt that comes late, or by an agent that
    an execution which was reset has left at work. Blocks.
    """
    erase, deploy = (site.jobs.name(name, mark, kind) for kind in (JobKind.ERASE, JobKind.DEPLOY))
    if not site.jobs.write_anew(deploy, erase, asked=ASKED_SECONDS, heard=ERASES_SECONDS):
        said = f"{name}: the disks of {mark.machine} are being erased; nothing is written to them before that has ended"
        raise Busy(said, after_seconds=AGAIN_SECONDS, provider=name)


def disk_of(job: Job) -> DiskIdentity:
    """The disk that was written."""
    disk = (job.result or {}).get("disk")
    return identity(disk if isinstance(disk, dict) else {})


def evidence_of(job: Job, seen: Seen) -> tuple[Evidence, ...]:
    """What proves that it was done: what was fetched, and what the agent says that it wrote and read."""
    told, now = job.result or {}, datetime.now(UTC)
    fetched = ", ".join(f"{count} bytes of the {what}" for what, count in seen.fetched.items())
    size, digest = text(told.get("written_bytes")), text(told.get("digest"))
    wrote = f"wrote {size} bytes to {disk_of(job).named}, and read back {digest}"
    if told.get("boot_entry"):
        wrote += f"; boot entry: {text(told['boot_entry'], 360)}"
    found = [Evidence(None, "boot-server", f"the server fetched {fetched}", now)] if fetched else []
    if job.packed is not None and job.image is not None:
        sent = f"the image was sent compressed: {job.packed.bytes} bytes in place of {job.image.bytes}"
        found.append(Evidence(None, "boot-server", sent, now))
    return (*found, Evidence(None, SOURCE, wrote, seen.report.at if seen.report else now))
