"""What was found at a provider, beside what was set since."""

from __future__ import annotations

import pytest

from mulligan.v1 import inventory_pb2
from tests.cli.conftest import Mulligan
from tests.cli.fleet import a_provider
from tests.cli.scripted import ScriptedApi


@pytest.mark.parametrize("command", [("set", "hyp-1", "--set", "personality="), ("show", "hyp-1")])
def test_facts_say_since_when_they_are(api: ScriptedApi, mulligan: Mulligan, command: tuple[str, ...]) -> None:
    """A setting that was changed stands beside what was found with the one before."""
    found = a_provider("hyp-1", facts={"personalities": "no-call-home"})
    api.handlers["GetProvider"] = lambda request, context: inventory_pb2.GetProviderResponse(provider=found)
    api.handlers["UpdateProvider"] = lambda request, context: inventory_pb2.UpdateProviderResponse(provider=found)
    shown = " ".join(mulligan("provider", *command).stdout.split())
    assert "personalities: no-call-home (as found when it was added last; what was set since is not in them)" in shown
