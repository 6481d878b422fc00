"""The guides are true: every command in them is typed, in order, and says what the guide says that it says."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from mulligan.activities.drivers.simulated import personalities
from mulligan.activities.drivers.simulated.settings import ERRORS, VERBS
from mulligan.activities.levers import LeverKind
from mulligan.api.config import Settings
from mulligan.api.processes.temporal_dev import temporal_program
from tests.e2e.deployment import Deployment
from tests.services.stack import MULLIGAN

DOCS = Path(__file__).parents[2] / "docs"
GUIDE = DOCS / "operators.md"
SIMULATION = DOCS / "simulation.md"
BLOCK = re.compile(r"^```console\n(.*?)^```", re.MULTILINE | re.DOTALL)
EXIT_CODE = re.compile(r"\[(\d+)\]")
COMMAND_SECONDS = 120.0
LOOKS = re.compile(r"mulligan run (show|list|retry-now) |temporal workflow (list|count) ")
"""Commands that a reader types again when what they look for is not there yet."""

LOOK_SECONDS = 20.0


@dataclass
class Typed:
    """A command as the guide shows it: its line, what is to be seen of what it says, and its exit code."""

    line: int
    command: str
    expected: list[str] = field(default_factory=list)
    code: int = 0

    def missing(self, said: str) -> list[str]:
        """The expected lines that were not said, however they were broken and indented."""
        plain = " ".join(said.split())
        return [line for line in self.expected if not re.search(pattern_of(line), plain)]


def pattern_of(line: str) -> str:
    """What a line of the guide stands for: itself, with `...` for anything."""
    return ".*".join(re.escape(" ".join(part.split())) for part in line.split("..."))


def typed(guide: Path = GUIDE) -> list[Typed]:
    """Every command of a guide."""
    text = guide.read_text()
    commands: list[Typed] = []
    for block in BLOCK.finditer(text):
        first = text.count("\n", 0, block.start(1)) + 1
        for number, line in enumerate(block[1].splitlines(), first):
            if line.startswith("$ "):
                commands.append(Typed(number, line.removeprefix("$ ")))
            elif code := EXIT_CODE.fullmatch(line):
                commands[-1].code = int(code[1])
            else:
                commands[-1].expected.append(line)
    return commands


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[dict[str, str]]:
    """The environment of somebody who reads the guide while `mulligan up` runs beside them."""
    programs = tmp_path / "bin"
    programs.mkdir()
    mulligan = programs / "mulligan"
    mulligan.write_text(f'#!/bin/sh\nexec {" ".join(MULLIGAN)} "$@"\n')
    mulligan.chmod(0o755)
    with Deployment(tmp_path / "up") as deployment:
        deployment.up()
        yield {
            **deployment.environment,
            "PATH": f"{programs}:{temporal_program().parent}:{os.environ['PATH']}",
            "TEMPORAL_ADDRESS": deployment.temporal,
        }


@pytest.mark.parametrize("guide", [GUIDE, SIMULATION], ids=lambda guide: guide.stem)
def test_every_command_of_a_guide_does_what_the_guide_says(reader: dict[str, str], tmp_path: Path, guide: Path) -> None:
    """Typed one after the other, as a reader would."""
    for each in typed(guide):
        ends = time.monotonic() + LOOK_SECONDS
        done = type_it(each, reader, tmp_path)
        while each.missing(done.stdout + done.stderr) and LOOKS.match(each.command) and time.monotonic() < ends:
            done = type_it(each, reader, tmp_path)  # it was a moment too early, or between two attempts
        said = done.stdout + done.stderr
        where = f"{guide.name}:{each.line}: {each.command}"
        assert done.returncode == each.code, f"{where}\nended with {done.returncode} and said\n{said}"
        assert not (missing := each.missing(said)), f"{where}\ndid not say {missing!r} but\n{said}"


def type_it(each: Typed, reader: dict[str, str], directory: Path) -> subprocess.CompletedProcess[str]:
    """Type a command, and wait until it has ended."""
    shell = ["bash", "-o", "pipefail", "-c", each.command]
    return subprocess.run(
        shell, env=reader, cwd=directory, capture_output=True, text=True, timeout=COMMAND_SECONDS, check=False
    )


def test_the_guides_other_addresses_are_settings() -> None:
    """Who has a stack already exports them: each is a setting, and `temporal` is given the same address."""
    lines = re.findall(r"^export (.+)$", GUIDE.read_text(), re.MULTILINE)
    told = dict(pair.split("=", 1) for line in lines for pair in line.split())
    assert told.pop("TEMPORAL_ADDRESS") == told["MULLIGAN_TEMPORAL"]
    assert {name.removeprefix("MULLIGAN_").lower() for name in told} <= set(Settings.model_fields)


def test_the_guide_shows_every_lever() -> None:
    """And cancel, retry, plan, suspects and capsules."""
    commands = [each.command for each in typed()]
    shown = {command.split()[2] for command in commands if command.startswith("mulligan run ")}
    assert shown >= {*LeverKind, "cancel", "retry", "export", "replay", "show", "list"}
    assert any(command.startswith("mulligan machine plan ") for command in commands)
    assert any(command.startswith("mulligan suspect ") for command in commands)


def test_the_simulation_is_told_in_full() -> None:
    """Every personality with its own words, and every verb and error that a rule can name."""
    text = SIMULATION.read_text()
    missing = [name for name, does in personalities() if f"| `{name}` | {does} |" not in text]
    missing += [word for word in (*VERBS, *ERRORS) if f"`{word}`" not in text]
    assert not missing


def test_the_guides_pictures_are_there() -> None:
    """Each is small enough to be looked at over a slow line."""
    pictures = [GUIDE.parent / name for name in re.findall(r"!\[[^\]]+\]\(([^)]+)\)", GUIDE.read_text())]
    assert pictures
    for picture in pictures:
        assert picture.stat().st_size < 150_000, picture
