"""What the activities of a partition share: drivers to open, images, the key, and where guests find the boot server."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import TypeVar

from temporalio import activity

from mulligan.activities.bootserver.jobs import Jobs
from mulligan.activities.drivers.base import Deadline, Driver
from mulligan.activities.drivers.directory import identify
from mulligan.activities.drivers.kept import Kept
from mulligan.activities.drivers.registry import lane_of, open_driver
from mulligan.activities.errors import Unsupported
from mulligan.activities.images.store import ImageStore
from mulligan.activities.neighbours import Neighbours
from mulligan.activities.seal import Keyring
from mulligan.activities.transcript import noted, recorded
from mulligan.activities.values import Target

Capability = TypeVar("Capability")

MARGIN_SECONDS = 2.0
"""A driver gives up this long before its attempt would be taken for dead."""


@dataclass(frozen=True)
class Site:
    """One partition worker's surroundings."""

    store: ImageStore
    keyring: Keyring
    drivers_dir: Path
    """Where drivers keep what must survive a restart."""
    boot_url: Callable[[str], str]
    """From the address at which guests see this host to the boot server's URL; empty when guests cannot reach it."""
    credentials: Path | None = None
    """The file that references to credentials are resolved in; None where no driver needs one."""
    kept: Kept = field(default_factory=Kept)
    """What drivers share between openings; closed when the worker ends."""
    agent_dir: Path | None = None
    """Where the deploy agent's image was built; None for `agent` beside the drivers' directory."""

    @cached_property
    def jobs(self) -> Jobs:
        """The deploy agent's jobs of this host; the boot server serves them."""
        return Jobs(self.drivers_dir / "jobs", self.keyring)

    @cached_property
    def directory_id(self) -> str:
        """The identity of the drivers' directory, which workers of a partition that serve servers share."""
        return identify(self.drivers_dir)

    @cached_property
    def neighbours(self) -> Neighbours:
        """The other workers of this one's partitions."""
        return Neighbours(self.drivers_dir, self.directory_id)

    @property
    def agents(self) -> Path:
        """Where the deploy agent's image is."""
        return self.agent_dir or self.drivers_dir.parent / "agent"

    @asynccontextmanager
    async def driver(self, target: Target) -> AsyncIterator[Driver]:
        """An open driver, closed at the end of the block. What is asked of it is noted in the transcript.

        Raises `NotShared` for a server behind a BMC that other workers could speak to at the same time.
        """
        with noted("open"):
            if lane_of(target.url):
                await self.neighbours.require_shared(target.name, target.partition)
            driver = await open_driver(target, state_dir=self.drivers_dir, credentials=self.credentials, kept=self.kept)
        try:
            yield recorded(driver)
        finally:
            await driver.close()


def able(driver: Driver, capability: type[Capability], target: Target) -> Capability:
    """The driver as what it must be able to do."""
    if not isinstance(driver, capability):
        raise Unsupported(
            f"{target.name} ({target.url}) cannot do what this needs: {capability.__name__.lower()}; "
            "require a capability that leaves it out",
            provider=target.name,
            capability=capability.__name__,
        )
    return driver


def attempt_deadline() -> Deadline:
    """When this attempt must have given up."""
    limit = activity.info().start_to_close_timeout or timedelta(minutes=2)
    return Deadline.after(max(1.0, limit.total_seconds() - MARGIN_SECONDS))
