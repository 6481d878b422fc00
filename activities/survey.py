"""The part of planning that looks at the provider: what a run would move, lack and destroy. Changes nothing.

Runs next to the provider, and needs no database.
"""

from __future__ import annotations

from collections.abc import Iterator

from temporalio import activity

from mulligan.activities import planning
from mulligan.activities.beat import beating
from mulligan.activities.drivers.base import (
    Addresses,
    BootTarget,
    Console,
    Disks,
    Driver,
    LiveSources,
    PlayedGuests,
    Power,
)
from mulligan.activities.errors import Final
from mulligan.activities.images.store import Stock
from mulligan.activities.live import no_live
from mulligan.activities.metal import no_agent
from mulligan.activities.site import Site, attempt_deadline
from mulligan.activities.values import Compression, Image, Kind, VerifyLevel

ABILITIES: tuple[tuple[type, VerifyLevel | None, str], ...] = (
    (Disks, None, "make disks"),
    (Power, None, "switch a machine on and off"),
    (Console, VerifyLevel.CONSOLE, "read a console"),
    (Addresses, VerifyLevel.ADDRESS, "see addresses"),
)
"""What a run asks of a driver: the Protocol, the level of verification from which on (None: always), in words."""
LIVE_ABILITIES = ((LiveSources, None, "boot a live image"), *ABILITIES)
"""The same of a run of a live image."""


class SurveyActivities:
    """What a run would find on a provider."""

    def __init__(self, site: Site) -> None:
        self._site = site

    @activity.defn(name=planning.SURVEY.name)
    async def survey(self, asked: planning.SurveyIn) -> planning.Surveyed:
        """Look whether the image is there, what the driver can do, and what is in the way."""
        name, image = asked.target.name, asked.image
        async with beating(f"asking {name} what a run would find"), self._site.driver(asked.target) as driver:
            by_agent = isinstance(driver, BootTarget) and not isinstance(driver, Disks)
            placed = isinstance(driver, Disks) and await driver.has_base(image.digest, attempt_deadline())
            lacks = [*cannot(driver, asked), *_no_service(driver, asked), *await self._no_call_home(driver, asked)]
            if by_agent:
                lacks = [*_only_power(driver, asked), *await self._cannot_boot(driver, asked)]
            stock = Stock()
            if driver.moves_bytes and not placed:
                try:
                    stock = await self._stock(image)
                except Final as error:
                    lacks.append(error.message)
        whole = stock.there_bytes or _whole(image)
        return planning.Surveyed(
            said=f"{name} {'has' if placed else 'does not have'} {image.name}",
            download_bytes=stock.fetch_bytes,
            place_bytes=0 if placed else whole,
            cached_bytes=whole if placed else stock.there_bytes,
            lacks=tuple(lacks),
            destroys=destroyed(asked),
            by_agent=by_agent,
            live=image.live,
        )

    async def _cannot_boot(self, driver: Driver, asked: planning.SurveyIn) -> tuple[str, ...]:
        """Why a server could not be booted for this: into the live image, or into the agent that writes its disk."""
        if asked.image.live:
            return await no_live(self._site, driver, asked.target, asked.image, asked.request)
        return await no_agent(self._site, driver, asked.target)

    async def _stock(self, image: Image) -> Stock:
        """What is here of the image, with its initrd where it has one."""
        found = await self._site.store.stock(image)
        if image.initrd is None:
            return found
        initrd = await self._site.store.stock(image.initrd)
        return Stock(found.there_bytes + initrd.there_bytes, found.fetch_bytes + initrd.fetch_bytes)

    async def _no_call_home(self, driver: Driver, asked: planning.SurveyIn) -> tuple[str, ...]:
        """What is said when a guest must call home and has nowhere to."""
        if not asked.request.verify.includes(VerifyLevel.GUEST):
            return ()
        gateway = await driver.gateway(attempt_deadline()) if isinstance(driver, Addresses) else ""
        if self._site.boot_url(gateway):
            return ()
        return (
            f"guests on {asked.target.name} cannot reach a boot server, and level {asked.request.verify} needs their "
            f"call home: set MULLIGAN_BOOT_LISTEN or MULLIGAN_BOOT_URL, or ask for level {VerifyLevel.ADDRESS}",
        )


def cannot(driver: Driver, asked: planning.SurveyIn) -> Iterator[str]:
    """What the request needs and the driver cannot do, one sentence each."""
    level, target = asked.request.verify, asked.target
    for ability, from_level, words in LIVE_ABILITIES if asked.image.live else ABILITIES:
        needed = from_level is None or level.includes(from_level)
        if needed and not isinstance(driver, ability):
            why = f", which level {level} needs" if from_level is not None else ""
            yield f"the driver of {target.name} ({target.url}) cannot {words}{why}"


def _no_service(driver: Driver, asked: planning.SurveyIn) -> Iterator[str]:
    """What is said when the machine's service must answer, and its driver knows already that it will not."""
    service = asked.request.service
    if not asked.request.verify.includes(VerifyLevel.SERVICE) or not isinstance(driver, PlayedGuests):
        return
    if why := driver.unanswered(service):
        yield (
            f"no guest on {asked.target.name} answers {service.kind} on port {service.port}, which level "
            f"{VerifyLevel.SERVICE} needs: {why}; ask for level {VerifyLevel.GUEST}"
        )


def _only_power(driver: Driver, asked: planning.SurveyIn) -> Iterator[str]:
    """What is lacking of a server: its disk is written by the agent, and its guest says itself what address it has."""
    if not isinstance(driver, Power):
        yield f"the driver of {asked.target.name} ({asked.target.url}) cannot switch a machine on and off"
    if asked.request.verify is VerifyLevel.CONSOLE and not isinstance(driver, Console):
        yield (
            f"nobody sees the console of {asked.target.name}, which level {VerifyLevel.CONSOLE} needs; ask for level "
            f"{VerifyLevel.ADDRESS}, which its call home proves"
        )


def destroyed(asked: planning.SurveyIn) -> tuple[str, ...]:
    """What a run would destroy: nothing on a hypervisor, where all disks are new, and nothing by a live image."""
    if asked.kind != Kind.BARE_METAL or asked.image.live:
        return ()
    return (f"everything on the root disk of {asked.target.name}, which is given whole",)


def _whole(image: Image) -> int:
    """How much the expanded image is, as far as its registration tells; 0 where it does not."""
    plain = image.size_bytes if image.compression is Compression.NONE else 0
    return plain or image.virtual_size_bytes
