"""More requests than machines, all at once, through the API: each is served or told why not, and nothing is lost."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator

import grpc
import pytest

from mulligan.activities.drivers.simulated import snapshot
from mulligan.v1 import inventory_pb2, inventory_pb2_grpc, machine_pb2, provisioning_pb2, provisioning_pb2_grpc, run_pb2
from tests.e2e.deployment import Deployment

HOSTS, REQUESTS, FLEET = 100, 200, "many"

pytestmark = pytest.mark.timeout(400)


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """An embedded stack with an image."""
    with Deployment(tmp_path_factory.mktemp("many")) as running:
        running.up()
        running.add_simulated_image()
        yield running


async def add_hosts(channel: grpc.aio.Channel) -> None:
    """Register the servers, each given whole, a few at a time."""
    stub, at_once = inventory_pb2_grpc.InventoryServiceStub(channel), asyncio.Semaphore(10)

    async def add(number: int) -> None:
        url = f"simulated://{FLEET}/{FLEET}-{number}?kind=bare-metal&vcpu=8&memory_mib=8192&disk_gib=100&speed=0"
        async with at_once:
            request = inventory_pb2.AddProviderRequest(name=f"{FLEET}-{number}", url=url)
            await stub.AddProvider(request, timeout=120)

    await asyncio.gather(*(add(number) for number in range(HOSTS)))


async def provision(channel: grpc.aio.Channel, number: int) -> list[run_pb2.RunUpdate]:
    """Ask for one machine, and hear the run out."""
    spec = machine_pb2.MachineSpec(
        name=f"m-{number}",
        image="sim",
        kind=machine_pb2.MACHINE_KIND_BARE_METAL,
        resources=machine_pb2.Resources(vcpu=1, memory_mib=512, disk_gib=2),
        verify=machine_pb2.VERIFY_LEVEL_GUEST,
    )
    stub = provisioning_pb2_grpc.ProvisioningServiceStub(channel)
    stream = stub.ProvisionMachine(provisioning_pb2.ProvisionMachineRequest(spec=spec), timeout=300)
    return [response.update async for response in stream]


def test_200_requests_for_100_servers_give_100_machines_and_100_explanations(deployment: Deployment) -> None:
    """Exactly that: no server twice, none unused, no request without its answer; and all of it can be given back."""

    async def ask() -> list[list[run_pb2.RunUpdate]]:
        async with grpc.aio.insecure_channel(deployment.api) as channel:
            await add_hosts(channel)
            return await asyncio.gather(*(provision(channel, number) for number in range(REQUESTS)))

    stories = asyncio.run(ask())
    outcomes = Counter(story[-2].run.outcome for story in stories)
    assert outcomes == {run_pb2.RUN_OUTCOME_READY: HOSTS, run_pb2.RUN_OUTCOME_FAILED: REQUESTS - HOSTS}
    providers = [story[-1].machine.provider for story in stories if story[-2].run.outcome == run_pb2.RUN_OUTCOME_READY]
    assert len(set(providers)) == HOSTS
    explained = [u.event.explanation for story in stories for u in story if u.event.HasField("explanation")]
    assert len(explained) == REQUESTS - HOSTS
    assert {e.verdict for e in explained} == {inventory_pb2.Explanation.VERDICT_NOT_NOW}
    assert all(e.funnel and e.summary for e in explained)
    inventory = deployment.inventory()
    assert len(inventory.claims()) == HOSTS
    assert not inventory.audit()
    inventory.close()
    assert len(snapshot(deployment.state_dir / "drivers", FLEET).powered_on) == HOSTS
