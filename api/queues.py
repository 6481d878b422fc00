"""Whether anybody listens on a task queue: who waits at a prompt is told at once when nobody does."""

from __future__ import annotations

import asyncio

from temporalio.api.enums.v1 import TaskQueueType
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import DescribeTaskQueueRequest
from temporalio.client import Client

from mulligan.activities.calls import CONTROL_QUEUE, partition_queue
from mulligan.activities.errors import Unreachable

LOOKS, LOOK_SECONDS = 10, 0.3


async def require_workers(client: Client, partition: str) -> None:
    """Raise `Unreachable`, with the command that starts one, unless workers of both kinds listen for this partition."""
    for queue, command in (
        (CONTROL_QUEUE, "mulligan worker --control"),
        (partition_queue(partition), f"mulligan worker --partition {partition}"),
    ):
        if not await _is_served(client, queue):
            raise Unreachable(
                f"no worker listens on the task queue {queue}, so nobody could look at the provider; start one "
                f"with `{command}`, and try again",
                task_queue=queue,
                remedy=command,
            )


async def _is_served(client: Client, queue: str) -> bool:
    """Whether a worker listens; one that was just started may take a moment to be seen."""
    request = DescribeTaskQueueRequest(
        namespace=client.namespace,
        task_queue=TaskQueue(name=queue),
        task_queue_type=TaskQueueType.TASK_QUEUE_TYPE_ACTIVITY,
    )
    for _ in range(LOOKS):
        if (await client.workflow_service.describe_task_queue(request, retry=True)).pollers:
            return True
        await asyncio.sleep(LOOK_SECONDS)
    return False
