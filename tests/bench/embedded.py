"""The embedded stack under measurement: simulated hypervisors without delay, and a client that asks for machines."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import grpc
from temporalio.api.enums.v1 import EventType
from temporalio.client import Client

from mulligan.api.config import Settings
from mulligan.api.temporal import connect
from mulligan.v1 import machine_pb2, provisioning_pb2, run_pb2
from mulligan.v1.provisioning_pb2_grpc import ProvisioningServiceStub
from mulligan.workflows.runs import provision_id
from tests.bench.observed import TemporalCalls
from tests.e2e.deployment import Deployment

PROJECT = "bench"
IMAGE = "sim"
ROOMY = "vcpu=1000000&memory_mib=1000000000&disk_gib=1000000&speed=0"
_RUN_SECONDS = 300.0
_WORKFLOW_TASKS = "EVENT_TYPE_WORKFLOW_TASK_"


class Embedded:
    """A running stack, asked through its gRPC API."""

    def __init__(self, deployment: Deployment, client: Client, channel: grpc.aio.Channel) -> None:
        self.client = client
        self.api = ProvisioningServiceStub(channel)
        self.pids: dict[str, int] = deployment.state["children"]
        self.calls = TemporalCalls(client, self.pids["temporal"])
        self.address, self.state_dir = deployment.temporal, deployment.state_dir

    async def provision(self, name: str, provider: str = "", detach: bool = False) -> float:
        """Make a machine and follow its run to the end (or only start it); the seconds that it took."""
        began = time.perf_counter()
        update = run_pb2.RunUpdate()
        request = provisioning_pb2.ProvisionMachineRequest(spec=spec(name, provider), detach=detach)
        async for response in self.api.ProvisionMachine(request, timeout=_RUN_SECONDS):
            update = response.update
        if not detach and update.machine.state != machine_pb2.MACHINE_STATE_READY:
            raise AssertionError(f"machine {name} did not become ready: {update}")
        return time.perf_counter() - began

    async def history(self, name: str) -> list[Any]:
        """The events of the run that makes this machine, to its end."""
        handle = self.client.get_workflow_handle(provision_id(PROJECT, name))
        return [event async for event in handle.fetch_history_events(wait_new_event=True)]


def spec(name: str, provider: str = "") -> machine_pb2.MachineSpec:
    """A small machine, verified as far as a request that names no level is."""
    resources = machine_pb2.Resources(vcpu=1, memory_mib=512, disk_gib=2)
    return machine_pb2.MachineSpec(project=PROJECT, name=name, image=IMAGE, resources=resources, provider=provider)


def lasting(events: list[Any]) -> list[str]:
    """The types of a history's events but for those of workflow tasks, whose number depends on what came together."""
    names = [EventType.Name(event.event_type) for event in events]
    return [name for name in names if not name.startswith(_WORKFLOW_TASKS)]


@contextmanager
def running_stack(directory: Path, *hosts: str) -> Iterator[Deployment]:
    """Run an embedded stack with simulated hypervisors, each as `name?settings`, or two roomy ones."""
    with Deployment(directory) as deployment:
        deployment.up()
        deployment.add_simulated_image(IMAGE)
        for host in hosts or [f"host-{number}?{ROOMY}" for number in range(2)]:
            deployment.mulligan("provider", "add", host.partition("?")[0], f"simulated://bench/{host}")
        yield deployment


@asynccontextmanager
async def connected(deployment: Deployment) -> AsyncIterator[Embedded]:
    """Connect to a running stack."""
    settings = Settings(temporal=deployment.temporal)
    async with grpc.aio.insecure_channel(deployment.api) as channel:
        yield Embedded(deployment, await connect(settings), channel)
