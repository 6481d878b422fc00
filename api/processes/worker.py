"""The worker's process: workflows and record-keeping, or partitions with their boot server, or all of it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Any

import structlog
from temporalio.client import Client
from temporalio.worker import PollerBehaviorAutoscaling, Worker

from mulligan.activities.bootserver.gate import Gate
from mulligan.activities.bootserver.server import BootServer
from mulligan.activities.call_home import RunListener
from mulligan.activities.calls import CONTROL_QUEUE, partition_queue
from mulligan.activities.control import control_activities
from mulligan.activities.drivers.directory import me, polls_as
from mulligan.activities.images.store import GIB, ImageStore
from mulligan.activities.inventory import Inventory
from mulligan.activities.partition import partition_activities
from mulligan.activities.seal import Keyring
from mulligan.activities.site import Site
from mulligan.activities.threads import run_blocking
from mulligan.activities.translate import ErrorInterceptor
from mulligan.api.config import Settings
from mulligan.api.processes.descriptors import raise_descriptors
from mulligan.api.processes.listeners import BootListeners, boot_url
from mulligan.api.processes.mains import connect_patiently
from mulligan.api.processes.sandbox import workflow_runner
from mulligan.api.processes.stack_file import make_state_dir
from mulligan.api.reclaim import Reaper
from mulligan.workflows import all_workflows

_GRACE = timedelta(seconds=20)
"""Activities may end by themselves when a worker is stopped; the default cancels them at once."""
_STICKY = timedelta(seconds=3)
"""How long a run waits for a worker that was killed before another takes it over; the default is 10 seconds."""
_HEARTBEAT = timedelta(seconds=1)
"""By default cancels and percentages lag by most of the heartbeat's time-out."""
_CACHED_RUNS = 2000
"""About 80 KiB each. A run that is not cached is replayed at each of its tasks: a quarter of the throughput."""
_ACTIVITIES = 100
"""At once, on each queue: the most that one worker does to the hardware of a partition. Workflow tasks have no limit of
ours: four at once cost a sixth of the throughput. Pollers scale by themselves, which Temporal recommends; on one node
any number gave the same."""

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


def control_worker(client: Client, inventory: Inventory) -> Worker:
    """Workflows, claims and record-keeping."""
    return Worker(
        client,
        task_queue=CONTROL_QUEUE,
        workflows=all_workflows(),
        activities=control_activities(inventory, client),
        workflow_runner=workflow_runner(),
        interceptors=[ErrorInterceptor()],
        max_concurrent_activities=_ACTIVITIES,
        max_cached_workflows=_CACHED_RUNS,
        max_heartbeat_throttle_interval=_HEARTBEAT,
        sticky_queue_schedule_to_start_timeout=_STICKY,
        graceful_shutdown_timeout=_GRACE,
        workflow_task_poller_behavior=PollerBehaviorAutoscaling(),
        activity_task_poller_behavior=PollerBehaviorAutoscaling(),
    )


def partition_worker(client: Client, partition: str, site: Site) -> Worker:
    """Images, boots and verification, next to the providers; its name says which drivers' directory it has."""
    return Worker(
        client,
        task_queue=partition_queue(partition),
        identity=polls_as(me(site.directory_id)),
        activities=partition_activities(site),
        interceptors=[ErrorInterceptor()],
        max_concurrent_activities=_ACTIVITIES,
        max_heartbeat_throttle_interval=_HEARTBEAT,
        graceful_shutdown_timeout=_GRACE,
        activity_task_poller_behavior=PollerBehaviorAutoscaling(),
    )


def site_of(settings: Settings, keyring: Keyring) -> Site:
    """A partition worker's surroundings, made from the settings."""
    store = ImageStore(
        settings.cache_dir,
        file_roots=(settings.image_dir, *settings.image_roots),
        max_download_bytes=settings.max_download_gib * GIB,
        max_virtual_bytes=settings.max_virtual_gib * GIB,
    )
    return Site(
        store,
        keyring,
        settings.drivers_dir,
        lambda host: boot_url(settings, host),
        settings.credentials_file,
        agent_dir=settings.agent_dir,
    )


async def work(settings: Settings, ending: asyncio.Event, control: bool, partitions: Sequence[str]) -> None:
    """Work until `ending` is set; then let activities end for 20 seconds, and cancel what is left."""
    make_state_dir(settings.state_dir)
    if partitions:
        raise_descriptors()
    client = await connect_patiently(settings, ending)
    if client is None:
        return
    async with AsyncExitStack() as stack:
        workers: list[Worker] = []
        aside: list[asyncio.Task[None]] = []
        if control:
            inventory = await run_blocking(Inventory.open, settings.database_url)
            stack.callback(inventory.close)
            workers.append(control_worker(client, inventory))
            await _audit(inventory)
            reaper = Reaper(inventory, client, lease_seconds=settings.lease_seconds, keep_days=settings.keep_days)
            aside.append(asyncio.create_task(reaper.run()))
        if partitions:
            keyring = await run_blocking(Keyring.load, settings.key_file)
            site = site_of(settings, keyring)
            stack.push_async_callback(site.kept.close)
            gate, heard = Gate(), RunListener(client)
            listeners = BootListeners(settings.boot_listen, lambda: BootServer(keyring, heard, site.jobs, gate=gate))
            await listeners.start()
            stack.push_async_callback(listeners.stop)
            aside.append(asyncio.create_task(listeners.follow_bridges()))
            workers += [partition_worker(client, partition, site) for partition in partitions]
        await _run(workers, aside, ending)


async def _audit(inventory: Inventory) -> None:
    """Say at start what does not add up; mending is an operator's decision."""
    for drift in await run_blocking(inventory.audit):
        log.warning("the claims do not add up", detail=drift.detail, remedy="mulligan claim audit --repair")


async def _run(workers: Sequence[Worker], aside: Sequence[asyncio.Task[None]], ending: asyncio.Event) -> None:
    """Run everything until asked to end or something fails, which is raised after the rest was ended in peace."""
    running = [asyncio.create_task(worker.run()) for worker in workers]
    asked: asyncio.Task[Any] = asyncio.create_task(ending.wait())
    log.info("working", queues=[worker.task_queue for worker in workers])
    try:
        await asyncio.wait({*running, *aside, asked}, return_when=asyncio.FIRST_COMPLETED)
        for task in (*running, *aside):
            if task.done():
                task.result()
    finally:
        log.info("ending")
        await asyncio.gather(*(worker.shutdown() for worker in workers), return_exceptions=True)
        for task in (*aside, asked):
            task.cancel()
        await asyncio.gather(*running, *aside, asked, return_exceptions=True)
