"""Runs the installed `mulligan`, as its users do: in a process of its own, piped or on a pseudo-terminal."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cli.scripted import ScriptedApi

BINARY = Path(sys.executable).with_name("mulligan")
Mulligan = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def api() -> Iterator[ScriptedApi]:
    """An API that listens, with nothing scripted yet."""
    served = ScriptedApi()
    served.start()
    yield served
    served.stop()


@pytest.fixture
def environment(tmp_path: Path, api: ScriptedApi) -> dict[str, str]:
    """The environment of a user whose home is empty, and whose API is this one."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("MULLIGAN_")}
    state = tmp_path / "state"
    return {
        **kept,
        "HOME": str(tmp_path),
        "MULLIGAN_API": api.address,
        "MULLIGAN_STATE_DIR": str(state),
        "TERM": "xterm",
    }


@pytest.fixture
def mulligan(environment: dict[str, str], tmp_path: Path) -> Mulligan:
    """Runs `mulligan` with these arguments to its end."""

    def call(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [BINARY, *arguments],
            env=environment,
            input=stdin,
            cwd=tmp_path,
            text=True,
            capture_output=True,
            check=False,
            timeout=60,
        )

    return call
