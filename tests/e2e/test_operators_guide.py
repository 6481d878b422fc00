"""The operators' guide is true: every command in it is typed, in order, and says what the guide says that it says."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from mulligan.activities.levers import LeverKind
from mulligan.api.processes.temporal_dev import temporal_program
from tests.e2e.deployment import Deployment
from tests.services.stack import MULLIGAN

GUIDE = Path(__file__).parents[2] / "docs" / "operators.md"
BLOCK = re.compile(r"^```console\n(.*?)^```", re.MULTILINE | re.DOTALL)
EXIT_CODE = re.compile(r"\[(\d+)\]")
COMMAND_SECONDS = 120.0


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


def typed() -> list[Typed]:
    """Every command of the guide."""
    text = GUIDE.read_text()
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


def test_every_command_of_the_guide_does_what_the_guide_says(reader: dict[str, str], tmp_path: Path) -> None:
    """Typed one after the other, as a reader would."""
    for each in typed():
        shell = ["bash", "-o", "pipefail", "-c", each.command]
        done = subprocess.run(
            shell, env=reader, cwd=tmp_path, capture_output=True, text=True, timeout=COMMAND_SECONDS, check=False
        )
        said = done.stdout + done.stderr
        where = f"{GUIDE.name}:{each.line}: {each.command}"
        assert done.returncode == each.code, f"{where}\nended with {done.returncode} and said\n{said}"
        assert not (missing := each.missing(said)), f"{where}\ndid not say {missing!r} but\n{said}"


def test_the_guide_shows_every_lever() -> None:
    """And cancel, retry, plan, suspects and capsules."""
    commands = [each.command for each in typed()]
    shown = {command.split()[2] for command in commands if command.startswith("mulligan run ")}
    assert shown >= {*LeverKind, "cancel", "retry", "export", "replay", "show", "list"}
    assert any(command.startswith("mulligan machine plan ") for command in commands)
    assert any(command.startswith("mulligan suspect ") for command in commands)


def test_the_guides_pictures_are_there() -> None:
    """Each is small enough to be looked at over a slow line."""
    pictures = [GUIDE.parent / name for name in re.findall(r"!\[[^\]]+\]\(([^)]+)\)", GUIDE.read_text())]
    assert pictures
    for picture in pictures:
        assert picture.stat().st_size < 150_000, picture
