"""The floor of orchestration: a workflow with as many activities that do nothing, on workers with the same settings.

The floor's worker is a process of its own, as the stack's worker is.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from temporalio import activity, workflow
from temporalio.client import Client
from temporalio.worker import Worker

with workflow.unsafe.imports_passed_through():
    from temporalio.api.enums.v1 import EventType
    from temporalio.api.history.v1 import HistoryEvent

    from mulligan.activities.calls import CONTROL_QUEUE
    from mulligan.activities.inventory import Inventory
    from mulligan.activities.seal import Keyring
    from mulligan.api.config import Settings
    from mulligan.api.processes.worker import control_worker, partition_worker, site_of
    from mulligan.api.temporal import connect
    from mulligan.workflows import search

QUEUE = "bench"
FAR_QUEUE = "bench.far"
_ATTEMPT = timedelta(minutes=5)
_UNMET = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Shape:
    """What a run does: its activities in order (whether each is for the partition's queue), local ones after them,
    its timers, and how often it tells Temporal's lists what it is at."""

    far: tuple[bool, ...]
    timers: int = 0
    local: int = 0
    told: int = 0

    @classmethod
    def of(cls, history: list[HistoryEvent]) -> Shape:
        """Read it from a run's history."""
        kinds = [event.event_type for event in history]
        queues = [
            event.activity_task_scheduled_event_attributes.task_queue.name
            for event in history
            if event.event_type == EventType.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED
        ]
        return cls(
            tuple(queue != CONTROL_QUEUE for queue in queues),
            timers=kinds.count(EventType.EVENT_TYPE_TIMER_STARTED),
            local=kinds.count(EventType.EVENT_TYPE_MARKER_RECORDED),
            told=kinds.count(EventType.EVENT_TYPE_UPSERT_WORKFLOW_SEARCH_ATTRIBUTES),
        )

    @property
    def bare(self) -> Shape:
        """As many activities, all on one queue, and nothing beside them."""
        return Shape((False,) * len(self.far), local=self.local)


@activity.defn(name="nothing")
async def nothing() -> None:
    """Do nothing."""


@workflow.defn(name="Floor")
class Floor:
    """Has activities do nothing, one after the other; the first ones each under a timer that never fires, and after
    telling what it is at."""

    @workflow.run
    async def run(self, shape: Shape) -> None:
        """One activity after the other."""
        for number, far in enumerate(shape.far):
            timer = asyncio.create_task(workflow.sleep(_UNMET)) if number < shape.timers else None
            if number < shape.told:
                search.upsert(step=f"step-{number}")
            await workflow.execute_activity(
                nothing, task_queue=FAR_QUEUE if far else QUEUE, start_to_close_timeout=_ATTEMPT
            )
            if timer is not None:
                timer.cancel()
        for _ in range(shape.local):
            await workflow.execute_local_activity(nothing, start_to_close_timeout=_ATTEMPT)


async def work(address: str, directory: Path) -> None:
    """Work on both queues, with the settings of the stack's own workers, until the process is ended."""
    settings = Settings(temporal=address, state_dir=directory)
    client = await connect(settings)
    inventory = Inventory.open(settings.database_url)
    near = control_worker(client, inventory).config()
    far = partition_worker(client, "none", site_of(settings, Keyring.load(settings.key_file))).config()
    near["task_queue"], near["workflows"], near["activities"] = QUEUE, [Floor], [nothing]
    far["task_queue"], far["activities"] = FAR_QUEUE, [nothing]
    await asyncio.gather(Worker(**near).run(), Worker(**far).run())


@contextmanager
def floor_worker(address: str) -> Iterator[int]:
    """Run the floor's worker; gives its process id."""
    with tempfile.TemporaryDirectory() as directory:
        program = [sys.executable, "-c", "from tests.bench.floor import main; main()", address, directory]
        process = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", *program], cwd=Path(__file__).parents[2])
        try:
            yield process.pid
        finally:
            process.kill()
            process.wait()


async def run_floor(client: Client, name: str, shape: Shape) -> None:
    """Run the floor's workflow to its end."""
    handle = await client.start_workflow("Floor", shape, id=f"floor:{name}", task_queue=QUEUE)
    await handle.result()


def main() -> None:
    """The floor's worker: its arguments are Temporal's address and a directory."""
    asyncio.run(work(sys.argv[1], Path(sys.argv[2])))
