"""Abandoned claims and machines: found when a lease has passed, and taken down by a run of their own.

The clock alone never frees hardware. A lease that has passed only asks whether the run that holds it is open: if so,
the lease is extended (control workers were away); if not, a reclaim run undoes what it left and gives the claim back.
A machine that is held, or is being released, has no lease, and one that waits for room has no claim: they are found by
their state. The same loop prunes, a little at a time, what is too old to tell anything.
"""

from __future__ import annotations

import asyncio
import time

import structlog
from temporalio.client import Client
from temporalio.common import WorkflowIDConflictPolicy
from temporalio.service import RPCError

from mulligan.activities.calls import BY_AGENT, CONTROL_QUEUE
from mulligan.activities.errors import MulliganError
from mulligan.activities.inventory import ClaimRow, ClaimState, Inventory
from mulligan.activities.inventory.machine import Machine
from mulligan.activities.inventory.tables import UNSETTLED
from mulligan.activities.threads import run_blocking
from mulligan.activities.values import MachineState
from mulligan.api.fairness import turn_of
from mulligan.api.releases import needs_erasing, usual_erase
from mulligan.api.runs import Runs
from mulligan.workflows import runs, search

AT_ONCE = 50
PRUNE_AT_ONCE = 500
"""Rows of one kind that go in one transaction: milliseconds, in which claims wait on SQLite."""

PRUNE_SECONDS = 3600.0
"""How often it is looked for what is old, once nothing more was found."""

log = structlog.get_logger(__name__)


class Reaper:
    """Looks for what ended runs left behind. Any number may run: reclaim runs are named after their claim."""

    def __init__(
        self,
        inventory: Inventory,
        client: Client,
        *,
        lease_seconds: int,
        keep_days: int = 90,
        every_seconds: float = 15.0,
    ) -> None:
        self._inventory = inventory
        self._client = client
        self._runs = Runs(client, inventory)
        self._seen = ""
        self._lease_seconds = lease_seconds
        self._keep_days = keep_days
        self._prune_at = 0.0
        self._every_seconds = every_seconds

    async def run(self) -> None:
        """Look again and again until cancelled; an outage is logged and outlived."""
        while True:
            try:
                await self.look()
                await self.prune()
            except (MulliganError, RPCError) as error:
                log.warning("could not look for what was left behind; trying again", error=str(error))
            await asyncio.sleep(self._every_seconds)

    async def look(self) -> list[str]:
        """Look once; the workflow ids of the reclaim runs that were started or are under way."""
        started = [await self._expired(claim) for claim in await run_blocking(self._inventory.expired, AT_ONCE)]
        started += [await self._unfinished(machine) for machine in await self._some_unsettled()]
        return [workflow_id for workflow_id in started if workflow_id]

    async def prune(self) -> int:
        """Remove some of what is too old, if it is time to; how many rows went."""
        if time.monotonic() < self._prune_at:
            return 0
        gone = await run_blocking(self._inventory.prune, self._keep_days, PRUNE_AT_ONCE)
        if gone:
            log.info("pruned what ended long ago", rows=gone, days=self._keep_days)
        else:
            self._prune_at = time.monotonic() + PRUNE_SECONDS
        return gone

    async def _expired(self, claim: ClaimRow) -> str:
        if await self._has_run(claim.project, claim.machine, claim.machine_id):
            await run_blocking(self._inventory.extend_lease, claim.id, self._lease_seconds)
            return ""
        # Read again: the run may have ended just before it was looked for, and handed the machine over.
        claim = await run_blocking(self._inventory.claim_by_id, claim.id)
        return await self._reclaim(claim) if claim.state is ClaimState.HELD else ""

    async def _some_unsettled(self) -> list[Machine]:
        """The next page of machines that were begun longer than a lease ago; after the last page the first."""
        page = await run_blocking(self._inventory.unsettled, self._lease_seconds, self._seen, AT_ONCE)
        self._seen = page[-1].id if len(page) == AT_ONCE else ""
        return page

    async def _unfinished(self, machine: Machine) -> str:
        if await self._has_run(machine.project, machine.name, machine.id):
            return ""
        machine = await run_blocking(self._inventory.machine_by_id, machine.id)  # again: as above
        claim = await run_blocking(self._inventory.live_claim_of, machine.id)
        if claim is not None:
            without_lease = claim.state is ClaimState.PERMANENT
            if machine.state is MachineState.RELEASING:
                without_lease |= claim.state is ClaimState.QUARANTINED
            if machine.state not in UNSETTLED or not without_lease:
                return ""
            given_back = machine.state is MachineState.RELEASING and machine.ready_at is not None
            return await self._reclaim(claim, given_back=given_back)
        if (await run_blocking(self._inventory.abandon_machine, machine.id)).state is not machine.state:
            log.warning("a machine was left behind with nothing claimed", machine=machine.name, machine_id=machine.id)
        return ""

    async def _has_run(self, project: str, machine: str, machine_id: str) -> bool:
        """Whether a run that makes it, or takes it down as its user wished, is open."""
        if await self._runs.making(project, machine, machine_id) is not None:
            return True
        return await self._runs.open_run(runs.release_id(project, machine), machine_id) is not None

    async def _reclaim(self, claim: ClaimRow, *, given_back: bool = False) -> str:
        provider = await run_blocking(self._inventory.provider, claim.provider)
        machine = await run_blocking(self._inventory.machine_by_id, claim.machine_id)
        asked = runs.ReleaseIn(
            machine_id=claim.machine_id,
            project=claim.project,
            machine=claim.machine,
            claim_id=claim.id,
            target=provider.target,
            run_id=claim.run_id,
            fence=claim.fence,
            dirty=needs_erasing(machine, provider),
            erase=usual_erase(machine),
            by_agent=BY_AGENT in provider.capabilities,
            given_back=given_back,
        )
        workflow_id = runs.reclaim_id(claim.id)
        await self._client.start_workflow(
            runs.RECLAIM,
            asked,
            id=workflow_id,
            task_queue=CONTROL_QUEUE,
            id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
            memo={runs.MEMO_MACHINE_ID: claim.machine_id},
            static_summary=f"Reclaim what an abandoned run left of {claim.machine} on {claim.provider}",
            search_attributes=search.started(
                project=claim.project,
                machine=claim.machine,
                partition=provider.partition,
                provider=provider.name,
                step="undo",
            ),
            priority=turn_of(claim.project),
        )
        log.warning("reclaiming an abandoned claim", claim=claim.id, machine=claim.machine, workflow_id=workflow_id)
        return workflow_id
