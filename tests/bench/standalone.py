"""A standalone Ironic as the peer of orchestration: its all-in-one service, fake hardware without delay, SQLite.

It is asked as its own clients ask: a node is told to become active, a refusal that asks for patience is tried again,
and the states of all nodes are read in one call until each is active or failed.
"""

from __future__ import annotations

import asyncio
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from tests.bench.peers import IRONIC, NoPeerError, tied

_START_SECONDS = 180.0
_DEPLOY_SECONDS = 240.0
_POLL_SECONDS = 0.05
_GENTLY = 8
_PATIENCE = (409, 503)
"""A node that is locked, a conductor without a free worker."""
_VERSION = {"X-OpenStack-Ironic-API-Version": "1.90"}
_FAKED = ["bios", "boot", "console", "deploy", "firmware", "inspect", "management", "power", "raid", "rescue", "vendor"]
_CONFIGURATION = """\
[DEFAULT]
auth_strategy = noauth
rpc_transport = none
host = bench
log_file = {directory}/ironic.log
enabled_hardware_types = fake-hardware
{interfaces}
enabled_storage_interfaces = fake,noop
enabled_network_interfaces = noop
default_network_interface = noop
[api]
host_ip = 127.0.0.1
port = {port}
[conductor]
automated_clean = false
[database]
connection = sqlite:///{directory}/ironic.db
[dhcp]
dhcp_provider = none
"""


@dataclass(frozen=True, slots=True)
class Deployed:
    """What came of deployments that were asked for at once."""

    active: int
    seconds: float
    """From the first request until the last node was active or failed, or until time ran out."""
    errors: tuple[str, ...]
    """What was said of those that did not become active."""


class Ironic:
    """A running Ironic, asked through its API."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    async def enrol(self, names: list[str]) -> None:
        """Register nodes and make them available, a few at a time."""
        for name in names:
            async with self._session.post("/v1/nodes", json={"driver": "fake-hardware", "name": name}) as answer:
                answer.raise_for_status()
        for target, state in (("manage", "manageable"), ("provide", "available")):
            for start in range(0, len(names), _GENTLY):
                some = names[start : start + _GENTLY]
                refused = [
                    said for said in await asyncio.gather(*(self._become(name, target) for name in some)) if said
                ]
                states = await self._wait(some, {state})
                if refused or any(reached != state for reached, _ in states.values()):
                    raise NoPeerError(f"{IRONIC} could not {target} nodes: {refused} {states}")

    async def deploy(self, names: list[str]) -> Deployed:
        """Deploy available nodes, all at once."""
        began = time.perf_counter()
        refused = [said for said in await asyncio.gather(*(self._become(name, "active") for name in names)) if said]
        states = await self._wait(names, {"active", "deploy failed", "error"}, refused=len(refused))
        seconds = time.perf_counter() - began
        left = [f"{state}: {error}" for state, error in states.values() if state != "active"]
        return Deployed(sum(state == "active" for state, _ in states.values()), seconds, (*refused, *left))

    async def _become(self, name: str, target: str) -> str:
        """Ask a node to become so; gives what was said when it was refused for good."""
        path, end = f"/v1/nodes/{name}/states/provision", time.monotonic() + _DEPLOY_SECONDS
        while True:
            try:
                async with self._session.put(path, json={"target": target}) as answer:
                    if answer.status < 400:
                        return ""
                    said = f"{answer.status} {(await answer.text())[:200]}"
                    if answer.status not in _PATIENCE or time.monotonic() > end:
                        return said
            except (aiohttp.ClientError, TimeoutError) as error:
                return f"{type(error).__name__}: {error}"
            await asyncio.sleep(_POLL_SECONDS)

    async def _wait(self, names: list[str], wanted: set[str], refused: int = 0) -> dict[str, tuple[str, str]]:
        """Until all but those that were refused are in a wanted state, or time runs out; state and error by name."""
        end, asked = time.monotonic() + _DEPLOY_SECONDS, set(names)
        while True:
            states = {name: said for name, said in (await self._states()).items() if name in asked}
            there = sum(state in wanted for state, _ in states.values())
            if there >= len(asked) - refused or time.monotonic() > end:
                return states
            await asyncio.sleep(_POLL_SECONDS)

    async def _states(self) -> dict[str, tuple[str, str]]:
        async with self._session.get("/v1/nodes?fields=name,provision_state,last_error") as answer:
            if answer.status >= 400:
                return {}
            nodes = (await answer.json())["nodes"]
        return {node["name"]: (node["provision_state"], node["last_error"] or "") for node in nodes}


@contextmanager
def running_ironic(directory: Path) -> Iterator[str]:
    """Run a standalone Ironic on a free port; gives its address. Raises `NoPeerError`."""
    programs = IRONIC.environment() / "bin"
    directory.mkdir()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    interfaces = "\n".join(f"enabled_{name}_interfaces = fake" for name in _FAKED)
    configuration = directory / "ironic.conf"
    configuration.write_text(_CONFIGURATION.format(directory=directory, port=port, interfaces=interfaces))
    given = ["--config-file", str(configuration)]
    sync = [str(programs / "ironic-dbsync"), *given, "create_schema"]
    made = subprocess.run(sync, capture_output=True, text=True, check=False, timeout=_START_SECONDS)
    if made.returncode:
        raise NoPeerError(f"{IRONIC} could not make its tables: {made.stderr[-500:]}")
    with (directory / "output.log").open("w") as log, tied([str(programs / "ironic"), *given], output=log):
        yield f"http://127.0.0.1:{port}"


@asynccontextmanager
async def connected_ironic(address: str) -> AsyncIterator[Ironic]:
    """Connect to a running Ironic, once it answers."""
    connector = aiohttp.TCPConnector(limit=50)
    async with aiohttp.ClientSession(address, headers=_VERSION, connector=connector) as session:
        end = time.monotonic() + _START_SECONDS
        while True:
            try:
                async with session.get("/v1/drivers") as answer:
                    if answer.status < 400 and (await answer.json())["drivers"]:
                        break
            except aiohttp.ClientError:
                pass  # it does not listen yet
            if time.monotonic() > end:
                raise NoPeerError(f"{IRONIC} did not answer within {_START_SECONDS:.0f} seconds")
            await asyncio.sleep(_POLL_SECONDS)
        yield Ironic(session)
