"""A server booted into the deploy agent, and switched off again: what deploying and erasing have in common.

The BMC is asked for one boot from virtual media, or from the network; that the agent then reports is the only proof
that it came up. What it does is kept as a job (`bootserver/jobs.py`), which outlives this process: whoever goes on
finds there whether the agent is at work, is still to come, or is done.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import UTC, datetime, timedelta

from mulligan.activities.agent.image import AgentImage
from mulligan.activities.beat import Beat
from mulligan.activities.bmc import SITE, boot_once, boot_server_url, boots_from, forget_boot, no_macs, soon
from mulligan.activities.bootserver.job import Job, Medium, Order
from mulligan.activities.drivers.base import BootDevice, BootTarget, Driver, Power, VirtualMedia
from mulligan.activities.drivers.booting import Booting, read_booting
from mulligan.activities.errors import HostNotReady, MulliganError
from mulligan.activities.patience import Patience
from mulligan.activities.site import Site, able
from mulligan.activities.threads import run_blocking
from mulligan.activities.values import Mark, PowerState, Target
from mulligan.activities.watch_boot import Watched


class Metal:
    """One server, for one claim, as one activity handles it."""

    def __init__(  # noqa: PLR0917 - what an activity has at hand
        self, site: Site, driver: Driver, target: Target, mark: Mark, beat: Beat, patience: Patience
    ) -> None:
        self.site = site
        self.driver = driver
        self.target = target
        self.mark = mark
        self.beat = beat
        self.patience = patience
        self.power = able(driver, Power, target)
        self._boot = Watched(mark, patience.progress_seconds, at_once=False)

    @property
    def booting(self) -> Booting:
        """What the provider's settings say."""
        return read_booting(self.target.settings)

    async def how_far(self) -> str:
        """How far the server came with its boot, as its BMC says now and then; empty where it says nothing."""
        with suppress(MulliganError):  # it only informs: whatever is wrong with the BMC, what is awaited may come
            await self._boot.look(self.driver)
        return self._boot.said

    async def boot_agent(self, job: Job, token_seconds: int) -> None:
        """Begin a new boot of the agent, and switch the server on for it.

        Tokens of earlier boots are of no use from the start. Raises what the driver raises; `Busy` when the BMC does
        not take the boot override, in which case nothing was switched on; `HostNotReady` when there is no agent.
        """
        agent = await self._agent()
        device, jobs = await boots_from(self.driver, self.target), self.site.jobs
        macs = self.booting.macs if device is BootDevice.NETWORK else ()
        if device is BootDevice.NETWORK and not macs:
            raise no_macs(self.target)
        expires = datetime.now(UTC) + timedelta(seconds=token_seconds)
        url = boot_server_url(self.site, self.target)
        self.beat(f"booting the deploy agent on {self.target.name} from {device}")
        await self.power.power_off(self.mark, soon())  # first: the fence refuses it to whoever comes too late
        job = await run_blocking(jobs.begin_boot, job.id, url, expires, macs)
        token = jobs.token(job)
        await run_blocking(jobs.equip, job.id, self._medium(agent, job, token))
        if isinstance(self.driver, VirtualMedia):
            if device is BootDevice.VIRTUAL_MEDIA:
                medium = f"{url}/v1/media/{token}/{self.mark.run_id}.iso"
                await self.driver.insert_media(self.mark, medium, soon())
            else:
                await self.driver.eject_media(self.mark, soon())
        await boot_once(able(self.driver, BootTarget, self.target), self.target, self.mark, device, job.firmware)
        await run_blocking(jobs.switching_on, job.id)
        await self.power.power_on(self.mark, soon())
        await run_blocking(jobs.booted, job.id)

    async def leave(self, *jobs: str, ask: bool = True) -> None:
        """Switch the server off, leave nothing of the agent on its BMC, and close the jobs. Safe to repeat.

        With `ask` an agent that reports is first ordered to power off, and given some seconds for it.
        """
        self.beat(f"switching {self.target.name} off")
        for job in jobs if ask else ():
            await self._order_off(job)
        await self.power.power_off(self.mark, soon())
        await forget_boot(self.driver, self.mark)
        for job in jobs:
            await run_blocking(self.site.jobs.close, job)

    async def _order_off(self, job: str) -> None:
        """Ask the agent to power off, and wait until the power is off or the agent's time for it is over."""
        jobs = self.site.jobs
        found = await run_blocking(jobs.find, job)
        report = (await run_blocking(jobs.seen, job)).report
        if found is None or found.closed or found.boot is None or report is None:
            return
        now = datetime.now(UTC)
        if (now - report.at).total_seconds() > self.patience.order_seconds:
            return  # nobody is there who could hear it
        await run_blocking(jobs.order, job, Order.POWER_OFF)
        end = now + timedelta(seconds=self.patience.order_seconds)
        while datetime.now(UTC) < end:
            if (await run_blocking(jobs.seen, job)).told is Order.POWER_OFF:
                reading = await self.power.power(self.mark, soon())
                if reading.state is not PowerState.ON:
                    return
            await asyncio.sleep(self.patience.look_seconds)

    async def _agent(self) -> AgentImage:
        try:
            return await run_blocking(AgentImage.load, self.site.agents)
        except HostNotReady as error:
            error.metadata = {**error.metadata, "blame": SITE}
            raise

    def _medium(self, agent: AgentImage, job: Job, token: str) -> Medium:
        arguments = kernel_arguments(f"{job.url}/v1/agent/{token}", self.booting)
        return Medium(
            kernel=str(agent.kernel),
            initrd=str(agent.initrd),
            iso=str(agent.iso),
            hole_offset=agent.hole_offset,
            hole=agent.hole(arguments).decode(),
            command_line=agent.command_line(arguments),
        )


def kernel_arguments(url: str, booting: Booting) -> str:
    """What the agent is told by its kernel's command line."""
    network = {"address": booting.address, "gateway": booting.gateway, "mac": booting.mac, "vlan": booting.vlan}
    return " ".join(f"mulligan.{name}={value}" for name, value in {"url": url, **network}.items() if value)


async def no_agent(site: Site, driver: Driver, target: Target) -> tuple[str, ...]:
    """Why the deploy agent could not be booted on the server, one sentence each."""
    lacks: list[str] = []
    try:
        await run_blocking(AgentImage.load, site.agents)
    except HostNotReady as error:
        lacks.append(error.message)
    try:
        boot_server_url(site, target)
    except HostNotReady as error:
        lacks.append(error.message)
    if not read_booting(target.settings).macs and await boots_from(driver, target) is BootDevice.NETWORK:
        lacks.append(no_macs(target).message)
    return tuple(lacks)
