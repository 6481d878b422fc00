"""The boot step: a machine made and switched on, or switched off and removed. Runs next to the provider."""

from __future__ import annotations

from temporalio import activity

from mulligan.activities import calls
from mulligan.activities.beat import beating
from mulligan.activities.bmc import is_off_again, ready_to_boot_from_disk
from mulligan.activities.drivers.base import Computers, Power, Shape
from mulligan.activities.firmware import firmware_for
from mulligan.activities.site import Site, able, attempt_deadline
from mulligan.activities.values import Target


class BootActivities:
    """Machines' definitions and their power."""

    def __init__(self, site: Site) -> None:
        self._site = site

    @activity.defn(name=calls.BOOT.name)
    async def boot(self, asked: calls.BootIn) -> calls.Booted:
        """Make the machine and ask for power on.

        The boot counts from the moment at which this action was first scheduled: nothing of the machine ran before, and
        an attempt that follows a killed one must not take the first one's evidence for old.
        """
        target, mark = asked.target, asked.mark
        image = asked.image
        firmware = firmware_for(image, asked.request.firmware)
        shape = Shape(asked.claim.resources, firmware, image.architecture, image.kernel_arguments)
        async with beating(f"switching on {mark.machine} on {target.name}"), self._site.driver(target) as driver:
            power = able(driver, Power, target)
            if isinstance(driver, Computers):
                await driver.define(mark, shape, attempt_deadline())
            else:
                await ready_to_boot_from_disk(self._site, driver, target, mark, shape.firmware)
            await power.power_on(mark, attempt_deadline())
            reading = await power.power(mark, attempt_deadline())
        said = f"{mark.machine} was switched on; {target.name} says {reading.detail or reading.state}"
        return calls.Booted(said, activity.info().scheduled_time)

    @activity.defn(name=calls.TEAR_DOWN.name)
    async def tear_down(self, asked: calls.MadeFor) -> calls.Done:
        """Cut the power, then remove the definition."""
        target, mark = asked.target, asked.mark
        async with beating(f"switching off {mark.machine} on {target.name}"), self._site.driver(target) as driver:
            await able(driver, Power, target).power_off(mark, attempt_deadline())
            if isinstance(driver, Computers):
                await driver.undefine(mark, attempt_deadline())
            else:
                await is_off_again(self._site, driver, target, mark)
        return calls.Done(f"{mark.machine} is off and gone from {target.name}")

    @activity.defn(name=calls.INSPECT.name)
    async def inspect(self, target: Target) -> calls.Inspected:
        """Look at a provider before it is registered."""
        doing = f"looking at {target.name}; proving that guests run takes some seconds"
        async with beating(doing), self._site.driver(target) as driver:
            inspection = await driver.inspect(attempt_deadline())
        return calls.Inspected(f"{target.name} was looked at: {len(inspection.capabilities)} capabilities", inspection)
