"""A partition worker's surroundings on a real boot server, and a server behind a real, lying BMC."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from temporalio.testing import ActivityEnvironment

from mulligan.activities import calls
from mulligan.activities.bootserver.server import BootServer
from mulligan.activities.deploy import DeployActivities
from mulligan.activities.erase import EraseActivities
from mulligan.activities.images.store import ImageStore
from mulligan.activities.patience import Patience
from mulligan.activities.seal import Keyring
from mulligan.activities.site import Site
from mulligan.activities.values import (
    CallHome,
    Erase,
    Image,
    ImageFormat,
    MachineRequest,
    Mark,
    Resources,
    RootDisk,
    Target,
)
from tests.bootserver.agent_parts import an_agent
from tests.drivers.bmc.machine import Machine
from tests.drivers.bmc.parts import credentials_in
from tests.drivers.bmc.server import LyingBmc
from tests.metal.played import PlayedServer
from tests.services.temporal import free_port

CONTENT = bytes(range(256)) * 4096
IMAGE = Image(
    "demo", "", f"sha256:{hashlib.sha256(CONTENT).hexdigest()}", ImageFormat.RAW, virtual_size_bytes=len(CONTENT)
)
MARK = Mark("shop", "web-1", "m-1", "run-1", 1)
PATIENT = Patience(comes=60.0, silence=60.0, order_seconds=20.0, look_seconds=0.02)


class Nobody:
    """Takes no call home: no guest runs here."""

    async def on_call_home(self, permit: object, call: CallHome) -> bool:
        return False


@dataclass
class Lab:
    """What a test of deploying and erasing needs."""

    directory: Path
    bmc: LyingBmc
    server: PlayedServer
    port: int
    keyring: Keyring
    boot_server: BootServer | None = None

    def site(self) -> Site:
        """The surroundings of a worker that has just begun: nothing is remembered but on the disk."""
        return Site(
            ImageStore(self.directory / "cache", file_roots=(self.directory,)),
            self.keyring,
            self.directory / "drivers",
            lambda _: f"http://127.0.0.1:{self.port}",
            credentials_in(self.directory),
        )

    def target(self, **settings: str) -> Target:
        """The server as a provider."""
        return Target("srv-1", "default", f"{self.bmc.url}/redfish/v1/Systems/1", settings, "rack")

    async def listen(self) -> None:
        """Begin to serve, on the port that is always the same."""
        self.boot_server = BootServer(self.keyring, Nobody(), self.site().jobs)
        await self.boot_server.start([("127.0.0.1", self.port)])

    async def stop_listening(self) -> None:
        """As a worker that was killed."""
        if self.boot_server is not None:
            await self.boot_server.stop()

    def deploying(self, **said: Any) -> calls.DisksIn:
        """What the workflow asks for. Settings of the provider go by `settings`."""
        settings, root_disk = said.pop("settings", {}), said.pop("root_disk", RootDisk())
        request = MachineRequest("shop", "web-1", "demo", Resources(1, 512, 1), root_disk=root_disk)
        image = said.pop("image", replace(IMAGE, source=(self.directory / "demo.img").as_uri()))
        return calls.DisksIn(
            self.target(**settings), said.pop("mark", MARK), image, request, "provision:shop:web-1", 1, 600
        )

    def erasing(self, mode: Erase = Erase.METADATA, **said: Any) -> calls.EraseIn:
        """What the workflow asks for."""
        return calls.EraseIn(self.target(), MARK, mode, RootDisk(), "release:shop:web-1", 600, **said)

    async def deploy(self, asked: calls.DisksIn | None = None, patience: Patience = PATIENT) -> calls.Deployed:
        """One attempt of the activity, in a worker of its own."""
        site = self.site()
        try:
            return await an_environment().run(DeployActivities(site, patience).deploy, asked or self.deploying())
        finally:
            await site.kept.close()

    async def erase(
        self, asked: calls.EraseIn | None = None, patience: Patience = PATIENT, release: str = ""
    ) -> calls.Done:
        """One attempt of the activity, in a worker of its own; of another execution where `release` says so."""
        site, environment = self.site(), an_environment()
        if release:
            environment.info = replace(environment.info, workflow_run_id=release)
        try:
            return await environment.run(EraseActivities(site, patience).erase, asked or self.erasing())
        finally:
            await site.kept.close()

    async def boots_from_network(self) -> str:
        """What the server boots when its firmware asks the network by habit, without a word to its BMC."""
        before = len(self.server.boots)
        with self.bmc.lock:
            self.bmc.machine.target, self.bmc.machine.enabled, self.bmc.machine.power = "Pxe", "Once", "On"
        await until(lambda: len(self.server.boots) > before)
        return self.server.boots[-1]

    def is_at_rest(self) -> bool:
        """Off, nothing in a drive, no override."""
        machine = self.bmc.machine
        return (machine.power, machine.image, machine.enabled) == ("Off", "", "Disabled")


async def until(condition: Callable[[], bool], within: float = 30.0) -> None:
    """Wait for a condition, looking every 20 ms."""
    async with asyncio.timeout(within):
        while not condition():  # noqa: ASYNC110 - the condition lies in files and in other threads
            await asyncio.sleep(0.02)


def an_environment(said: Callable[..., None] = lambda *_: None) -> ActivityEnvironment:
    """An attempt that may take its time; `said` gets its heartbeats."""
    environment = ActivityEnvironment()
    environment.info = replace(environment.info, start_to_close_timeout=timedelta(minutes=5))
    environment.on_heartbeat = said
    return environment


@pytest.fixture
def bmc() -> Iterator[LyingBmc]:
    """A BMC with one machine."""
    with LyingBmc(Machine("1")).listening() as running:
        yield running


@pytest.fixture
async def lab(bmc: LyingBmc, tmp_path: Path) -> AsyncIterator[Lab]:
    """A server, a boot server, a built agent, and an image."""
    (tmp_path / "demo.img").write_bytes(CONTENT)
    an_agent(tmp_path / "agent")
    server = PlayedServer(bmc)
    lab = Lab(tmp_path, bmc, server, free_port(), Keyring.load(tmp_path / "secret.key"))
    server.base = f"http://127.0.0.1:{lab.port}/v1/ipxe"
    await lab.listen()
    playing = asyncio.create_task(server.run())
    yield lab
    playing.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await playing
    await lab.stop_listening()
