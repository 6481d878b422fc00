"""One stack for all workflow tests; every test has a project and a fleet of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.services.temporal import running_temporal
from tests.workflows.stack import Stack, running_stack
from tests.workflows.stalls import Stall


@pytest.fixture(scope="session")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    """Real Temporal, real workers, simulated hosts."""
    directory = tmp_path_factory.mktemp("stack")
    with running_temporal(directory / "temporal") as address:
        async with running_stack(address, directory) as running:
            yield running


@pytest.fixture
def stall(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Make a method of the inventory wait; whatever happens, it goes on when the test is over."""
    stalls: list[Stall] = []

    def make(name: str) -> Stall:
        stalls.append(Stall(getattr(stack.inventory, name)))
        monkeypatch.setattr(stack.inventory, name, stalls[-1])
        return stalls[-1]

    yield make
    for each in stalls:
        each.go.set()
