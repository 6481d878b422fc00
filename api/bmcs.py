"""BMCs listed: the inventory knows which there are, their partitions how they answer. All are asked at once."""

from __future__ import annotations

import asyncio
import uuid
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import timedelta

from temporalio.client import Client, WorkflowFailureError
from temporalio.exceptions import ActivityError
from temporalio.service import RPCError

from mulligan.activities.bmc_health import BmcHealth, BmcsIn, BmcsOut, BmcState
from mulligan.activities.calls import CONTROL_QUEUE
from mulligan.activities.drivers.registry import lane_of
from mulligan.activities.errors import MulliganError, Unreachable
from mulligan.activities.inventory import Inventory
from mulligan.activities.threads import run_blocking
from mulligan.activities.values import Provider
from mulligan.api.convert_inventory import bmc_message
from mulligan.api.errors import from_failure
from mulligan.api.fairness import AT_A_PROMPT
from mulligan.api.pages import provider_pages
from mulligan.api.queues import require_workers
from mulligan.v1 import inventory_pb2 as pb
from mulligan.workflows import runs

LIST_SECONDS, PROBE_SECONDS = 20, 75
"""How long a partition may take, in all."""
MOST = 1000
"""Providers that one workflow is asked about."""

Behind = Mapping[str, Sequence[Provider]]
"""The providers behind each BMC of one partition, by its name."""


class Bmcs:
    """Lists BMCs."""

    def __init__(self, client: Client, inventory: Inventory) -> None:
        self._client, self._inventory = client, inventory

    async def listed(self, partition: str, provider: str, *, probe: bool) -> list[pb.Bmc]:
        """The BMCs of a partition, or all; or the one behind a provider. Raises `NotFound` for either."""
        found = await self._behind(partition, provider)
        partitions = sorted(found)
        told = await asyncio.gather(*(self._of(each, found[each], probe) for each in partitions))
        return [
            bmc_message(health, where, found[where][health.bmc])
            for where, healths in zip(partitions, told, strict=True)
            for health in healths
        ]

    async def _behind(self, partition: str, provider: str) -> Mapping[str, Behind]:
        found: dict[str, dict[str, list[Provider]]] = defaultdict(lambda: defaultdict(list))
        wanted = await run_blocking(self._inventory.provider, provider) if provider else None
        async for each in provider_pages(self._inventory, partition or (wanted.partition if wanted else "")):
            bmc = lane_of(each.url)
            if bmc and (wanted is None or (each.partition == wanted.partition and bmc == lane_of(wanted.url))):
                found[each.partition][bmc].append(each)
        return found

    async def _of(self, partition: str, behind: Behind, probe: bool) -> list[BmcHealth]:
        """What the partition says; where it does not, its BMCs as not known, with the reason."""
        targets = [each.target for bmc in sorted(behind) for each in behind[bmc]]
        told: list[BmcHealth] = []
        why = ""
        try:
            await require_workers(self._client, partition)
            for first in range(0, len(targets), MOST):
                told += (await self._ask(BmcsIn(partition, tuple(targets[first : first + MOST]), probe))).bmcs
        except (MulliganError, RPCError) as error:
            why = error.message
        known = {each.bmc: each for each in told}
        return [known.get(bmc, BmcHealth(bmc, BmcState.NOT_KNOWN, error=why)) for bmc in sorted(behind)]

    async def _ask(self, asked: BmcsIn) -> BmcsOut:
        seconds = PROBE_SECONDS if asked.probe else LIST_SECONDS
        try:
            answer: BmcsOut = await self._client.execute_workflow(
                runs.BMCS,
                asked,
                id=runs.bmcs_id(str(uuid.uuid4())),
                task_queue=CONTROL_QUEUE,
                result_type=BmcsOut,
                execution_timeout=timedelta(seconds=seconds),
                static_summary=f"List the BMCs of partition {asked.partition}",
                priority=AT_A_PROMPT,
            )
        except WorkflowFailureError as error:
            known = from_failure(error)
            if known is not None:
                raise known from error
            who = f"--partition {asked.partition}" if isinstance(error.cause, ActivityError) else "--control"
            raise Unreachable(
                f"no worker of partition {asked.partition} answered within {seconds} s; see that one runs: "
                f"`mulligan worker {who}`",
                partition=asked.partition,
                remedy="mulligan doctor",
            ) from error
        return answer
