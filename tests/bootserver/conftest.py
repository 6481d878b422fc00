"""A real boot server on the loopback interface, and a listener that says what it is told to say."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from mulligan.activities.agent.image import AgentImage
from mulligan.activities.bootserver.jobs import Jobs
from mulligan.activities.bootserver.server import BootServer
from mulligan.activities.bootserver.tokens import Permit
from mulligan.activities.errors import MulliganError
from mulligan.activities.seal import Keyring
from mulligan.activities.values import CallHome
from tests.bootserver.agent_parts import an_agent


@dataclass
class Run:
    """A run that waits for calls home."""

    takes: bool = True
    error: MulliganError | None = None
    calls: list[tuple[Permit, CallHome]] = field(default_factory=list)

    async def on_call_home(self, permit: Permit, call: CallHome) -> bool:
        self.calls.append((permit, call))
        if self.error:
            raise self.error
        return self.takes


@pytest.fixture
def keyring() -> Keyring:
    """A deployment's key."""
    return Keyring(b"k" * 32)


@pytest.fixture
def run() -> Run:
    """A run that takes every call."""
    return Run()


@pytest.fixture
async def url(keyring: Keyring, run: Run) -> AsyncIterator[str]:
    """The address at which the boot server takes calls."""
    server = BootServer(keyring, run)
    ((host, port),) = await server.start([("127.0.0.1", 0)])
    yield f"http://{host}:{port}/v1/call-home"
    await server.stop()


@pytest.fixture
def jobs(tmp_path: Path, keyring: Keyring) -> Jobs:
    """A directory of jobs of its own."""
    return Jobs(tmp_path / "jobs", keyring)


@pytest.fixture
def agent(tmp_path: Path) -> AgentImage:
    """A built agent."""
    return an_agent(tmp_path / "agent")


@pytest.fixture
async def root(keyring: Keyring, run: Run, jobs: Jobs) -> AsyncIterator[str]:
    """The address of a boot server with all its doors."""
    server = BootServer(keyring, run, jobs)
    ((host, port),) = await server.start([("127.0.0.1", 0)])
    yield f"http://{host}:{port}"
    await server.stop()
