"""Whole runs on a server behind a BMC: the guest on its disk calls home, and tells which disk it came up from.

Temporal, the workers, the boot server and the driver are real; the server, its agent and its guest are played.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import re
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import aiohttp
import pytest
from temporalio.client import WorkflowFailureError, WorkflowHandle

from mulligan.activities.calls import BY_AGENT, TELLS_PROGRESS
from mulligan.activities.drivers import logins
from mulligan.activities.drivers.base import Deadline
from mulligan.activities.events import EventKind
from mulligan.activities.levers import LeverKind
from mulligan.activities.values import (
    Deadlines,
    Evidence,
    MachineRequest,
    MachineState,
    OnFailure,
    Outcome,
    Resources,
    Target,
    VerifyLevel,
)
from mulligan.api.progress import awaited, progress_of
from tests.bootserver.agent_parts import DISK, an_agent
from tests.drivers.bmc.machine import Machine, a_mac
from tests.drivers.bmc.parts import credentials_in
from tests.drivers.bmc.server import LyingBmc
from tests.metal.conftest import CONTENT, IMAGE
from tests.metal.played import PlayedServer
from tests.services.temporal import running_temporal
from tests.workflows.stack import Stack, running_stack, until
from tests.workflows.steer import pull

WITHIN = Deadlines(
    claim_seconds=60, image_seconds=120, boot_seconds=120, verify_seconds=120, run_seconds=400, undo_seconds=60
)
MINE = {"mount": "/", **DISK, "path": "/dev/sdb"}
OTHER = {"mount": "/", "path": "/dev/sda", "serial": "OLD-7", "wwn": "0x5000c500ffffffff", "size_bytes": 10**12}
_numbers = itertools.count(1)


@dataclass
class WithGuest(PlayedServer):
    """A server on whose disk a guest comes up: it finds the seed, and calls home once it may."""

    tells: list[dict[str, Any]] = field(default_factory=lambda: [MINE])
    """What its guest says of disks."""
    may_call: asyncio.Event = field(default_factory=asyncio.Event)

    async def _boot(self) -> None:
        await super()._boot()
        if self.boots[-1] == "disk" and self.seed:
            self.progresses("OSBootStarted")
            await self.may_call.wait()
            await self.call_home()

    def progresses(self, state: str) -> None:
        """The BMC says this of the boot, where it says anything."""
        with self.bmc.lock:
            if self.bmc.machine.progress:
                self.bmc.machine.progress = {"LastState": state, "LastStateTime": datetime.now(UTC).isoformat()}

    async def call_home(self) -> None:
        """As the script in the seed does."""
        url, token = (_in_seed(self.seed, f"mulligan_call_home_{name}") for name in ("url", "token"))
        body = {"hostname": "m", "status": "done", "addresses": ["127.0.0.1"], "disks": self.tells}
        headers = {"Authorization": f"Bearer {token}"}
        async with aiohttp.ClientSession() as session, session.post(url, json=body, headers=headers) as answer:
            assert answer.status == 204, await answer.text()


def _in_seed(seed: bytes, name: str) -> str:
    found = re.search(rf"{name}: '?([^\s']+)".encode(), seed)
    assert found is not None
    return found.group(1).decode()


@pytest.fixture(scope="module")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    """Real Temporal, real workers, a boot server that serves the deploy agent."""
    directory = tmp_path_factory.mktemp("stack")
    (directory / "demo.img").write_bytes(CONTENT)
    an_agent(directory / "agent")
    credentials_in(directory).rename(directory / "credentials.yaml")
    with running_temporal(directory / "temporal") as address:
        async with running_stack(address, directory) as running:
            yield running


@pytest.fixture(params=[{"LastState": "None"}], ids=["tells-progress"])
def bmc(request: pytest.FixtureRequest) -> Iterator[LyingBmc]:
    """A BMC that says how far a boot came."""
    with LyingBmc(Machine("1", mac=a_mac(), progress=dict(request.param))).listening() as running:
        yield running


@pytest.fixture
async def server(bmc: LyingBmc) -> AsyncIterator[WithGuest]:
    """The server behind it."""
    server = WithGuest(bmc)
    playing = asyncio.create_task(server.run())
    yield server
    playing.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await playing


async def begun(stack: Stack, server: WithGuest, **said: Any) -> tuple[str, WorkflowHandle[Any, Any]]:
    """The server registered under a name of its own, and the run that makes a machine of it."""
    name = f"metal-{next(_numbers)}"
    target = Target(name, "default", f"{server.bmc.url}/redfish/v1/Systems/1", {}, "rack")
    async with stack.site.driver(target) as driver:
        inspection = await driver.inspect(Deadline.after(30))
    assert BY_AGENT in inspection.capabilities
    assert (TELLS_PROGRESS in inspection.capabilities) == bool(server.bmc.machine.progress)
    stack.inventory.put_provider(name, "default", target.url, "rack", inspection, inspection.settings)
    given = {"verify": VerifyLevel.GUEST, "deadlines": WITHIN, "mulligans": 0, **said}
    request = MachineRequest(name, "m", "demo", Resources(1, 512, 1), provider=name, **given)
    image = replace(IMAGE, source=(stack.directory / "demo.img").as_uri())
    return name, await stack.start(request, image=image)


async def ended(handle: WorkflowHandle[Any, Any]) -> str:
    """Why it failed."""
    with pytest.raises(WorkflowFailureError) as failed:
        await handle.result()
    return str(failed.value.cause)


def seen(evidence: tuple[Evidence, ...], source: str) -> list[str]:
    """What was seen there."""
    return [each.observed for each in evidence if each.source == source]


async def test_a_server_is_proved_to_run_from_the_disk_that_was_written(stack: Stack, server: WithGuest) -> None:
    """While its call home is awaited, its BMC says how far it came; both are evidence, and what is awaited is told."""
    project, handle = await begun(stack, server)

    async def is_told() -> bool:
        told = list(progress_of(await handle.describe()))
        return any("awaiting the guest's call home; its BMC says OSBootStarted since" in each.message for each in told)

    await until(is_told, 120)
    waits = awaited(await stack.story_so_far(handle))
    assert waits is not None and "the guest's call home" in waits.message
    server.progresses("OSRunning")
    server.may_call.set()
    made = await handle.result()
    wrote = "ST4000, serial S-1, 4000 GB"
    assert seen(made.evidence, "disk") == [f"booted from {wrote} (/dev/sdb), which was written by this run"]
    assert seen(made.evidence, "boot-progress")[0].startswith("its BMC says OS")
    assert [each.level for each in made.evidence if each.level] == [VerifyLevel.POWER, VerifyLevel.GUEST]
    assert made.said.endswith("called home from 127.0.0.1: done")
    machine = stack.inventory.machine(project, "m")
    assert (machine.state, machine.evidence) == (MachineState.READY, made.evidence)
    (heard,) = [each for each in await stack.story(handle) if each.kind is EventKind.CALLED_HOME]
    assert seen(heard.evidence, "disk") == seen(made.evidence, "disk")


@pytest.mark.parametrize("bmc", [{}], indirect=True, ids=["tells-no-progress"])
async def test_where_it_cannot_be_told_the_evidence_says_so(stack: Stack, server: WithGuest) -> None:
    """The guest knows nothing of its disks, the BMC nothing of boots: that one is not asked, and the run goes on."""
    server.tells = []
    server.may_call.set()
    _, handle = await begun(stack, server)
    made = await handle.result()
    (told,) = seen(made.evidence, "disk")
    assert told.startswith("which disk it booted from was not told; its seed is on the one that was written, ST4000")
    assert {"watch-boot"} & {each.action for each in await stack.story(handle)} == set()


async def test_an_old_system_on_another_disk_is_not_taken_for_the_machine(stack: Stack, server: WithGuest) -> None:
    """It found this run's seed and calls with this run's token; the run fails with both disks, and undoes all."""
    server.tells = [OTHER]
    server.may_call.set()
    project, handle = await begun(stack, server)
    said = await ended(handle)
    assert "m came up from a disk, serial OLD-7, 1000 GB (/dev/sda), and not from the disk that was written" in said
    assert "ST4000, serial S-1" in said
    last = (await stack.story(handle))[-1]
    assert (last.outcome, last.reason) == (Outcome.FAILED, "WRONG_DISK")
    assert server.disk == b""
    assert not [each for each in stack.inventory.claims(project=project) if each.state != "released"]
    machine = server.bmc.machine
    assert (machine.power, machine.image, machine.enabled) == ("Off", "", "Disabled")


async def test_a_held_machine_may_call_again_from_its_own_disk(stack: Stack, server: WithGuest) -> None:
    """Somebody put the boot order right, and lets the run go on with the step that failed."""
    server.tells = [OTHER]
    server.may_call.set()
    project, handle = await begun(stack, server, on_failure=OnFailure.HOLD)
    await until(lambda: stack.machine_is(project, "m", MachineState.HELD), 120)
    server.tells = [MINE]
    await pull(handle, LeverKind.RESUME)
    await until(lambda: _awaits_a_call(stack, handle), 120)
    await server.call_home()
    made = await handle.result()
    assert seen(made.evidence, "disk")[0].endswith("which was written by this run")


async def _awaits_a_call(stack: Stack, handle: WorkflowHandle[Any, Any]) -> bool:
    return awaited(await stack.story_so_far(handle)) is not None


async def test_a_cancel_ends_the_watch_of_the_boot_too(stack: Stack, server: WithGuest) -> None:
    """While the call home is awaited; everything is undone."""
    project, handle = await begun(stack, server)
    await until(lambda: _awaits_a_call(stack, handle), 120)
    await handle.cancel()
    await ended(handle)
    story = await stack.story(handle)
    assert story[-1].outcome is Outcome.CANCELLED
    undone = [each.action for each in story if each.step == "undo" and each.kind is EventKind.ACTION_FINISHED]
    assert undone == ["tear-down", "erase", "release-claim"]
    assert not [each for each in stack.inventory.claims(project=project) if each.state != "released"]


async def test_a_run_whose_bmc_lets_nobody_in_any_more_goes_on(
    stack: Stack, server: WithGuest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That it cannot be asked how far the boot came is told, and fails nothing: the guest calls home all the same."""
    monkeypatch.setattr(logins, "REFUSED_SECONDS", (0.1, 0.1))
    project, handle = await begun(stack, server)
    await until(lambda: _awaits_a_call(stack, handle), 120)
    with server.bmc.lock:
        server.bmc.lies.refuses_session = 1_000_000

    async def has_failed() -> bool:
        story = await stack.story_so_far(handle)
        return ("watch-boot", EventKind.ACTION_FAILED) in [(each.action, each.kind) for each in story]

    await until(has_failed, 120)
    server.may_call.set()
    made = await handle.result()
    assert seen(made.evidence, "disk")[0].endswith("which was written by this run")
    assert await stack.machine_is(project, "m", MachineState.READY)


async def test_a_guest_that_never_calls_is_said_to_have_come_so_far(stack: Stack, server: WithGuest) -> None:
    """In the error, with when the BMC said so."""
    _, handle = await begun(stack, server, deadlines=replace(WITHIN, verify_seconds=8))
    said = await ended(handle)
    assert re.search(
        r"verify was not done within 8 s; it was awaiting the guest's call home \([^)]+\); last: its BMC says "
        "OSBootStarted since 20",
        said,
    )
