"""BMCs listed: what the lanes of a partition know of them, and on demand what each answers now.

Runs next to the BMCs, and needs no database.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import replace
from itertools import groupby

from temporalio import activity

from mulligan.activities.beat import beating
from mulligan.activities.bmc_health import LIST_BMCS, BmcHealth, BmcsIn, BmcsOut
from mulligan.activities.drivers.base import Deadline, Power
from mulligan.activities.drivers.lane_health import health_of
from mulligan.activities.drivers.registry import lane_of
from mulligan.activities.errors import MulliganError
from mulligan.activities.site import Site, able
from mulligan.activities.threads import run_blocking
from mulligan.activities.values import Mark, Target

PROBE_SECONDS = 40.0
"""By when each BMC has answered, or is told as it is known until then."""
AT_ONCE = 32
"""BMCs that are asked at the same time."""
NOBODY = Mark("", "", "", "", 0)
"""Who asks for the power, which needs no claim."""


class BmcActivities:
    """The BMCs of a partition."""

    def __init__(self, site: Site) -> None:
        self._site = site

    @activity.defn(name=LIST_BMCS.name)
    async def list_bmcs(self, asked: BmcsIn) -> BmcsOut:
        """Each BMC behind the targets, by name; with `probe` one thing is asked of each before, in its lane.

        Raises `NotShared` when it shall probe, and workers of the partition could speak to a BMC at the same time.
        """
        behind = _by_bmc(asked.targets)
        troubles: Mapping[str, str] = {}
        if asked.probe:
            async with beating(f"asking {len(behind)} BMCs of {asked.partition}"):
                troubles = await self._probe(behind)
        known = await run_blocking(self._known, behind)
        found = tuple(each if each.error else replace(each, error=troubles.get(each.bmc, "")) for each in known)
        silent = sum(each.silent_since is not None for each in found)
        return BmcsOut(f"{len(found)} BMCs, {silent} of them silent", found)

    def _known(self, bmcs: Iterable[str]) -> tuple[BmcHealth, ...]:
        return tuple(health_of(self._site.drivers_dir, bmc) for bmc in bmcs)

    async def _probe(self, behind: Mapping[str, list[Target]]) -> dict[str, str]:
        """Ask each. What it answers the lanes keep; given is why one could not be asked, or not answer."""
        for first in behind.values():
            await self._site.neighbours.require_shared(first[0].name, first[0].partition)
        places, until = asyncio.Semaphore(AT_ONCE), Deadline.after(PROBE_SECONDS)

        async def ask(target: Target) -> str:
            async with places:
                try:
                    until.check(f"{target.name}: reading the power")
                    async with self._site.driver(target) as driver:
                        await able(driver, Power, target).power(NOBODY, until)
                except MulliganError as error:
                    return error.message
                return ""

        told = await asyncio.gather(*(ask(targets[0]) for targets in behind.values()))
        return dict(zip(behind, told, strict=True))


def _by_bmc(targets: Iterable[Target]) -> dict[str, list[Target]]:
    """The targets behind each BMC, by its name."""
    with_bmc = sorted(((lane_of(each.url), each.name, each) for each in targets), key=lambda one: one[:2])
    return {bmc: [each for _, _, each in group] for bmc, group in groupby(with_bmc, lambda one: one[0]) if bmc}
