"""Whose turn it is: one project's many runs do not starve another's one, and urgent runs go first."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from temporalio.client import Client
from temporalio.common import Priority
from temporalio.worker import Worker

from mulligan.activities.calls import CONTROL_QUEUE, partition_queue
from mulligan.activities.control import control_activities
from mulligan.activities.drivers.base import Deadline
from mulligan.activities.drivers.simulated import open_simulated
from mulligan.activities.images.store import ImageStore
from mulligan.activities.inventory import Inventory
from mulligan.activities.partition import partition_activities
from mulligan.activities.seal import Keyring
from mulligan.activities.site import Site
from mulligan.activities.translate import ErrorInterceptor
from mulligan.activities.values import Inspection, InventoryRow, Kind, MachineRequest, Target, VerifyLevel
from mulligan.api import starts
from mulligan.api.bmcs import Bmcs
from mulligan.api.config import Settings
from mulligan.api.fairness import AT_A_PROMPT, HIGHEST
from mulligan.api.plans import Plans
from mulligan.api.processes.sandbox import workflow_runner
from mulligan.api.runs import Runs
from mulligan.api.search import register
from mulligan.api.starts import Provisions
from mulligan.api.temporal import connect
from mulligan.api.validate import NAME
from mulligan.workflows import all_workflows, runs
from tests.services.temporal import running_temporal
from tests.workflows.stack import IMAGE, QUICK, SMALL, Stack

MANY = 40
"""How many runs the busy project has waiting before the other one's only run is asked for."""


@dataclass
class Queued:
    """A Temporal and an inventory with one roomy host. Workers come later, so that runs queue up meanwhile."""

    client: Client
    inventory: Inventory
    site: Site
    waiting: list[str] = field(default_factory=list)
    """The ids of the runs that were started."""

    async def ask(self, project: str, name: str, priority: int = 3) -> None:
        """Start a run as the API does."""
        provisions = Provisions(self.client, self.inventory, Runs(self.client, self.inventory), lease_seconds=900)
        request = MachineRequest(
            project=project,
            name=name,
            image="demo",
            resources=SMALL,
            deadlines=QUICK,
            verify=VerifyLevel.POWER,
            mulligans=0,
            priority=priority,
        )
        self.waiting.append((await provisions.start(request, IMAGE)).workflow_id)

    async def in_order_of_their_end(self) -> list[str]:
        """Let workers with room for one action each do it all; the runs' ids, as they ended."""
        control = Worker(
            self.client,
            task_queue=CONTROL_QUEUE,
            workflows=all_workflows(),
            activities=control_activities(self.inventory, self.client),
            workflow_runner=workflow_runner(),
            interceptors=[ErrorInterceptor()],
            max_concurrent_workflow_tasks=2,
            max_concurrent_activities=1,
            workflow_failure_exception_types=[Exception],
        )
        partition = Worker(
            self.client,
            task_queue=partition_queue("default"),
            activities=partition_activities(self.site),
            interceptors=[ErrorInterceptor()],
            max_concurrent_activities=1,
        )
        handles = [self.client.get_workflow_handle(workflow_id) for workflow_id in self.waiting]
        async with control, partition:
            for handle in handles:
                await handle.result()
        ended = [await handle.describe() for handle in handles]
        return [run.id for run in sorted(ended, key=lambda run: run.close_time)]  # type: ignore[arg-type,return-value]


@asynccontextmanager
async def queued(directory: Path) -> AsyncIterator[Queued]:
    """Everything but workers."""
    with running_temporal(directory / "temporal") as address:
        client = await connect(Settings(temporal=address, state_dir=directory))
        await register(client)
        inventory = Inventory.open(f"sqlite:///{directory / 'mulligan.sqlite'}")
        site = Site(
            ImageStore(directory / "cache"),
            Keyring.load(directory / "secret.key"),
            directory / "drivers",
            lambda _: "http://127.0.0.1:1",
        )
        host = Target("h", "default", "simulated://fair/h?speed=0&vcpu=1000&memory_mib=1000000&disk_gib=10000")
        driver = await open_simulated(host, site.drivers_dir)
        inspection = await driver.inspect(Deadline.after(10))
        await driver.close()
        inventory.put_provider(host.name, host.partition, host.url, "", inspection, {})
        yield Queued(client, inventory, site)
        inventory.close()


async def place_of_the_lone_run(directory: Path) -> int:
    """How many runs ended before the only one of its project, which was asked for after all the others."""
    async with queued(directory) as stack:
        for number in range(MANY):
            await stack.ask("busy", f"m-{number}")
        await stack.ask("lone", "m")
        return (await stack.in_order_of_their_end()).index("provision:lone:m")


async def test_one_projects_many_runs_do_not_starve_anothers_one(tmp_path: Path) -> None:
    """Asked for last, it ends among the first: the workers' turns go round by project."""
    assert await place_of_the_lone_run(tmp_path) <= MANY // 4


async def test_without_a_fairness_key_the_lone_run_would_wait_for_all_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the test above would see if runs did not carry their project: first come, first served."""
    monkeypatch.setattr(starts, "turn_of", lambda _project, priority: Priority(priority_key=priority))
    assert await place_of_the_lone_run(tmp_path) >= MANY * 3 // 4


async def test_urgent_runs_go_first_and_patient_ones_last(tmp_path: Path) -> None:
    """Within one project, whatever the order in which they were asked for: the patient run, which came first and would
    end first, ends among the last three. Where only a few are left, one may pass another between two actions."""
    async with queued(tmp_path) as stack:
        await stack.ask("shop", "patient", priority=5)
        for number in range(MANY // 4):
            await stack.ask("shop", f"usual-{number}")
        await stack.ask("shop", "urgent", priority=1)
        ended = await stack.in_order_of_their_end()
    assert ended.index("provision:shop:urgent") <= 1
    assert ended.index("provision:shop:patient") >= len(ended) - 3


async def test_what_someone_waits_for_at_a_prompt_passes_all_runs(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many urgent runs wait for the partition's workers, a plan and a list of BMCs are answered in seconds."""
    monkeypatch.setattr(runs, "plan_id", lambda _: "plan:at-a-prompt")
    monkeypatch.setattr(runs, "bmcs_id", lambda _: "bmcs:at-a-prompt")
    project, _ = await stack.hosts()
    await Plans(stack.client, stack.inventory).make(stack.request(project), IMAGE)
    bmc = f"{project}-bmc"
    seen = Inspection(Kind.BARE_METAL, (InventoryRow("vcpu", 1),), ())
    stack.inventory.put_provider(bmc, "default", "ipmi://192.0.2.1", "", seen, {})
    assert await Bmcs(stack.client, stack.inventory).listed("", bmc, probe=False)
    stack.inventory.remove_provider(bmc)
    for workflow_id in ("plan:at-a-prompt", "bmcs:at-a-prompt"):
        history = await stack.client.get_workflow_handle(workflow_id).fetch_history()
        turn = history.events[0].workflow_execution_started_event_attributes.priority
        assert (turn.priority_key, turn.fairness_key) == (HIGHEST, AT_A_PROMPT.fairness_key)
        assert not NAME.fullmatch(turn.fairness_key), "a project may have this name"
