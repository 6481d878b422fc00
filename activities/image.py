"""The image step: the image brought to the provider once, and a machine's own disks. Runs next to the provider."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from temporalio import activity

from mulligan.activities import calls
from mulligan.activities.beat import Beat, beating
from mulligan.activities.bootserver.tokens import issue
from mulligan.activities.deploy import prepared
from mulligan.activities.drivers.base import Addresses, BaseImage, BootTarget, Disks, Driver, LiveSource, LiveSources
from mulligan.activities.errors import Leftover, MulliganError, Unsupported
from mulligan.activities.images.seed import build_seed
from mulligan.activities.live import boots_by, files_of
from mulligan.activities.site import Site, able, attempt_deadline
from mulligan.activities.threads import run_blocking
from mulligan.activities.values import Firmware, Image, ImageFormat, VerifyLevel


class ImageActivities:
    """Images, disks and seeds."""

    def __init__(self, site: Site) -> None:
        self._site = site

    @activity.defn(name=calls.PREPARE_IMAGE.name)
    async def prepare(self, asked: calls.ImageIn) -> calls.Done:
        """Fetch, check and place the image, unless the provider has it."""
        image, target = asked.image, asked.target
        async with beating(f"asking {target.name} for {image.name}") as beat, self._site.driver(target) as driver:
            if isinstance(driver, BootTarget) and not isinstance(driver, Disks):
                if image.live:
                    device, _ = await boots_by(driver, target, image, Firmware.ANY)
                    await files_of(self._site, image, device, beat)
                    return calls.Done(f"{image.name} is ready for {target.name}: verified, to be booted from {device}")
                disk, packed = await prepared(self._site, target, image, beat)
                size = f"{disk.bytes / 2**30:.1f} GiB{f', {packed.bytes / 2**20:.0f} MiB compressed' if packed else ''}"
                return calls.Done(f"{image.name} is ready for {target.name}: verified, raw, {size}, {disk.digest[:19]}")
            disks, deadline = able(driver, Disks, target), attempt_deadline()
            parts = (image,) if image.initrd is None else (image, image.initrd)
            missing = [part for part in parts if not await disks.has_base(part.digest, deadline)]
            for part in missing:
                await disks.place_base(await self._base(part, driver, beat), beat, deadline)
        if not missing:
            return calls.Done(f"{target.name} has {image.name} already; no byte was moved")
        return calls.Done(f"{image.name} is on {target.name}, verified as {image.digest[:19]}")

    async def _base(self, image: Image, driver: Driver, beat: Beat) -> BaseImage:
        if driver.moves_bytes:
            try:
                return await self._site.store.ensure(image, beat, attempt_deadline())
            except MulliganError as error:
                error.metadata = {**error.metadata, "blame": "image"}  # no host is to blame for an image's source
                raise
        return BaseImage(image.digest, Path("/nonexistent"), image.format, image.virtual_size_bytes)

    @activity.defn(name=calls.REMOVE_BASES.name)
    async def remove_bases(self, asked: calls.BasesIn) -> calls.BasesGone:
        """Remove what is kept there for the next machine, but what a machine's disk is built on."""
        target, only = asked.target, [asked.digest] if asked.digest else None
        async with beating(f"removing images from {target.name}"), self._site.driver(target) as driver:
            removed: tuple[str, ...] = ()
            if isinstance(driver, Disks):
                removed = await driver.remove_bases(only, attempt_deadline())
        return calls.BasesGone(f"{len(removed)} image base(s) were removed from {target.name}", removed)

    @activity.defn(name=calls.PLACE_DISKS.name)
    async def place_disks(self, asked: calls.DisksIn) -> calls.Done:
        """Make the machine's disk on the image, and the seed that tells the guest who it is."""
        request, target = asked.request, asked.target
        async with beating(f"making disks on {target.name}"), self._site.driver(target) as driver:
            url = await self._call_home_url(asked, driver)
            expires = datetime.now(UTC) + timedelta(seconds=asked.token_seconds)
            mark = asked.mark
            token = issue(
                self._site.keyring, asked.workflow_id, mark.run_id, mark.machine_id, str(asked.try_number), expires
            )
            plain = self._site.keyring.open(request.user_data) if request.user_data else ""
            if asked.image.format is ImageFormat.ISO:
                return await _place_live(driver, asked, b"")  # nothing can be put into it
            seed = await run_blocking(
                build_seed, request, mark, user_data=plain, call_home_url=url, call_home_token=token if url else ""
            )
            if asked.image.live:
                return await _place_live(driver, asked, seed)
            disks = able(driver, Disks, target)
            gib = request.resources.disk_gib
            await disks.create_disks(mark, asked.image.digest, gib, seed, attempt_deadline())
        return calls.Done(f"a disk of {gib} GiB and a seed are on {target.name}")

    async def _call_home_url(self, asked: calls.DisksIn, driver: Driver) -> str:
        gateway = await driver.gateway(attempt_deadline()) if isinstance(driver, Addresses) else ""
        url = self._site.boot_url(gateway)
        if not url and asked.request.verify.includes(VerifyLevel.GUEST):
            raise Unsupported(
                f"level {asked.request.verify} was asked for, but guests on {asked.target.name} cannot reach a boot "
                f"server (they see this host as {gateway or 'nothing'}); set MULLIGAN_BOOT_LISTEN or "
                f"MULLIGAN_BOOT_URL, or ask for level {VerifyLevel.ADDRESS}"
            )
        return f"{url}/v1/call-home" if url else ""

    @activity.defn(name=calls.REMOVE_DISKS.name)
    async def remove_disks(self, asked: calls.MadeFor) -> calls.Done:
        """Remove the machine's disks, and list what carries its mark to be sure that nothing does."""
        target, mark = asked.target, asked.mark
        async with beating(f"removing disks from {target.name}"), self._site.driver(target) as driver:
            await able(driver, Disks, target).remove_disks(mark, attempt_deadline())
            if left := await driver.remains(mark.machine_id, attempt_deadline()):
                raise Leftover(
                    f"{target.name} still has {', '.join(left)} of {mark.machine}; it will be tried again", objects=left
                )
        return calls.Done(f"nothing of {mark.machine} is left on {target.name}")


async def _place_live(driver: Driver, asked: calls.DisksIn, seed: bytes) -> calls.Done:
    """What a machine without a disk runs, in the place of a disk."""
    image, target = asked.image, asked.target
    source = LiveSource(image.format, image.digest, image.initrd_digest)
    await able(driver, LiveSources, target).place_live(asked.mark, source, seed, attempt_deadline())
    return calls.Done(f"{image.name} is what {asked.mark.machine} boots on {target.name}; it has no disk")
