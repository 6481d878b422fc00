"""Whole runs of live images on a server behind a BMC, asked for through the API: made, released, cancelled, failed.

Temporal, the workers, the API, the boot server and the driver are real; the server and its guest are played.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import re
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import pytest

from mulligan.activities.drivers.base import Deadline
from mulligan.activities.values import MachineState, Outcome, Target, VerifyLevel
from mulligan.v1 import machine_pb2, provisioning_pb2, run_pb2
from tests.api.serving import Api, everything, first, spec
from tests.bootserver.agent_parts import an_agent
from tests.drivers.bmc.machine import Machine, a_mac
from tests.drivers.bmc.parts import credentials_in
from tests.drivers.bmc.server import LyingBmc
from tests.images.live_parts import live_iso, live_kernel
from tests.metal.played import PlayedServer
from tests.services.temporal import running_temporal
from tests.workflows.stack import Stack, running_stack, until

_numbers = itertools.count(1)
POWER, GUEST = machine_pb2.VERIFY_LEVEL_POWER, machine_pb2.VERIFY_LEVEL_GUEST


@dataclass
class WithLiveGuest(PlayedServer):
    """A server whose live kernel calls home as its seed says, once it may."""

    may_call: asyncio.Event = field(default_factory=asyncio.Event)
    heard: list[int] = field(default_factory=list)
    """How each call was answered."""

    async def _boot(self) -> None:
        await super()._boot()
        found = re.search(rb"ds=nocloud-net;s=(http://\S+/)", self.live)
        if self.boots[-1] != "live" or found is None:
            return
        await self.may_call.wait()
        async with aiohttp.ClientSession() as session:
            async with session.get(f"{found.group(1).decode()}meta-data") as answer:
                said = dict(re.findall(r"^([a-z_-]+): '?([^'\n]+)", await answer.text(), re.MULTILINE))
            headers = {"Authorization": f"Bearer {said['mulligan_call_home_token']}"}
            body = {"hostname": "m", "status": "done", "addresses": ["127.0.0.1"]}
            async with session.post(said["mulligan_call_home_url"], json=body, headers=headers) as answer:
                self.heard.append(answer.status)


@pytest.fixture(scope="module")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    """Real Temporal, real workers, and two live images."""
    directory = tmp_path_factory.mktemp("stack")
    an_agent(directory / "agent")
    credentials_in(directory).rename(directory / "credentials.yaml")
    with running_temporal(directory / "temporal") as address:
        async with running_stack(address, directory) as running:
            running.inventory.add_image(live_iso(directory))
            running.inventory.add_image(live_kernel(directory, kernel_arguments="quiet"))
            yield running


@pytest.fixture(scope="module")
async def api(stack: Stack) -> AsyncIterator[Api]:
    """The API of that stack."""
    async with Api(stack) as running:
        yield running


@pytest.fixture
def bmc() -> Iterator[LyingBmc]:
    """A BMC with one machine."""
    with LyingBmc(Machine("1", mac=a_mac())).listening() as running:
        yield running


@pytest.fixture
async def server(bmc: LyingBmc, stack: Stack) -> AsyncIterator[WithLiveGuest]:
    """The server behind it, with somebody's data on its disk."""
    base, mac = f"http://127.0.0.1:{stack.boot_port}/v1/ipxe", bmc.machine.mac
    server = WithLiveGuest(bmc, disk=b"somebody's data", base=base, mac=mac)
    playing = asyncio.create_task(server.run())
    yield server
    playing.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await playing


async def enrolled(stack: Stack, server: WithLiveGuest, **settings: str) -> str:
    """The server registered under a name of its own, which is that of the project too."""
    name = f"live-{next(_numbers)}"
    target = Target(name, "default", f"{server.bmc.url}/redfish/v1/Systems/1", settings, "rack")
    async with stack.site.driver(target) as driver:
        found = await driver.inspect(Deadline.after(30))
    assert {"boot.live", "boot.live-iso"} <= set(found.capabilities)
    stack.inventory.put_provider(name, "default", target.url, "rack", found, {**found.settings, **settings})
    return name


def asked(name: str, image: str, verify: Any, **said: Any) -> machine_pb2.MachineSpec:
    """A machine on that server; its disk need not be spoken of."""
    resources = machine_pb2.Resources(vcpu=1, memory_mib=512)
    deadlines = machine_pb2.Deadlines(claim_seconds=60, boot_seconds=120, verify_seconds=120, undo_seconds=60)
    given = {"resources": resources, "deadlines": deadlines, "mulligans": 0} | said
    return spec(name, image=image, provider=name, verify=verify, requires=[], **given)


def is_as_before(stack: Stack, server: WithLiveGuest, name: str) -> bool:
    """Off, nothing on its BMC, nothing claimed of it, its disk as it was, and free for the next."""
    machine, provider = server.bmc.machine, stack.inventory.provider(name)
    at_rest = (machine.power, machine.image, machine.enabled) == ("Off", "", "Disabled")
    free = not provider.dirty and not any(row.used for row in provider.inventory) and not provider.quarantined
    return at_rest and free and server.disk == b"somebody's data" and "agent" not in server.boots


async def test_a_kernel_calls_home_and_its_release_erases_nothing(
    api: Api, stack: Stack, server: WithLiveGuest
) -> None:
    """From the network; what was read and who called are the evidence."""
    name = await enrolled(stack, server, boot_from="network", macs=server.mac)
    server.may_call.set()
    await everything(api.provision(asked(name, "diskless", GUEST)))
    machine = stack.inventory.machine(name, "m")
    assert (machine.state, server.heard) == (MachineState.READY, [204])
    assert [each.source for each in machine.evidence] == ["boot-server", "power", "call-home"]
    assert server.bmc.machine.enabled == "Continuous"
    await everything(api.release(name))
    assert stack.inventory.machine(name, "m").state is MachineState.RELEASED
    assert is_as_before(stack, server, name)


async def test_an_iso_is_proved_as_far_as_it_can_be(api: Api, stack: Stack, server: WithLiveGuest) -> None:
    """Power, and that the medium was read; more cannot be claimed on a server, which says what it lacks."""
    name = await enrolled(stack, server)
    more = machine_pb2.VERIFY_LEVEL_ADDRESS
    planned = (
        await api.provisioning.PlanMachine(provisioning_pb2.PlanMachineRequest(spec=asked(name, "rescue", more)))
    ).plan
    (miss,) = [each for each in planned.explanation.near_misses if each.provider == name]
    assert (planned.provider, list(miss.failing)) == ("", ["requires.console.serial"])
    await everything(api.provision(asked(name, "rescue", POWER)))
    machine = stack.inventory.machine(name, "m")
    assert {each.level for each in machine.evidence} == {VerifyLevel.POWER}
    assert "bytes of the medium were read" in machine.evidence[0].observed
    await everything(api.release(name))
    assert is_as_before(stack, server, name)


async def test_disks_are_erased_after_a_live_machine_when_that_is_asked_for(
    api: Api, stack: Stack, server: WithLiveGuest
) -> None:
    """An installer may have written them."""
    name = await enrolled(stack, server)
    await everything(api.provision(asked(name, "rescue", POWER)))
    await everything(api.release(name, erase=machine_pb2.ERASE_MODE_METADATA))
    assert (server.disk, server.boots) == (b"", ["live", "agent"])


async def test_a_cancelled_live_boot_leaves_nothing(api: Api, stack: Stack, server: WithLiveGuest) -> None:
    """While its guest's call is awaited."""
    name = await enrolled(stack, server, boot_from="network", macs=server.mac)
    await first(api.provision(asked(name, "diskless", GUEST), detach=True))
    handle = stack.client.get_workflow_handle(f"provision:{name}:m")
    await until(lambda: stack.has_finished(handle, "boot"), 120)
    await handle.cancel()
    story = await stack.story(handle)
    assert story[-1].outcome is Outcome.CANCELLED
    assert is_as_before(stack, server, name)


async def test_a_live_boot_that_nobody_reads_fails_and_leaves_nothing(
    api: Api, stack: Stack, server: WithLiveGuest
) -> None:
    """It is said what was last seen; nothing is erased by the undo."""
    server.dead = True
    name = await enrolled(stack, server)
    deadlines = machine_pb2.Deadlines(claim_seconds=60, boot_seconds=12, undo_seconds=60)
    told = await everything(api.provision(asked(name, "rescue", POWER, deadlines=deadlines)))
    (run,) = [each.update.run for each in told if each.update.run.outcome == run_pb2.RUN_OUTCOME_FAILED]
    assert "nothing was fetched yet" in run.reason
    assert is_as_before(stack, server, name)
