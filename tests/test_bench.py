"""The benchmarks work, in their smallest sizes: everything that must be so whatever the machine's speed is so."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

from tests.bench.__main__ import NAMES
from tests.bench.floor import Shape
from tests.bench.results import Figure, Reach, percentile

ROOT = Path(__file__).parent.parent

pytestmark = pytest.mark.timeout(200)


@pytest.mark.parametrize("name", NAMES)
def test_a_benchmark_finds_nothing_wrong(name: str, tmp_path: Path) -> None:
    """It ends well, prints its table, and writes figures that are numbers, the machine's versions beside them."""
    command = [sys.executable, "-m", "tests.bench", name, "--quick", "--json", str(tmp_path / "report.json")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["machine"]["packages"]["temporalio"]
    (result,) = report["benchmarks"]
    assert result["benchmark"] == name
    assert result["wrong"] == []
    assert len(result["figures"]) > 5
    for figure in result["figures"]:
        assert figure["name"].strip() in done.stdout
        assert math.isfinite(figure["value"])
        assert figure["floor"] is None or figure["floor"] > 0 or figure["ratio"] is None


def test_a_reach_is_met_by_the_value_or_by_the_ratio_to_the_floor() -> None:
    """A figure without a floor meets no ratio."""
    figure = Figure("throughput", 9.0, "runs/s", floor=10.0)
    assert Reach(0.9, "ratio", at_most=False).met(figure)
    assert not Reach(0.91, "ratio", at_most=False).met(figure)
    assert Reach(9.0).met(figure)
    assert not Reach(8.9).met(figure)
    assert not Reach(0.1, "ratio", at_most=False).met(Figure("throughput", 9.0, "runs/s"))


def test_a_percentile_is_one_of_the_values() -> None:
    """The nearest rank: 99 of 100 values are not above the 99th percentile."""
    values = [float(number) for number in range(100, 0, -1)]
    assert percentile(values, 99) == 99
    assert percentile(values, 50) == 50
    assert percentile([7.0], 99) == 7


def test_the_bare_floor_has_as_many_activities_and_nothing_else() -> None:
    """The same number, all on one queue, without timers."""
    assert Shape((False, True, True), timers=2).bare == Shape((False, False, False), timers=0)
