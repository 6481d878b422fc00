"""A whole stack in one process for workflow tests: real Temporal, real SQLite, real boot server, simulated hosts."""

from __future__ import annotations

import asyncio
import itertools
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from temporalio.client import Client, WorkflowHandle
from temporalio.common import WorkflowIDConflictPolicy
from temporalio.worker import Worker

from mulligan.activities.bootserver.server import BootServer
from mulligan.activities.call_home import RunListener
from mulligan.activities.calls import CONTROL_QUEUE
from mulligan.activities.control import control_activities
from mulligan.activities.drivers.base import Deadline
from mulligan.activities.drivers.simulated import open_simulated, snapshot
from mulligan.activities.errors import NotFound
from mulligan.activities.events import EventKind, RunEvent
from mulligan.activities.images.store import ImageStore
from mulligan.activities.inventory import Inventory
from mulligan.activities.seal import Keyring
from mulligan.activities.site import Site
from mulligan.activities.story import StoryFold, fold
from mulligan.activities.translate import ErrorInterceptor
from mulligan.activities.values import (
    Deadlines,
    Image,
    ImageFormat,
    MachineRequest,
    MachineState,
    Resources,
    Target,
    VerifyLevel,
)
from mulligan.api.config import Settings
from mulligan.api.fairness import turn_of
from mulligan.api.processes.sandbox import workflow_runner
from mulligan.api.processes.worker import partition_worker
from mulligan.api.reclaim import Reaper
from mulligan.api.search import register
from mulligan.api.temporal import connect
from mulligan.workflows import all_workflows, runs, search

IMAGE = Image("demo", "simulated:demo", "sha256:" + "0" * 64, ImageFormat.RAW, virtual_size_bytes=2**30, login="demo")
SMALL = Resources(1, 512, 2)
QUICK = Deadlines(
    claim_seconds=20, image_seconds=20, boot_seconds=20, verify_seconds=20, run_seconds=60, undo_seconds=8
)

_numbers = itertools.count(1)


@dataclass
class Stack:
    """What a test needs to make machines and to look behind the scenes."""

    client: Client
    inventory: Inventory
    site: Site
    boot_port: int
    directory: Path
    reaper: Reaper

    async def hosts(self, count: int = 1, **settings: str) -> tuple[str, list[Target]]:
        """Register a fleet of its own for the calling test; returns (project, hosts)."""
        name = f"t{next(_numbers)}"
        targets = []
        for number in range(count):
            query = "&".join(f"{k}={v}" for k, v in ({"speed": "0"} | settings).items())
            target = Target(f"{name}-h{number}", "default", f"simulated://{name}/{name}-h{number}?{query}")
            targets.append(await self.enrol(target))
        return name, targets

    async def enrol(self, target: Target) -> Target:
        """Register one host, with a capability of its fleet's own, so that tests do not take each other's hosts."""
        driver = await open_simulated(target, self.site.drivers_dir)
        inspection = await driver.inspect(Deadline.after(10))
        await driver.close()
        fleet = target.name.split("-")[0]
        inspection = replace(inspection, capabilities=(*inspection.capabilities, f"fleet.{fleet}"))
        provider = self.inventory.put_provider(
            target.name, target.partition, target.url, target.credential, inspection, target.settings
        )
        return provider.target

    def request(self, project: str, name: str = "m", **values: Any) -> MachineRequest:
        """A request that only the project's own fleet can hold."""
        values = {"resources": SMALL, "deadlines": QUICK, "verify": VerifyLevel.GUEST, "mulligans": 0} | values
        return MachineRequest(project=project, name=name, image="demo", requires=(f"fleet.{project}",), **values)

    async def start(
        self, request: MachineRequest, lease_seconds: int = 900, image: Image = IMAGE
    ) -> WorkflowHandle[Any, runs.ProvisionOut]:
        """Start the run that makes it."""
        asked = runs.ProvisionIn(str(uuid.uuid4()), request, image, "f", lease_seconds)
        return await self.client.start_workflow(
            runs.PROVISION,
            asked,
            id=runs.provision_id(request.project, request.name),
            task_queue=CONTROL_QUEUE,
            result_type=runs.ProvisionOut,
            id_conflict_policy=WorkflowIDConflictPolicy.FAIL,
            search_attributes=search.started(
                project=request.project,
                machine=request.name,
                partition=request.partition,
                step="claim",
                image=image.name,
            ),
            priority=turn_of(request.project, request.priority),
        )

    async def enrol_with(self, target: Target, **settings: str) -> Target:
        """Give a registered host settings of the simulation, e.g. `personality=never-boots`."""
        generation = self.inventory.provider(target.name).generation
        return self.inventory.edit_provider(target.name, generation=generation, settings=settings).target

    async def release(self, project: str, name: str, *, forget: bool = False) -> WorkflowHandle[Any, Any]:
        """Start the run that takes a machine down."""
        machine = self.inventory.machine(project, name)
        claim = self.inventory.claim_by_id(machine.claim_id)
        target = self.inventory.provider(claim.provider).target
        asked = runs.ReleaseIn(machine.id, project, name, claim.id, target, machine.run_id, claim.fence, forget=forget)
        known = search.started(
            project=project, machine=name, partition=target.partition, provider=target.name, step="undo"
        )
        return await self.client.start_workflow(
            runs.RELEASE,
            asked,
            id=runs.release_id(project, name),
            task_queue=CONTROL_QUEUE,
            search_attributes=known,
            priority=turn_of(project),
        )

    async def is_waiting(self, handle: WorkflowHandle[Any, Any], reason: str) -> bool:
        """Whether an action of the run failed with this reason and will be tried again."""
        pending = (await handle.describe()).raw_description.pending_activities
        return any(p.last_failure.application_failure_info.type == reason for p in pending)

    async def has_finished(self, handle: WorkflowHandle[Any, Any], action: str) -> bool:
        """Whether this action of the run has ended well."""
        history = await handle.fetch_history()
        events = fold(iter(history.events))
        return any(e.action == action and e.kind is EventKind.ACTION_FINISHED for e in events)

    async def story_so_far(self, handle: WorkflowHandle[Any, Any]) -> list[RunEvent]:
        """The run's events until now."""
        return fold(iter((await handle.fetch_history()).events))

    async def another_host(self, fleet: str) -> Target:
        """One more host, without faults, for a fleet that is there."""
        name = f"{fleet}-h{next(_numbers)}"
        return await self.enrol(Target(name, "default", f"simulated://{fleet}/{name}?speed=0"))

    async def machine_is(self, project: str, name: str, state: MachineState) -> bool:
        """Whether the machine is in this state."""
        try:
            return self.inventory.machine(project, name).state is state
        except NotFound:
            return False

    async def story(self, handle: WorkflowHandle[Any, Any]) -> list[RunEvent]:
        """The run's events, to its end."""
        fold, events = StoryFold(), []
        async for event in handle.fetch_history_events(wait_new_event=True):
            if (told := fold.feed(event)) is not None:
                events.append(told)
        return events


@asynccontextmanager
async def running_stack(address: str, directory: Path) -> AsyncIterator[Stack]:
    """Workers of both kinds and a boot server, against the Temporal server at `address`."""
    client = await connect(Settings(temporal=address, state_dir=directory))
    await register(client)
    inventory = Inventory.open(f"sqlite:///{directory / 'mulligan.sqlite'}")
    keyring = Keyring.load(directory / "secret.key")
    site = Site(
        ImageStore(directory / "cache", file_roots=(directory,)),
        keyring,
        directory / "drivers",
        lambda _: f"http://127.0.0.1:{port}",
        directory / "credentials.yaml",
    )
    boot = BootServer(keyring, RunListener(client), site.jobs)
    ((_, port),) = await boot.start([("127.0.0.1", 0)])
    control = Worker(
        client,
        task_queue=CONTROL_QUEUE,
        workflows=all_workflows(),
        activities=control_activities(inventory, client),
        interceptors=[ErrorInterceptor()],
        workflow_failure_exception_types=[Exception],
        workflow_runner=workflow_runner(),
    )
    async with control, partition_worker(client, "default", site):
        reaper = Reaper(inventory, client, lease_seconds=60)
        yield Stack(client, inventory, site, port, directory, reaper)
    await site.kept.close()
    await boot.stop()
    inventory.close()


def is_clean(stack: Stack, project: str) -> bool:
    """Whether nothing of the project is left: on its hosts, and in the database's claims and counters."""
    held = [c for c in stack.inventory.claims(project=project) if c.state != "released"]
    providers = [p for p in stack.inventory.providers() if p.name.startswith(f"{project}-")]
    used = [row for provider in providers for row in provider.inventory if row.used]
    return snapshot(stack.site.drivers_dir, project).clean and not held and not used


async def until(condition: Callable[[], Awaitable[bool]], within: float = 30.0, every: float = 0.05) -> None:
    """Wait for a condition, looking every 50 ms, or as said."""
    async with asyncio.timeout(within):
        while not await condition():  # noqa: ASYNC110 - the condition lies in other processes
            await asyncio.sleep(every)
