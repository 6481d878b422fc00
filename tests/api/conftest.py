"""The API server on a real stack: Temporal, workers, SQLite and simulated hosts."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.api.serving import Api
from tests.services.temporal import TemporalServer
from tests.workflows.stack import IMAGE, Stack, running_stack


@pytest.fixture(scope="session")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    """Workers of both kinds, and the image `demo`."""
    directory = tmp_path_factory.mktemp("api")
    with TemporalServer(directory / "temporal") as temporal:
        async with running_stack(temporal.address, directory) as running:
            running.inventory.add_image(IMAGE)
            running.inventory.came_up("", IMAGE)  # so that tests of failures, whichever run first, do not quarantine it
            yield running


@pytest.fixture(scope="session")
async def api(stack: Stack) -> AsyncIterator[Api]:
    """One API server for all tests that do not stop it."""
    async with Api(stack) as running:
        yield running


@pytest.fixture
async def own_api(stack: Stack) -> AsyncIterator[Api]:
    """An API server of the calling test's own, which it may stop and start."""
    async with Api(stack) as running:
        yield running
