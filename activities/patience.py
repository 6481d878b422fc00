"""How long a deploy agent is waited for, and what is said when it does not come, falls silent, or fails."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from mulligan.activities.beat import Beat
from mulligan.activities.bootserver.identity import mistaken
from mulligan.activities.bootserver.job import Boot, Job, Phase, Report, Seen
from mulligan.activities.bootserver.jobs import Jobs
from mulligan.activities.errors import Conflict, HostNotReady, ImageRejected, MulliganError, Unreachable
from mulligan.activities.site import attempt_deadline
from mulligan.activities.threads import run_blocking
from mulligan.activities.watch_boot import EVERY_SECONDS

IMAGE_FAULT = "IMAGE"
"""What the names of the agent's errors begin with when the image, not the server, is to blame."""


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds."""

    comes: float = 1500.0
    """From switching on to the agent's first word: large servers take a quarter of an hour to test themselves."""
    silence: float = 180.0
    """Without a report, of an agent that reports every second."""
    order_seconds: float = 10.0
    """For an agent that was ordered to power off."""
    look_seconds: float = 0.5
    progress_seconds: float = EVERY_SECONDS
    """Between two questions to the BMC how far the boot came, until the agent is there."""


class Awaited:
    """An agent that is waited for."""

    def __init__(
        self, jobs: Jobs, name: str, beat: Beat, patience: Patience, how_far: Callable[[], Awaitable[str]]
    ) -> None:
        self._jobs = jobs
        self._name = name
        self._beat = beat
        self._patience = patience
        self._how_far = how_far
        """Asks how far the boot came, as the BMC says."""
        self._said = ""
        self._deadline = attempt_deadline()
        self._since = datetime.now(UTC)
        """Nothing was heard before: while this process was not there, the agent could not report."""

    async def done(self, job_id: str) -> Job:
        """The job with its result. Raises `Unreachable` when the agent does not come or falls silent, and then waits
        for this boot no more; `HostNotReady` or `ImageRejected` when it failed; `Conflict` when the job was closed.
        """
        while True:
            job = await run_blocking(self._jobs.find, job_id)
            if job is not None and job.result is not None:
                return job
            if job is None or job.closed or job.boot is None:
                raise Conflict(
                    f"the deploy agent on {self._name} was waited for, and its job was ended by another action"
                )
            seen = await run_blocking(self._jobs.seen, job_id)
            self._said = await self._how_far() if not job.boot.owner else ""
            now = datetime.now(UTC)
            if trouble := self._trouble(job, job.boot, seen, now):
                await run_blocking(self._jobs.give_up_boot, job_id)
                raise trouble
            self._say(job.boot, seen, now)
            self._deadline.check(f"{self._name}: waiting for the deploy agent")
            await asyncio.sleep(self._patience.look_seconds)

    def _trouble(self, job: Job, boot: Boot, seen: Seen, now: datetime) -> MulliganError | None:
        report = seen.report
        if why := mistaken(job.identity, seen.hardware):
            return another(self._name, boot, why)
        if report is not None and report.phase is Phase.FAILED:
            return failed(job, self._name, report)
        if now < self._end(boot, report):
            return None
        observed = self._observed(boot, seen, now)
        awaited = "did not report" if not boot.owner else "fell silent"
        return Unreachable(
            f"{self._name} was booted into the deploy agent, which {awaited} in the time given for it; {observed}; it "
            "is booted again. The server's screen, or its serial console, says what it is at",
            provider=self._name,
            observed=observed,
        )

    def _observed(self, boot: Boot, seen: Seen, now: datetime) -> str:
        return "; ".join(part for part in (observation(boot, seen, now), self._said) if part)

    def _end(self, boot: Boot, report: Report | None) -> datetime:
        """Until when it is waited for."""
        silence = timedelta(seconds=self._patience.silence)
        if boot.owner:
            heard = report.at if report is not None else boot.owned_at
            return max(heard or self._since, self._since) + silence
        comes = (boot.at or self._since) + timedelta(seconds=self._patience.comes)
        # When this process came late, an agent gets the time for a word all the same.
        late = self._since - (boot.at or self._since) > silence
        return max(comes, self._since + silence) if late else comes

    def _say(self, boot: Boot, seen: Seen, now: datetime) -> None:
        report = seen.report
        if report is None:
            self._beat(f"waiting for the deploy agent on {self._name}; {self._observed(boot, seen, now)}")
            return
        ago = (now - report.at).total_seconds()
        late = f"; it reported {ago:.0f} seconds ago" if ago > 3 * max(1.0, self._patience.look_seconds) else ""
        self._beat(f"{report.said or report.phase} on {self._name}{late}", report.done, report.total)


def observation(boot: Boot, seen: Seen, now: datetime) -> str:
    """What was last seen of a boot, for people."""
    if seen.report is not None:
        last = seen.report
        share = f" {100 * last.done // last.total} %" if last.total else ""
        ago = (now - last.at).total_seconds()
        told = f"it last reported {last.phase}{share} {ago:.0f} seconds ago"
    elif boot.owner:
        told = f"it asked for its configuration from {boot.peer}, and has not reported since"
    elif seen.fetched:
        told = " and ".join(f"{count} bytes of the {what}" for what, count in seen.fetched.items()) + " were fetched"
    elif boot.at is not None:
        told = f"switched on {(now - boot.at).total_seconds():.0f} seconds ago, and nothing was fetched yet"
    else:
        told = "nothing was fetched yet"
    return f"{told}; {seen.refused}" if seen.refused else told


def another(name: str, boot: Boot, why: str) -> HostNotReady:
    """The error for an agent that came up on another server."""
    return HostNotReady(
        f"{name} was booted into the deploy agent, and the one that came from {boot.peer or 'an unknown address'} may "
        f"change no disk: {why}. It switches that server off. See whether `macs` of {name} names a network card of "
        "another server, or its URL is that of another server's BMC; if both are the same server, which tells "
        f"different numbers: `mulligan provider set {name} --set check_identity=off`",
        remedy=f"mulligan provider show {name}",
        provider=name,
        mistaken=why,
    )


def failed(job: Job, name: str, report: Report) -> MulliganError:
    """The error for an agent that said that it failed."""
    error = report.error or {}
    reason, why = error.get("name") or "UNKNOWN", error.get("message") or report.said or "it did not say why"
    doing = "write the image to a disk" if job.image is not None else "erase the disks"
    message = f"the deploy agent was to {doing} of {name}, and says: {why}"
    if reason.upper().startswith(IMAGE_FAULT):
        return ImageRejected(message, agent_error=reason, blame="image")
    return HostNotReady(f"{message}; look at the server, or ask for another one", agent_error=reason, provider=name)
