"""The benchmarks work, in their smallest sizes: everything that must be so whatever the machine's speed is so."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from tests.bench.__main__ import NAMES
from tests.bench.floor import Shape
from tests.bench.peers import NoPeerError, Peer, have_part
from tests.bench.publish import BEGIN, DOCS, END, PAGE, publish
from tests.bench.results import Figure, Reach, Result, percentile, this_machine

ROOT = Path(__file__).parent.parent

pytestmark = pytest.mark.timeout(620)


@pytest.mark.parametrize("name", NAMES)
def test_a_benchmark_finds_nothing_wrong(name: str, tmp_path: Path) -> None:
    """It ends well, prints its table, and writes figures that are numbers, the machine's versions beside them."""
    command = [sys.executable, "-m", "tests.bench", name, "--quick", "--json", str(tmp_path / "report.json")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["machine"]["packages"]["temporalio"]
    (result,) = report["benchmarks"]
    assert result["benchmark"] == name
    assert result["wrong"] == []
    assert len(result["figures"]) > 2
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


def test_a_peer_that_cannot_be_installed_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With what pip said; it is tried again the next time, and what is installed is not installed anew."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for _ in range(2):
        with pytest.raises(NoPeerError, match=r"peer.whl.* could not be installed into .*: ERROR"):
            Peer("none", (f"{tmp_path}/peer.whl",)).environment()
    home = tmp_path / "mulligan-bench/there"
    home.mkdir()
    (home / "installed").write_text("peer==1\nother==2")
    assert Peer("there", ("peer==1", "other==2")).environment() == home


def test_the_quick_run_leaves_peers_out_unless_they_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that it downloads nothing."""
    monkeypatch.delenv("PEERS", raising=False)
    assert have_part(quick=False)
    assert not have_part(quick=True)
    monkeypatch.setenv("PEERS", "1")
    assert have_part(quick=True)


def test_a_percentile_is_one_of_the_values() -> None:
    """The nearest rank: 99 of 100 values are not above the 99th percentile."""
    values = [float(number) for number in range(100, 0, -1)]
    assert percentile(values, 99) == 99
    assert percentile(values, 50) == 50
    assert percentile([7.0], 99) == 7


def test_the_bare_floor_has_as_many_activities_and_nothing_else() -> None:
    """The same number, all on one queue, without timers."""
    assert Shape((False, True, True), timers=2, local=1, told=4).bare == Shape((False, False, False), local=1)


def test_a_report_is_published_with_its_pictures(tmp_path: Path) -> None:
    """Between the marks stands what was measured and nothing else; the same report gives the same files."""
    result = Result("tried", "a floor", [Figure("speed", 9.0, "runs/s", 10.0, (Reach(0.9, "ratio", at_most=False),))])
    result.add("  a | b", 3.0, "ms", None, Reach(2))
    stated = Result("stated", "none", [Figure("memory", 5.0, "MiB")])
    report = {
        "machine": this_machine().as_json(),
        "quick": False,
        "benchmarks": [each.as_json() for each in (result, stated)],
    }
    (tmp_path / PAGE).write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    written = publish([json.loads(json.dumps(report))], tmp_path)
    text = (tmp_path / PAGE).read_text()
    assert text.startswith("before\n")
    assert text.endswith("\nafter\n")
    assert "old" not in text
    assert "| tried | speed | ≥ 0.9 of the floor | 9 runs/s | 0.9 | yes |" in text
    assert "| tried | a \\| b | ≤ 2 | 3 ms |  | **no** |" in text
    pictures = [path for path in written if path.suffix == ".svg"]
    assert [path.name for path in pictures] == ["benchmark-tried.svg", "benchmark-stated.svg"]
    for path in pictures:
        assert f"(images/{path.name})" in text
        assert ET.parse(path).getroot().tag.endswith("svg")
    first = [path.read_bytes() for path in written]
    assert [path.read_bytes() for path in publish([report], tmp_path)] == first


def test_the_docs_have_a_place_for_what_is_measured() -> None:
    """And the pictures that they show are there."""
    text = (DOCS / PAGE).read_text()
    assert text.index(BEGIN) < text.index(END)
    for picture in re.findall(r"\((images/[^)]+)\)", text):
        assert (DOCS / picture).exists(), picture
