"""The deploy agent's image, built by the command that operators type: once for all lanes of a test run."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from mulligan.activities.agent.image import AgentImage
from mulligan.activities.agent.place import SCRATCH

MULLIGAN = Path(sys.executable).with_name("mulligan")
BUILD_SECONDS = 900


@dataclass(frozen=True)
class Built:
    """What `mulligan agent build` made."""

    image: AgentImage
    state_dir: Path
    """What `MULLIGAN_STATE_DIR` is set to."""
    said: str
    """What the build wrote to standard error."""

    def lend(self, state_dir: Path) -> None:
        """Give a copy to another deployment; another lane may be building anew there."""
        scratch = shutil.ignore_patterns(f"{SCRATCH}*")
        shutil.copytree(self.state_dir / "agent", state_dir / "agent", ignore=scratch)


def built_agent(factory: pytest.TempPathFactory) -> Built:
    """The agent as it was built in this test run; the lane that comes first builds it, the others wait."""
    base = factory.getbasetemp()
    shared = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "deploy-agent"
    shared.mkdir(exist_ok=True)
    said = shared / "said"
    with (shared / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not said.exists():
            done = agent_command(shared, "build", "--output", "json")
            assert done.returncode == 0, done.stderr
            said.write_text(done.stderr)
    return Built(AgentImage.load(shared / "agent"), shared, said.read_text())


def agent_command(state_dir: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run `mulligan agent ...` to its end, with this state directory."""
    environment = {**os.environ, "MULLIGAN_STATE_DIR": str(state_dir)}
    command = [str(MULLIGAN), "agent", *words]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=BUILD_SECONDS, check=False)
