"""Registering providers: starting the run that looks at one, and waiting for what it finds."""

from __future__ import annotations

import asyncio

from temporalio.api.enums.v1 import TaskQueueType
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import DescribeTaskQueueRequest
from temporalio.client import Client, WorkflowHandle
from temporalio.common import WorkflowIDConflictPolicy
from temporalio.exceptions import WorkflowAlreadyStartedError

from mulligan.activities.calls import CONTROL_QUEUE, partition_queue
from mulligan.activities.errors import Conflict, Unreachable
from mulligan.activities.inventory import Inventory
from mulligan.activities.threads import run_blocking
from mulligan.activities.values import Provider, Target
from mulligan.api.names import require
from mulligan.workflows.runs import ENROL, EnrolOut, enrol_id

MEMO_TARGET = "target"


LOOKS, LOOK_SECONDS = 10, 0.3


class Enrolments:
    """Starts, or joins, the runs that register providers."""

    def __init__(self, client: Client, inventory: Inventory) -> None:
        self._client, self._inventory = client, inventory

    async def enrol(self, target: Target) -> Provider:
        """The provider as registered. The run goes on when the caller goes away.

        Raises `NotFound` for the partition, `Unreachable` when no worker serves it, `Conflict` when the same name is
        being registered otherwise, and whatever the driver raised.
        """
        require("partition", target.partition, await run_blocking(self._inventory.partitions))
        await self._require_workers(target.partition)
        result: EnrolOut = await (await self._start(target)).result()
        return result.provider

    async def _start(self, target: Target) -> WorkflowHandle[object, EnrolOut]:
        try:
            return await self._client.start_workflow(
                ENROL,
                target,
                id=enrol_id(target.name),
                task_queue=CONTROL_QUEUE,
                result_type=EnrolOut,
                id_conflict_policy=WorkflowIDConflictPolicy.FAIL,
                memo={MEMO_TARGET: target},
                static_summary=f"Register provider {target.name} of partition {target.partition}",
            )
        except WorkflowAlreadyStartedError as error:
            handle: WorkflowHandle[object, EnrolOut] = self._client.get_workflow_handle(
                error.workflow_id, run_id=error.run_id, result_type=EnrolOut
            )
        asked = await (await handle.describe()).memo_value(MEMO_TARGET, target, type_hint=Target)
        if asked != target:
            raise Conflict(
                f"provider {target.name!r} is being registered with other parameters ({asked.url}); wait for that",
                provider=target.name,
                workflow_id=handle.id,
            )
        return handle

    async def _require_workers(self, partition: str) -> None:
        for queue, command in (
            (CONTROL_QUEUE, "mulligan worker --control"),
            (partition_queue(partition), f"mulligan worker --partition {partition}"),
        ):
            if not await self._is_served(queue):
                raise Unreachable(
                    f"no worker listens on the task queue {queue}, so nobody could look at the provider; start one "
                    f"with `{command}`, and try again",
                    task_queue=queue,
                    remedy=command,
                )

    async def _is_served(self, queue: str) -> bool:
        """Whether a worker listens; one that was just started may take a moment to be seen."""
        request = DescribeTaskQueueRequest(
            namespace=self._client.namespace,
            task_queue=TaskQueue(name=queue),
            task_queue_type=TaskQueueType.TASK_QUEUE_TYPE_ACTIVITY,
        )
        for _ in range(LOOKS):
            if (await self._client.workflow_service.describe_task_queue(request, retry=True)).pollers:
                return True
            await asyncio.sleep(LOOK_SECONDS)
        return False
