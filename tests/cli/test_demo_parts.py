"""What the demo leaves for its user: a key pair, and the next commands."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

import pytest

from mulligan.api.cli import demo
from mulligan.api.cli.demo_parts import key_pair
from mulligan.api.cli.view import RunView
from mulligan.api.config import Settings
from tests.cli.conftest import Mulligan
from tests.cli.scripted import ScriptedApi, machine, provisions, story


def test_the_public_key_lies_beside_the_private_one(tmp_path: Path) -> None:
    """As OpenSSH derives it; written again when it is missing or another's."""
    key, public = key_pair(tmp_path)
    beside = tmp_path / "demo_key.pub"
    derived = subprocess.run(["ssh-keygen", "-y", "-f", key], capture_output=True, text=True, check=True).stdout
    assert beside.read_text().split()[:2] == derived.split()[:2] == public.split()[:2]
    for spoil in (beside.unlink, lambda: beside.write_text("ssh-ed25519 other")):
        spoil()
        assert key_pair(tmp_path) == (key, public)
        assert beside.read_text() == f"{public}\n"


def test_the_next_command_makes_a_machine_that_the_same_key_opens(
    api: ScriptedApi, mulligan: Mulligan, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What the demo suggests is run here as it is printed."""
    state = tmp_path / "a state directory"
    key, public = key_pair(state)
    view = RunView()
    view.machine = machine()
    view.machine.spec.image = "demo"
    demo._closing(Settings(state_dir=state), view, key, simulated=False)
    (line,) = [each for each in capsys.readouterr().err.splitlines() if "machine provision second" in each]
    words = shlex.split(line)
    api.handlers["ProvisionMachine"] = provisions(story())
    mulligan(*words[words.index("machine") :])
    asked = api.last("ProvisionMachine").spec
    assert (asked.name, list(asked.ssh_keys)) == ("second", [public])
