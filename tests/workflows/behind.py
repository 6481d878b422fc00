"""What happens to a machine that no run asked for: its power is switched, or its guest calls home at its own time."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

from temporalio.client import WorkflowHandle

from mulligan.activities import calls
from mulligan.activities.drivers.base import Deadline
from mulligan.activities.drivers.simulated import SimulatedDriver, open_simulated
from mulligan.activities.values import CallHome, Mark
from mulligan.workflows import runs
from tests.workflows.stack import Stack

Handle = WorkflowHandle[Any, runs.ProvisionOut]


@contextlib.asynccontextmanager
async def behind_its_back(stack: Stack, handle: Handle, project: str) -> AsyncIterator[tuple[SimulatedDriver, Mark]]:
    """The machine's host, and its mark, for those who switch at its power."""
    (claim,) = stack.inventory.claims(project=project)
    machine = stack.inventory.machine(project, "m")
    target = stack.inventory.provider(machine.provider).target
    driver = await open_simulated(target, stack.site.drivers_dir)
    try:
        yield driver, Mark(project, "m", machine.id, (await handle.describe()).run_id, claim.fence)
    finally:
        await driver.close()


async def switch_off(stack: Stack, handle: Handle, project: str) -> None:
    """Cut its power."""
    async with behind_its_back(stack, handle, project) as (driver, mark):
        await driver.power_off(mark, Deadline.after(10))


async def called(handle: Handle, stack: Stack, project: str) -> None:
    """The guest calls home after all."""
    call = CallHome(datetime.now(UTC), "m", addresses=("127.0.0.1",), peer="127.0.0.1")
    told = calls.CallHomeIn(stack.inventory.machine(project, "m").id, 1, call)
    await handle.execute_update(calls.CALL_HOME, told)
