"""Erasing: a server's disks erased by the deploy agent, before anybody else gets them. Next to the provider."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from temporalio import activity

from mulligan.activities import calls
from mulligan.activities.beat import beating
from mulligan.activities.bmc import SITE, identity_of
from mulligan.activities.bootserver.checks import absent
from mulligan.activities.bootserver.job import Job, JobKind
from mulligan.activities.bootserver.reports import name_disk, text
from mulligan.activities.deploy import SOURCE
from mulligan.activities.errors import Conflict, HostNotReady
from mulligan.activities.metal import Metal
from mulligan.activities.patience import Awaited, Patience
from mulligan.activities.site import Site
from mulligan.activities.threads import run_blocking
from mulligan.activities.values import Erase, Evidence, Mark

MOST_LINES = 256
"""Of evidence: so many disks are told one by one."""
NOTHING: Mapping[str, Any] = {"nothing": True}
"""The result of a job for which there was nothing to do."""


class EraseActivities:
    """Disks erased."""

    def __init__(self, site: Site, patience: Patience | None = None) -> None:
        self._site = site
        self._patience = patience or Patience()

    @activity.defn(name=calls.ERASE.name)
    async def erase(self, asked: calls.EraseIn) -> calls.Done:
        """Erase the disks, and leave the server off, with nothing of the agent on its BMC.

        Whatever still writes for this claim is stopped first. An erase that is done is not done again by the same run.
        """
        target, mark, jobs = asked.target, asked.mark, self._site.jobs
        async with beating(f"erasing the disks of {target.name}") as beat, self._site.driver(target) as driver:
            metal = Metal(self._site, driver, target, mark, beat, self._patience)
            deploy = await run_blocking(jobs.name, target.name, mark, JobKind.DEPLOY)
            await run_blocking(jobs.close, deploy)  # first: from now on no agent is permitted anything
            tried = await run_blocking(jobs.find, deploy)
            if asked.only_if_written and tried is None:
                await metal.leave()
                raise unknown(target.name, mark)
            written = tried is None or tried.written
            job = await run_blocking(self._open, asked, tried)
            if job.result is None and (asked.mode is Erase.NONE or (asked.only_if_written and not written)):
                job = await run_blocking(jobs.finish, job.id, NOTHING)
            if job.result is None:
                if job.boot is None or job.boot.at is None:
                    await metal.boot_agent(job, asked.token_seconds)
                job = await self._awaited(job, metal)
            if not job.closed:
                await metal.leave(job.id)
        return told(target.name, asked.mode, job)

    async def _awaited(self, job: Job, metal: Metal) -> Job:
        """The job, done. Who is told by an error that written disks are gone may then ask for an erase without them."""
        jobs, name = self._site.jobs, metal.target.name
        try:
            return await Awaited(jobs, name, metal.beat, self._patience, metal.how_far).done(job.id)
        except HostNotReady:
            await run_blocking(jobs.told_gone, job.id)
            raise

    def _open(self, asked: calls.EraseIn, tried: Job | None) -> Job:
        """The job. What a try that failed wrote is erased, and no other disk of the server."""
        mark, wrote = asked.mark, tried.permits if tried is not None else ()
        return self._site.jobs.open(
            Job(
                id=self._site.jobs.name(asked.target.name, mark, JobKind.ERASE),
                kind=JobKind.ERASE,
                machine=mark.machine,
                workflow_id=asked.workflow_id,
                run_id=mark.run_id,
                asked_by=activity.info().workflow_run_id or "",
                root_disk=asked.root_disk,
                erase=asked.mode,
                provider=asked.target.name,
                identity=identity_of(asked.target),
                only=wrote if asked.only_if_written else (),
                wrote=wrote,
            ),
            without_missed=asked.without_missing,
        )


def unknown(name: str, mark: Mark) -> Conflict:
    """Nobody here knows what was written: what a disk holds that may be nobody's is not erased on a guess, and a server
    that may hold somebody's is not given to the next. An operator decides, by releasing the machine."""
    return Conflict(
        f"whether a disk of {name} was written for {mark.machine} is not known on this host: there is no readable "
        "record of it; the server is off, and was not erased. Releasing the machine erases all of its fixed disks, or "
        "with `--erase none` leaves them as they are",
        provider=name,
        machine=mark.machine,
        blame=SITE,
    )


def told(name: str, mode: Erase, job: Job) -> calls.Done:
    """What was done, with the evidence."""
    result = job.result or {}
    if result.get("nothing"):
        return calls.Done(f"{name} is off; nothing was written to its disks, so that nothing was erased")
    disks = result.get("disks")
    lines = [_line(disk) for disk in disks if isinstance(disk, dict)] if isinstance(disks, list) else []
    now, more = datetime.now(UTC), len(lines) - MOST_LINES
    others = [f"and {more} more disks likewise"] if more > 0 else []
    others += _skipped(result)
    others += [f"{each.disk}: written, and not there to be erased" for each in absent(job.missed, result)]
    evidence = tuple(Evidence(None, SOURCE, line, now) for line in (*lines[:MOST_LINES], *others))
    return calls.Done(f"the disks of {name} are erased ({mode}): {len(lines)} disk(s); the server is off", evidence)


def _skipped(result: Mapping[str, Any]) -> list[str]:
    """The removable disks that were left as they are, and why."""
    skipped = result.get("skipped")
    found = [each for each in skipped if isinstance(each, dict)] if isinstance(skipped, list) else []
    disks = [(each.get("disk"), each.get("why")) for each in found[:MOST_LINES]]
    return [f"{name_disk(disk)}: left as it is: {text(why, 160)}" for disk, why in disks if isinstance(disk, dict)]


def _line(disk: dict[str, Any]) -> str:
    inner = disk.get("disk")
    named = name_disk(inner if isinstance(inner, dict) else disk)
    how = [text(disk[key], 160) for key in ("how", "did", "method", "said", "read_back") if disk.get(key)]
    return f"{named}: {', '.join(how) or 'erased'}"
