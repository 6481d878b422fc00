"""Long lists, read from the database page by page while they are streamed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from mulligan.activities.inventory import Inventory
from mulligan.activities.inventory.machine import Machine
from mulligan.activities.threads import run_blocking
from mulligan.activities.values import MachineState, Provider

PAGE = 500


async def machine_pages(
    inventory: Inventory, project: str, partition: str, states: Sequence[MachineState]
) -> AsyncIterator[Machine]:
    """Machines by (project, name)."""
    after = ("", "")
    while True:
        page = await run_blocking(inventory.machines, project, partition, states, after, PAGE)
        for machine in page:
            yield machine
        if len(page) < PAGE:
            return
        after = (page[-1].project, page[-1].name)


async def provider_pages(inventory: Inventory, partition: str) -> AsyncIterator[Provider]:
    """Providers by name. Raises `NotFound` for the partition."""
    after = ""
    while True:
        page = await run_blocking(inventory.providers, partition, after, PAGE)
        for provider in page:
            yield provider
        if len(page) < PAGE:
            return
        after = page[-1].name
