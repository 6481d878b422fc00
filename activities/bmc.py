"""A server's next boot, as its BMC is asked for it: what the agent and the machine itself are booted by alike.

Whoever asks reads back before anything is switched on, and leaves nothing behind on the BMC.
"""

from __future__ import annotations

from dataclasses import replace
from urllib.parse import urlsplit

from temporalio import activity

from mulligan.activities.bootserver.job import JobKind
from mulligan.activities.drivers.base import BootDevice, BootTarget, Deadline, Driver, Power, VirtualMedia
from mulligan.activities.drivers.booting import BOOT_URL, BootFrom, read_booting
from mulligan.activities.errors import Busy, Conflict, HostNotReady
from mulligan.activities.site import Site, able
from mulligan.activities.threads import run_blocking
from mulligan.activities.values import Firmware, Identity, Mark, PowerState, Target

SITE = "site"
"""Whom an error blames that is about this worker or its settings, and says nothing against the server."""

VERB_SECONDS = 110.0
"""What one verb of a BMC may take: much less than an attempt, which waits for a disk to be written."""


def soon() -> Deadline:
    """When a verb must have given up."""
    return Deadline.after(VERB_SECONDS)


async def boot_once(driver: BootTarget, target: Target, mark: Mark, device: BootDevice, firmware: Firmware) -> None:
    """Ask for one boot from the device. Raises `Busy` when the BMC then says that it boots from something else."""
    reading = await driver.boot_next(mark, device, firmware, soon())
    if not reading.agrees:
        raise Busy(
            f"{target.name}: the BMC was asked for one boot from {device}, and says that the next one is from "
            f"{reading.detail}; the server stays off, and it is asked again",
            after_seconds=10.0,
            provider=target.name,
            asked=device,
            found=reading.detail,
        )


async def ready_to_boot_from_disk(site: Site, driver: Driver, target: Target, mark: Mark, firmware: Firmware) -> None:
    """Have the server off, no medium in it, and the next boot from its disk; nothing when it boots from there already.

    That an earlier attempt came as far as switching it on is kept in the job that wrote the disk. Raises `Conflict`
    once the disks were to be erased: an attempt that comes so late must not switch on what was switched off for good.
    """
    erasing = await run_blocking(site.jobs.find, await run_blocking(site.jobs.name, target.name, mark, JobKind.ERASE))
    if erasing is not None and erasing.asked_by:
        raise Conflict(f"{target.name}: the disks of {mark.machine} were to be erased, so that it is not booted")
    power, job = able(driver, Power, target), await run_blocking(site.jobs.name, target.name, mark, JobKind.DEPLOY)
    deployed = await run_blocking(site.jobs.find, job)
    reading, started = await power.power(mark, soon()), deployed is not None and deployed.started
    if started and reading.state is PowerState.ON:
        return
    if not started or reading.state is not PowerState.OFF:  # what was switched on may be on its way
        await power.power_off(mark, soon())
    if isinstance(driver, VirtualMedia):
        await driver.eject_media(mark, soon())
    await boot_once(able(driver, BootTarget, target), target, mark, BootDevice.DISK, firmware)
    if deployed is not None:
        await run_blocking(site.jobs.change, job, lambda found: replace(found, started=True))


async def is_off_again(site: Site, driver: Driver, target: Target, mark: Mark) -> None:
    """After the power was cut: the next boot is a new one, and the BMC keeps neither medium nor boot override. What was
    served for this claim is served no more; only what this execution asked the agent for is its own to end."""
    job = await run_blocking(site.jobs.name, target.name, mark, JobKind.DEPLOY)
    if await run_blocking(site.jobs.find, job) is not None:
        await run_blocking(site.jobs.change, job, lambda found: replace(found, started=False))
    await forget_boot(driver, mark)
    await run_blocking(site.jobs.close_left, target.name, mark, activity.info().workflow_run_id or "")


async def forget_boot(driver: Driver, mark: Mark) -> None:
    """Leave neither medium nor boot override on a BMC."""
    if isinstance(driver, VirtualMedia):
        await driver.eject_media(mark, soon())
    if isinstance(driver, BootTarget):
        await driver.clear_boot_override(mark, soon())


async def boots_from(driver: Driver, target: Target) -> BootDevice:
    """What the agent is booted from: what the settings say, or virtual media where a drive takes a URL."""
    wanted = read_booting(target.settings).boot_from
    if wanted is BootFrom.NETWORK or not isinstance(driver, VirtualMedia):
        return BootDevice.NETWORK
    if wanted is BootFrom.VIRTUAL_MEDIA or await driver.media(soon()):
        return BootDevice.VIRTUAL_MEDIA
    return BootDevice.NETWORK


def no_macs(target: Target) -> HostNotReady:
    """The boot server tells servers that boot from the network by their network cards."""
    return HostNotReady(
        f"{target.name} boots the deploy agent from the network, and by which network card is not known; set "
        "macs=MAC[,MAC...] for the provider",
        remedy=f"mulligan provider set {target.name} --set macs=52:54:00:12:34:56",
        provider=target.name,
        blame=SITE,
    )


def identity_of(target: Target) -> Identity:
    """Which server the deploy agent must find itself on; nothing where that is not to be checked."""
    return replace(target.identity, guid="") if read_booting(target.settings).check_identity else Identity()


def boot_server_url(site: Site, target: Target) -> str:
    """How the server and its BMC reach the boot server. Raises `HostNotReady` when nobody said so, or by no `http`."""
    url = read_booting(target.settings).boot_url or site.boot_url("").rstrip("/")
    if not url:
        raise HostNotReady(
            f"{target.name} and its BMC must fetch the deploy agent from the boot server, and where they reach it is "
            "not known; set boot_url=http://HOST:PORT for the provider, or MULLIGAN_BOOT_URL for its worker",
            remedy=f"mulligan provider set {target.name} --set boot_url=http://HOST:7421",
            provider=target.name,
            blame=SITE,
        )
    if urlsplit(url).scheme != "http":
        raise HostNotReady(
            f"{target.name} and its BMC would reach the boot server by {url}, and that must be {BOOT_URL}; set "
            "boot_url for the provider, or MULLIGAN_BOOT_URL for its worker",
            remedy=f"mulligan provider set {target.name} --set boot_url=http://HOST:7421",
            provider=target.name,
            blame=SITE,
        )
    return url
