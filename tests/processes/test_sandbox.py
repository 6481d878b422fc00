"""What the sandbox lets through is safe to let through, and what all runs share is shared."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from temporalio.contrib.pydantic import PydanticPayloadConverter

import mulligan.workflows
from mulligan.api.temporal import DATA_CONVERTER

MODULES = sorted(Path(mulligan.workflows.__path__[0]).glob("*.py"))
"""The sandbox lets these through, and so does not refuse them a clock or dice of their own."""

OUTSIDE = frozenset(
    {"http", "logging", "os", "pathlib", "random", "secrets", "shutil", "socket", "subprocess", "threading", "time"}
    | {"urllib", "uuid"}
)
CLOCKS = frozenset({"now", "utcnow", "today"})


def asked_outside(source: str) -> list[str]:
    """What a module asks of the machine on which it happens to run."""
    found: list[str] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [name.name for name in node.names if name.name.partition(".")[0] in OUTSIDE]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] in OUTSIDE:
            found.append(str(node.module))
        elif isinstance(node, ast.Attribute) and node.attr in CLOCKS and ast.unparse(node.value) != "workflow":
            found.append(ast.unparse(node))
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in {"open", "input"}:
            found.append(ast.unparse(node.func))
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_workflow_code_asks_the_machine_for_nothing(path: Path) -> None:
    """No clock, no dice, no files: a replay elsewhere would be told something else."""
    assert asked_outside(path.read_text()) == []


def test_what_would_differ_in_a_replay_is_found() -> None:
    """The look itself sees a clock, a file and dice, and takes Temporal's clock for good."""
    source = "import random\nat = datetime.now(UTC)\nopen('x')\nworkflow.now()"
    assert set(asked_outside(source)) == {"random", "datetime.now", "open"}


def test_all_runs_share_what_is_known_of_types() -> None:
    """Temporal makes a converter for each run; what each type looks like is worked out once for all."""
    first, second = (DATA_CONVERTER.payload_converter_class() for _ in range(2))
    assert isinstance(first, PydanticPayloadConverter)
    assert isinstance(second, PydanticPayloadConverter)
    assert first is not second
    assert first.converters[b"json/plain"] is second.converters[b"json/plain"]
