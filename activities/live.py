"""Live machines on servers: an ISO, or a kernel and its initrd, booted without a disk. Next to the provider.

What is booted is served for as long as the machine lives, under URLs of its own boot: by virtual media, which stay
inserted, or from the network by MAC. No disk is written, and none is erased afterwards. That something of the medium
was read since the server was switched on is the evidence of this boot, where its BMC had not fetched all of it before;
a kernel's guest calls home besides, by its seed.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

from temporalio import activity

from mulligan.activities import calls
from mulligan.activities.agent.image import COMMAND_LINE_BYTES, AgentImage
from mulligan.activities.beat import Beat, beating
from mulligan.activities.bmc import SITE, boot_server_url, boots_from, no_macs, soon
from mulligan.activities.bootserver.job import Boot, Job, JobKind, Medium, Seen
from mulligan.activities.bootserver.live_door import packed
from mulligan.activities.bootserver.tokens import issue
from mulligan.activities.drivers.base import (
    BaseImage,
    BootDevice,
    BootReading,
    BootTarget,
    Driver,
    LastingBoot,
    Power,
    VirtualMedia,
)
from mulligan.activities.drivers.booting import read_booting
from mulligan.activities.errors import Busy, Conflict, HostNotReady, MulliganError, Unreachable, Unsupported
from mulligan.activities.firmware import firmware_for
from mulligan.activities.images.seed import seed_files
from mulligan.activities.live_medium import LiveMedium, live_medium
from mulligan.activities.patience import Patience
from mulligan.activities.site import Site, able, attempt_deadline
from mulligan.activities.threads import run_blocking
from mulligan.activities.values import (
    Evidence,
    Firmware,
    Image,
    ImageFormat,
    MachineRequest,
    Mark,
    PowerState,
    Target,
    VerifyLevel,
)

LIVES = timedelta(days=36500)
"""How long a live machine's URLs could be good: they end with the machine, and must not end under it."""

NO_DISKS = "cc:datasource:%0A%20NoCloud:%0A%20%20fs_label:%0Aend_cc"
"""Tells cloud-init to look for a seed on no disk (`fs_label: null` of its NoCloud): the SSH keys and the network of
whoever had the server before would be merged into this machine's. In one word, without what boot loaders act on."""

SETTINGS = "cc:"
"""Where cloud-init finds this, settings begin, in whatever word it is (until late in 2023)."""

READ = ("medium", "kernel")
"""What is read, and by that shows that something is booted."""


class LiveActivities:
    """Live machines booted."""

    def __init__(self, site: Site, patience: Patience | None = None) -> None:
        self._site = site
        self._patience = patience or Patience()

    @activity.defn(name=calls.BOOT_LIVE.name)
    async def boot_live(self, asked: calls.DisksIn) -> calls.Booted:
        """Boot the live image, and wait until something of it was read.

        A boot that an earlier attempt began is waited for, and not begun again.
        """
        target, mark, jobs = asked.target, asked.mark, self._site.jobs
        async with beating(f"booting {mark.machine} on {target.name}") as beat, self._site.driver(target) as driver:
            power = able(driver, Power, target)
            name = await run_blocking(jobs.name, target.name, mark, JobKind.LIVE)
            job = await run_blocking(jobs.open, _job(name, asked))
            if not await self._goes_on(job, power, asked):
                job = await self._begin(asked, job, driver, beat)
            evidence = await self._read(job, target.name, beat)
            reading = await power.power(mark, soon())
            once = await _once(driver, target, mark)
        said = f"{mark.machine} runs {asked.image.name} without a disk; {target.name} says {reading.detail}"
        return calls.Booted(said, activity.info().scheduled_time, evidence=(evidence, *once))

    @staticmethod
    async def _goes_on(job: Job, power: Power, asked: calls.DisksIn) -> bool:
        """Whether this boot was begun already, and the server is on for it."""
        if job.boot is None or job.boot.at is None:
            return False
        return (await power.power(asked.mark, soon())).state is PowerState.ON

    async def _begin(self, asked: calls.DisksIn, job: Job, driver: Driver, beat: Beat) -> Job:
        """Begin a new boot, and switch the server on for it. What an earlier boot was served ends."""
        target, mark, jobs = asked.target, asked.mark, self._site.jobs
        device, firmware = await boots_by(driver, target, asked.image, job.firmware)
        macs = read_booting(target.settings).macs if device is BootDevice.NETWORK else ()
        files = await files_of(self._site, asked.image, device, beat)
        url = boot_server_url(self._site, target)
        power = able(driver, Power, target)
        await power.power_off(mark, soon())
        expires = datetime.now(UTC) + LIVES
        job = await run_blocking(jobs.begin_boot, job.id, url, expires, macs)
        token = jobs.token(job)
        if asked.image.format is ImageFormat.KERNEL:
            await run_blocking(jobs.load, job.id, None, await run_blocking(self._seed, asked, url))
        job = await run_blocking(jobs.equip, job.id, _medium(asked, files, f"{url}/v1/seed/{token}/"))
        beat(f"booting {mark.machine} on {target.name} from {device}")
        if isinstance(driver, VirtualMedia):
            if device is BootDevice.VIRTUAL_MEDIA:
                await driver.insert_media(mark, f"{url}/v1/media/{token}/{mark.run_id}.iso", soon())
            else:
                await driver.eject_media(mark, soon())
        await _boot_from(driver, asked, device, firmware)
        await run_blocking(jobs.switching_on, job.id)
        await power.power_on(mark, soon())
        return await run_blocking(jobs.booted, job.id)

    def _seed(self, asked: calls.DisksIn, url: str) -> bytes:
        mark, keyring = asked.mark, self._site.keyring
        expires = datetime.now(UTC) + timedelta(seconds=asked.token_seconds)
        token = issue(keyring, asked.workflow_id, mark.run_id, mark.machine_id, str(asked.try_number), expires)
        plain = keyring.open(asked.request.user_data) if asked.request.user_data else ""
        home = f"{url}/v1/call-home"
        files = seed_files(asked.request, mark, user_data=plain, call_home_url=home, call_home_token=token)
        return packed(files)

    async def _read(self, begun: Job, name: str, beat: Beat) -> Evidence:
        """Wait until something was read, where that can be seen. Raises `Unreachable` when nothing is in the time given
        for it, and then waits for this boot no more; `Conflict` when the machine was taken down meanwhile."""
        jobs, patience, deadline, since = self._site.jobs, self._patience, attempt_deadline(), datetime.now(UTC)
        size = await run_blocking(_medium_bytes, begun)
        while True:
            job = await run_blocking(jobs.find, begun.id)
            if job is None or job.closed or job.boot is None:
                raise Conflict(f"the live image on {name} was waited for, and its boot was ended by another action")
            seen, now = await run_blocking(jobs.seen, begun.id), datetime.now(UTC)
            if evidence := _evidence(seen, size, now):
                return evidence
            observed = _observed(job.boot, seen, now)
            if now > max(job.boot.at or since, since) + timedelta(seconds=patience.comes):
                await run_blocking(jobs.give_up_boot, begun.id)
                raise Unreachable(
                    f"{name} was booted into a live image, and nothing of it was read in the time given for it; "
                    f"{observed}; it is booted again. The server's screen, or its serial console, says what it is at",
                    provider=name,
                    observed=observed,
                )
            beat(f"waiting until {name} reads what it boots; {observed}")
            deadline.check(f"{name}: waiting until it reads what it boots")
            await asyncio.sleep(patience.look_seconds)


def _job(name: str, asked: calls.DisksIn) -> Job:
    """The job of this claim. It is there before anything is asked of the BMC, so that its undo knows of it."""
    mark = asked.mark
    return Job(
        id=name,
        kind=JobKind.LIVE,
        machine=mark.machine,
        workflow_id=asked.workflow_id,
        run_id=mark.run_id,
        asked_by=mark.run_id,
        provider=asked.target.name,
        firmware=firmware_for(asked.image, asked.request.firmware),
    )


async def boots_by(driver: Driver, target: Target, image: Image, firmware: Firmware) -> tuple[BootDevice, Firmware]:
    """From what, and by which firmware, the image is booted on the server.

    Raises `HostNotReady` when its network cards are not known, `Unsupported` for an ISO from the network by UEFI.
    """
    device = await boots_from(driver, target)
    if device is not BootDevice.NETWORK:
        return device, firmware
    if not read_booting(target.settings).macs:
        raise no_macs(target)
    if image.format is not ImageFormat.ISO:
        return device, firmware
    if firmware is Firmware.UEFI or Firmware.BIOS not in image.firmware:
        raise Unsupported(
            f"{target.name} boots from the network, where an ISO is booted by BIOS only, and UEFI is needed for "
            f"{image.name}; boot it from virtual media (boot_from=virtual-media), or register its kernel and initrd",
            provider=target.name,
            image=image.name,
        )
    return device, Firmware.BIOS


async def _boot_from(driver: Driver, asked: calls.DisksIn, device: BootDevice, firmware: Firmware) -> None:
    """Ask for every boot from there, where the BMC offers that; else for one. Raises `Busy` when it says otherwise."""
    target, mark = asked.target, asked.mark
    if isinstance(driver, LastingBoot):
        reading = await driver.boot_always(mark, device, firmware, soon())
    else:
        reading = await able(driver, BootTarget, target).boot_next(mark, device, firmware, soon())
    if not reading.agrees:
        raise _disagrees(target, device, reading)


async def _once(driver: Driver, target: Target, mark: Mark) -> tuple[Evidence, ...]:
    """What is to be known where the BMC overrides one boot only, not every boot; whatever is wrong, it only informs."""
    try:
        reading = await able(driver, BootTarget, target).boot_override(mark, soon())
    except MulliganError:
        return ()
    if reading.device is not None and not reading.once:
        return ()
    told = (
        f"the BMC of {target.name} overrides one boot only, and says {reading.detail}: when the server starts again, "
        "it boots by its own order, and this image only where that leads to it"
    )
    return (Evidence(None, "bmc", told, reading.at),)


def _disagrees(target: Target, device: BootDevice, reading: BootReading) -> Busy:
    return Busy(
        f"{target.name}: the BMC was asked to boot from {device}, and says that it boots from {reading.detail}; the "
        "server stays off, and it is asked again",
        after_seconds=10.0,
        provider=target.name,
        asked=device,
        found=reading.detail,
    )


async def verified(site: Site, image: Image, beat: Beat) -> tuple[BaseImage, BaseImage | None]:
    """The image on this host, and its initrd; each fetched where it is not there yet."""
    try:
        base = await site.store.ensure(image, beat, attempt_deadline())
        initrd = await site.store.ensure(image.initrd, beat, attempt_deadline()) if image.initrd is not None else None
    except MulliganError as error:
        error.metadata = {**error.metadata, "blame": "image"}  # no server is to blame for an image's source
        raise
    return base, initrd


Files = tuple[BaseImage, BaseImage | None, LiveMedium | None]
"""The image, its initrd, and the medium around both, where there is to be one."""


async def files_of(site: Site, image: Image, device: BootDevice, beat: Beat) -> Files:
    """What is booted, verified, on this host."""
    base, initrd = await verified(site, image, beat)
    if image.format is ImageFormat.ISO or device is BootDevice.NETWORK:
        return base, initrd, None
    agent = await run_blocking(loaders, site)
    return base, initrd, await live_medium(agent, base, initrd, beat, attempt_deadline())


def loaders(site: Site) -> AgentImage:
    """The deploy agent's image, whose boot loaders start a live kernel from a medium. Raises `HostNotReady`. Blocks."""
    try:
        return AgentImage.load(site.agents)
    except HostNotReady as error:
        error.metadata = {**error.metadata, "blame": SITE}
        raise


def _medium(asked: calls.DisksIn, files: Files, seed_url: str) -> Medium:
    base, initrd, medium = files
    if asked.image.format is ImageFormat.ISO:
        return Medium("", "", str(base.path), 0, "", "")
    line = command_line(asked.image, seed_url, asked.mark.machine_id, asked.request.hostname or asked.request.name)
    hole = (str(medium.path), medium.hole_offset, medium.hole(line)) if medium is not None else ("", 0, "")
    return Medium(str(base.path), str(initrd.path) if initrd is not None else "", *hole, line)


def command_line(image: Image, seed_url: str, instance_id: str, hostname: str) -> str:
    """What the kernel is started with. `nocloud-net` is the name that every version of cloud-init takes for a URL.

    What a disk labelled `cidata` says of a machine goes before what a seed by HTTP says, but not before this.
    """
    own, host = image.kernel_arguments, urlsplit(seed_url).netloc
    if own.count(SETTINGS) != own.count("end_cc") or any(SETTINGS in word[1:] for word in own.split()):
        raise Unsupported(
            f"the kernel arguments of {image.name} hold {SETTINGS!r} in a word, which cloud-init takes for the "
            "beginning of settings that go on to the end of the line; write hexadecimal digits before a colon in upper "
            "case, and end settings by end_cc",
            image=image.name,
        )
    seed_url = seed_url.replace(host, host.upper(), 1) if SETTINGS in host else seed_url
    line = f"{own} ds=nocloud-net;s={seed_url};i={instance_id};h={hostname} {NO_DISKS}".strip()
    if len(line.encode()) > COMMAND_LINE_BYTES:
        raise Unsupported(
            f"the kernel arguments of {image.name} come to {len(line.encode())} bytes with the address of its seed, "
            f"and Linux takes {COMMAND_LINE_BYTES}; register it with fewer",
            image=image.name,
        )
    return line


def _medium_bytes(job: Job) -> int:
    """How large the medium is that a BMC is given; 0 where there is none. Blocks."""
    medium = job.boot.medium if job.boot is not None else None
    iso = Path(medium.iso) if medium is not None else Path()
    return iso.stat().st_size if iso.is_file() else 0


def _evidence(seen: Seen, medium_bytes: int, now: datetime) -> Evidence | None:
    """That something was read; None before. What a BMC fetched when it was given the medium tells nothing of the boot:
    one that then had all of it reads no more here, and it is told that nothing is to be seen."""
    since = {what: count - seen.before.get(what, 0) for what, count in seen.fetched.items()}
    if any(since.get(what) for what in READ):
        told = " and ".join(f"{count} bytes of the {what}" for what, count in since.items() if count)
        return Evidence(VerifyLevel.POWER, "boot-server", f"{told} were read since it was switched on", now)
    if medium_bytes and seen.before.get("medium", 0) >= medium_bytes:
        told = (
            f"the BMC fetched all {medium_bytes} bytes of the medium before the server was switched on: whether the "
            "server reads them is not seen here"
        )
        return Evidence(None, "boot-server", told, now)
    return None


def _observed(boot: Boot, seen: Seen, now: datetime) -> str:
    on = f"switched on {(now - boot.at).total_seconds():.0f} seconds ago" if boot.at is not None else "just begun"
    if early := seen.before.get("medium"):
        asked = f"its BMC fetched {early} bytes of the medium before, and nothing since"
    else:
        asked = "it asked for its script, and for nothing more" if seen.fetched else "nothing was fetched yet"
    return f"{on}, and {asked}" + (f"; {seen.refused}" if seen.refused else "")


async def no_live(site: Site, driver: Driver, target: Target, image: Image, request: MachineRequest) -> tuple[str, ...]:
    """Why the live image could not be booted on the server, one sentence each."""
    lacks: list[str] = []
    device = None
    try:
        device, _ = await boots_by(driver, target, image, firmware_for(image, request.firmware))
    except (HostNotReady, Unsupported) as error:
        lacks.append(error.message)
    try:
        boot_server_url(site, target)
    except HostNotReady as error:
        lacks.append(error.message)
    if image.format is ImageFormat.KERNEL and device is BootDevice.VIRTUAL_MEDIA:
        try:
            await run_blocking(loaders, site)
        except HostNotReady as error:
            lacks.append(error.message)
    return tuple(lacks)
