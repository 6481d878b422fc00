"""Before a BMC is spoken to: whether all workers of its partition share one drivers' directory.

Lanes and fences are files there. Workers that have directories of their own would speak to one BMC at the same time,
and one would not know the other's claims. Temporal knows who polls a partition's queue, and each says its directory.
"""

from __future__ import annotations

import asyncio
import shlex
import time
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

from temporalio import activity
from temporalio.api.enums.v1 import TaskQueueType, WorkerStatus
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import DescribeTaskQueueRequest, ListWorkersRequest
from temporalio.client import Client
from temporalio.service import RPCError

from mulligan.activities.calls import partition_queue
from mulligan.activities.drivers.directory import Neighbour, locks_are_local, me, neighbour_of, strangers
from mulligan.activities.errors import NotShared

LOOK_SECONDS = 10.0
"""A worker looks no more often than this, at each partition."""
RECENT_SECONDS = 75.0
"""Who polled so recently is there: polls last 50 to 60 seconds."""
HEARD_SECONDS = 130.0
"""Who said so recently that it works is there: workers say so every minute. So one that was killed is forgotten."""
CALL_SECONDS = 3.0
SITE = "site"
"""Whom the error blames: this worker and its like, not the server."""


async def workers_of(client: Client, partition: str) -> tuple[Neighbour, ...]:
    """The workers that serve a partition: who polled its queue of late, or says that it works, and not that it ends.

    Raises `RPCError` when Temporal does not say.
    """
    polled, (works, ended) = await _polled(client, partition), await _heard(client, partition)
    there = {name for name, at in polled.items() if at > ended.get(name, 0.0)}
    return tuple(neighbour_of(each) for each in sorted(there | works))


async def _polled(client: Client, partition: str) -> dict[str, float]:
    """Who polled of late, and when last, in seconds since 1970."""
    request = DescribeTaskQueueRequest(
        namespace=client.namespace,
        task_queue=TaskQueue(name=partition_queue(partition)),
        task_queue_type=TaskQueueType.TASK_QUEUE_TYPE_ACTIVITY,
    )
    answer = await client.workflow_service.describe_task_queue(request, timeout=timedelta(seconds=CALL_SECONDS))
    since = time.time() - RECENT_SECONDS
    last = {each.identity: each.last_access_time.ToMicroseconds() / 1e6 for each in answer.pollers}
    return {name: at for name, at in last.items() if at > since}


async def _heard(client: Client, partition: str) -> tuple[set[str], dict[str, float]]:
    """Who says that it works, and who said when that it ends: workers say so every minute, and at their end.

    One whose places are all taken does not poll. Servers that cannot list workers tell nothing.
    """
    request = ListWorkersRequest(namespace=client.namespace, query=f"TaskQueue='{partition_queue(partition)}'")
    try:
        answer = await client.workflow_service.list_workers(request, timeout=timedelta(seconds=CALL_SECONDS))
    except RPCError:
        return set(), {}
    since, works, ended = time.time() - HEARD_SECONDS, set(), {}
    for each in (info.worker_heartbeat for info in answer.workers_info):
        at = each.heartbeat_time.ToMicroseconds() / 1e6
        if each.status != WorkerStatus.WORKER_STATUS_RUNNING:
            ended[each.worker_identity] = at
        elif at > since and neighbour_of(each.worker_identity).directory:  # else it is the name of its client only
            works.add(each.worker_identity)
    return works, ended


class Neighbours:
    """The other workers, as one worker sees them."""

    def __init__(self, directory: Path, identity: str) -> None:
        self._directory = directory
        self._identity = identity
        self._looking = asyncio.Lock()
        self._seen: dict[str, tuple[float, tuple[Neighbour, ...]]] = {}
        """Per partition, when it was last looked, on the monotonic clock, and who was there."""

    async def require_shared(self, provider: str, partition: str) -> None:
        """Raise `NotShared` when a worker of the partition has another directory, or does not see this host's locks.

        Outside of a worker's activity nothing is looked at; a look that fails changes nothing.
        """
        client = _client()
        if client is None:
            return
        there = await self._look(client, partition)
        others = strangers(self._identity, there)
        if others:
            raise not_shared(provider, partition, me(self._identity), self._directory, others)
        far = tuple(each for each in there if each.host != me("").host)
        if far and locks_are_local(self._directory):
            raise local_locks(provider, partition, self._directory, far)

    async def _look(self, client: Client, partition: str) -> tuple[Neighbour, ...]:
        async with self._looking:
            at, there = self._seen.get(partition, (0.0, ()))
            now = time.monotonic()
            if partition in self._seen and now - at < LOOK_SECONDS:
                return there
            try:
                there = await workers_of(client, partition)
            except RPCError:  # Temporal is away: who was there stays so for as long as it would be listed
                return there if now - at < HEARD_SECONDS else ()
            self._seen[partition] = now, there
            return there


def not_shared(
    provider: str, partition: str, mine: Neighbour, directory: Path, others: Sequence[Neighbour]
) -> NotShared:
    """The error that says who does not share what, and what to do."""
    told = ", ".join(str(each) for each in others)
    return NotShared(
        f"{provider} is not spoken to: workers of partition {partition} do not share one drivers' directory, so each "
        f"could speak to its BMC at the same time. This one, {mine}, has {directory}; another one has: {told}. Give "
        "all of them one state directory (MULLIGAN_STATE_DIR on a shared file system with locks), or stop all but one; "
        f"it is tried again, and a worker that was killed is forgotten within {HEARD_SECONDS:.0f} s",
        provider=provider,
        partition=partition,
        worker=mine,
        directory=directory,
        others=told,
        remedy="mulligan doctor",
        blame=SITE,
    )


def local_locks(provider: str, partition: str, directory: Path, far: Sequence[Neighbour]) -> NotShared:
    """The error for a directory whose locks other hosts do not see."""
    told = ", ".join(str(each) for each in far)
    return NotShared(
        f"{provider} is not spoken to: {directory} is shared by workers of partition {partition} on other hosts "
        f"({told}), and mounted here so that locks stay on this host; mount it as NFS version 4, without nolock and "
        "local_lock",
        provider=provider,
        partition=partition,
        directory=directory,
        others=told,
        remedy=f"findmnt -T {shlex.quote(str(directory))}",
        blame=SITE,
    )


def _client() -> Client | None:
    """The worker's client; None outside of its activities."""
    if not activity.in_activity():
        return None
    try:
        return activity.client()
    except RuntimeError:  # an activity that a test runs without a worker
        return None
