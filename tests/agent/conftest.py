"""What the tests of the deploy agent share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.agent.built import Built, built_agent
from tests.agent.machine import Machine


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """The deploy agent, built in this test run."""
    return built_agent(tmp_path_factory)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """A machine without disks."""
    return Machine(tmp_path / "machine")
