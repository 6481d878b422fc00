"""One small picture of each benchmark, as SVG: the figures as multiples of their floors, and the reaches among them.

`python -m tests.bench.plots REPORT.json DIRECTORY`; `tests.bench.publish` does it for the docs.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

MET, NOT_MET, NEITHER = "#2a7f62", "#c0504d", "#7f8fa6"
_ROW_INCHES, _MARGIN_INCHES, _WIDE_INCHES = 0.3, 1.1, 8.5
_STEADY = {"svg.fonttype": "none", "svg.hashsalt": "mulligan", "font.size": 9.0}
"""Text stays text, and the same report gives the same file."""


def file_name(benchmark: str) -> str:
    """What a benchmark's picture is called."""
    return f"benchmark-{benchmark}.svg"


def draw(report: Mapping[str, Any], directory: Path) -> list[Path]:
    """A picture of every benchmark in the report; gives the files."""
    directory.mkdir(parents=True, exist_ok=True)
    return [_draw(result, directory / file_name(result["benchmark"])) for result in report["benchmarks"]]


def _draw(result: Mapping[str, Any], path: Path) -> Path:
    compared = [figure for figure in result["figures"] if figure["ratio"]]
    unit = Counter(figure["unit"] for figure in result["figures"]).most_common(1)[0][0]
    shown = compared or [figure for figure in result["figures"] if figure["unit"] == unit]
    with mpl.rc_context(_STEADY):
        drawing = Figure(figsize=(_WIDE_INCHES, _MARGIN_INCHES + _ROW_INCHES * len(shown)), layout="constrained")
        axes = drawing.subplots()
        _bars(axes, shown, "ratio" if compared else "value", "×" if compared else f" {unit}")
        if compared:
            _against_the_floor(axes, shown)
        axes.set_title(result["benchmark"], loc="left", fontweight="bold")
        drawing.savefig(path, format="svg", metadata={"Date": None})
    return path


def _bars(axes: Axes, shown: list[dict[str, Any]], key: str, unit: str) -> None:
    values, places = [figure[key] for figure in shown], range(len(shown))
    start = 1.0 if key == "ratio" else 0.0
    widths = [value - start for value in values]
    axes.barh(places, widths, left=start, color=[_colour(figure) for figure in shown], height=0.6)
    axes.set_yticks(places, [figure["name"].strip() for figure in shown])
    axes.invert_yaxis()
    for place, value in zip(places, values, strict=True):
        side, alignment = (-3, "right") if value < start else (3, "left")
        text = f"{value:.3g}{unit}"
        axes.annotate(text, (value, place), xytext=(side, 0), textcoords="offset points", va="center", ha=alignment)
    axes.margins(x=0.15)
    axes.spines[["top", "right"]].set_visible(False)


def _against_the_floor(axes: Axes, shown: list[dict[str, Any]]) -> None:
    axes.set_xscale("log")
    axes.axvline(1.0, color="black", linewidth=0.8)
    for place, figure in enumerate(shown):
        for reach in figure["reaches"]:
            if reach["of"] == "ratio":
                axes.plot(reach["bound"], place, marker="D", color="black", markersize=4)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(FuncFormatter(lambda *_: ""))
    axes.set_xlabel("times the floor (line: the floor; diamond: the reach; green: reached, red: not)")


def _colour(figure: Mapping[str, Any]) -> str:
    if not figure["reaches"]:
        return NEITHER
    return MET if all(reach["met"] for reach in figure["reaches"]) else NOT_MET


@click.command()
@click.argument("report", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("directory", type=click.Path(file_okay=False, path_type=Path))
def main(report: Path, directory: Path) -> None:
    """Draw a report's benchmarks into a directory."""
    for path in draw(json.loads(report.read_text()), directory):
        print(path)


if __name__ == "__main__":
    main()
