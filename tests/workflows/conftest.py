"""One stack for all workflow tests; every test has a project and a fleet of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.services.temporal import running_temporal
from tests.workflows.stack import Stack, running_stack


@pytest.fixture(scope="session")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    """Real Temporal, real workers, simulated hosts."""
    directory = tmp_path_factory.mktemp("stack")
    with running_temporal(directory / "temporal") as address:
        async with running_stack(address, directory) as running:
            yield running
