"""A deployment as a user has it: the installed command line against an embedded stack of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

from mulligan.activities.inventory import Inventory
from tests.services.stack import MULLIGAN, Stack, until


class Deployment(Stack):
    """An embedded stack whose processes a test may kill, and the command line pointed at it."""

    def mulligan(self, *words: str, seconds: float = 120.0) -> str:
        """Run `mulligan WORDS`, which must succeed; its standard output."""
        done = self.run(*words, seconds=seconds)
        assert done.returncode == 0, f"mulligan {' '.join(words)}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def documents(self, *words: str, seconds: float = 120.0) -> list[dict[str, Any]]:
        """The JSON documents that `mulligan WORDS --output json` prints, which must succeed."""
        return documents(self.mulligan(*words, "--output", "json", seconds=seconds))

    def background(self, *words: str) -> subprocess.Popen[str]:
        """Start `mulligan WORDS` and leave it running."""
        pipe = subprocess.PIPE
        return subprocess.Popen([*MULLIGAN, *words], env=self.environment, stdout=pipe, stderr=pipe, text=True)

    def kill_child(self, name: str) -> None:
        """`kill -9` one of `temporal`, `server` and `worker`; returns when its successor's API answers."""
        killed = self.state["children"][name]
        os.kill(killed, signal.SIGKILL)
        until(lambda: self.state["children"].get(name) not in (killed, None), 60, f"another {name}")
        until(lambda: self.run("run", "list").returncode == 0, 60, "an API that answers")

    def inventory(self) -> Inventory:
        """The database, looked at from behind."""
        return Inventory.open(f"sqlite:///{self.state_dir / 'mulligan.sqlite'}")

    def add_simulated_image(self, name: str = "sim") -> None:
        """Register an image that simulated hosts take without moving a byte."""
        digest = f"sha256:{'0' * 64}"
        self.mulligan("image", "add", name, f"simulated:{name}", "--digest", digest, "--format", "raw")


def documents(text: str) -> list[dict[str, Any]]:
    """Every JSON document in a text, one a line."""
    return [json.loads(line) for line in text.splitlines() if line.strip()]


def command(*words: str | Path, seconds: float = 60.0) -> str:
    """Run a command of the system, which must succeed; its standard output."""
    done = subprocess.run([*map(str, words)], capture_output=True, text=True, timeout=seconds, check=False)
    assert done.returncode == 0, f"{words}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout
