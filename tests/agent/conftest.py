"""What the tests of the deploy agent share."""

from __future__ import annotations

import pytest

from tests.agent.built import Built, built_agent


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """The deploy agent, built in this test run."""
    return built_agent(tmp_path_factory)
