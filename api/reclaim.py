"""Abandoned claims: found when their lease has passed, and taken down by a run of their own.

The clock alone never frees hardware. A lease that has passed only asks whether the run that holds it is open: if so,
the lease is extended (control workers were away); if not, a reclaim run undoes what it left and gives the claim back.
"""

from __future__ import annotations

import asyncio

import structlog
from temporalio.client import Client, WorkflowExecutionStatus
from temporalio.common import WorkflowIDConflictPolicy
from temporalio.service import RPCError, RPCStatusCode

from mulligan.activities.calls import CONTROL_QUEUE
from mulligan.activities.errors import MulliganError
from mulligan.activities.inventory import ClaimRow, Inventory
from mulligan.activities.threads import run_blocking
from mulligan.workflows import runs

AT_ONCE = 50
log = structlog.get_logger(__name__)


class Reaper:
    """Looks for claims whose lease has passed. Any number may run: reclaim runs are named after their claim."""

    def __init__(
        self, inventory: Inventory, client: Client, *, lease_seconds: int, every_seconds: float = 15.0
    ) -> None:
        self._inventory = inventory
        self._client = client
        self._lease_seconds = lease_seconds
        self._every_seconds = every_seconds

    async def run(self) -> None:
        """Look again and again until cancelled; an outage is logged and outlived."""
        while True:
            try:
                await self.look()
            except (MulliganError, RPCError) as error:
                log.warning("could not look for abandoned claims; trying again", error=str(error))
            await asyncio.sleep(self._every_seconds)

    async def look(self) -> list[str]:
        """Look once; the workflow ids of the reclaim runs that were started or are under way."""
        started = []
        for claim in await run_blocking(self._inventory.expired, AT_ONCE):
            if await self._is_open(claim):
                await run_blocking(self._inventory.extend_lease, claim.id, self._lease_seconds)
            else:
                started.append(await self._reclaim(claim))
        return started

    async def _is_open(self, claim: ClaimRow) -> bool:
        handle = self._client.get_workflow_handle(runs.provision_id(claim.project, claim.machine), run_id=claim.run_id)
        try:
            return (await handle.describe()).status is WorkflowExecutionStatus.RUNNING
        except RPCError as error:
            if error.status is RPCStatusCode.NOT_FOUND:
                return False
            raise

    async def _reclaim(self, claim: ClaimRow) -> str:
        provider = await run_blocking(self._inventory.provider, claim.provider)
        asked = runs.ReleaseIn(
            machine_id=claim.machine_id,
            project=claim.project,
            machine=claim.machine,
            claim_id=claim.id,
            target=provider.target,
            run_id=claim.run_id,
            fence=claim.fence,
        )
        workflow_id = runs.reclaim_id(claim.id)
        await self._client.start_workflow(
            runs.RECLAIM,
            asked,
            id=workflow_id,
            task_queue=CONTROL_QUEUE,
            id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
            static_summary=f"Reclaim what an abandoned run left of {claim.machine} on {claim.provider}",
        )
        log.warning("reclaiming an abandoned claim", claim=claim.id, machine=claim.machine, workflow_id=workflow_id)
        return workflow_id
