"""A report in the docs: `python -m tests.bench.publish REPORT.json...`.

Everything measured in `docs/benchmarks.md` stands between two marks and is written from the report, so that no number
is typed. Of several reports the last one that has a benchmark counts.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from tests.bench.plots import draw, file_name
from tests.bench.results import Machine

BEGIN, END = "<!-- measured: written by tests/bench/publish.py -->", "<!-- /measured -->"
DOCS = Path(__file__).parents[2] / "docs"
PAGE, PICTURES = "benchmarks.md", "images"


def measured(reports: Sequence[Mapping[str, Any]]) -> str:
    """What the docs say of the reports, in Markdown: the reaches first, then each benchmark."""
    newest = {result["benchmark"]: (report, result) for report in reports for result in report["benchmarks"]}
    parts = [_reaches([result for _, result in newest.values()])]
    told: list[str] = []
    for report, result in newest.values():
        machine = " ".join(f"> {line}\n>\n" for line in Machine(**report["machine"]).lines())
        parts.append(_section(result, "" if machine in told else machine, quick=report["quick"]))
        told.append(machine)
    return "\n\n".join(parts)


def publish(reports: Sequence[Mapping[str, Any]], docs: Path = DOCS) -> list[Path]:
    """Write the page and the pictures; gives the files. Raises `ValueError` where the page has no marks."""
    page = docs / PAGE
    before, mark, rest = page.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not mark or not end:
        raise ValueError(f"{page} has no lines {BEGIN!r} and {END!r}; put them where the figures belong")
    page.write_text(f"{before}{BEGIN}\n\n{measured(reports)}\n\n{END}{after}")
    return [page, *(path for report in reports for path in draw(report, docs / PICTURES))]


def _reaches(results: Sequence[Mapping[str, Any]]) -> str:
    rows = [
        (result["benchmark"], figure["name"].strip(), reach["reach"], _quantity(figure, "value"), _ratio(figure),
         "yes" if reach["met"] else "**no**")
        for result in results for figure in result["figures"] for reach in figure["reaches"]
    ]  # fmt: skip
    return "### Reaches\n\n" + _table(("benchmark", "figure", "reach", "found", "times the floor", "met"), rows)


def _section(result: Mapping[str, Any], machine: str, *, quick: bool) -> str:
    name = result["benchmark"]
    rows = [
        (_indented(figure["name"]), _quantity(figure, "value"), _quantity(figure, "floor"), _ratio(figure))
        for figure in result["figures"]
    ]
    sizes = " (small sizes: not for its times)" if quick else ""
    lines = [
        f"### {name}{sizes}",
        machine.rstrip("\n> "),
        f"![{name}: the figures as multiples of their floors]({PICTURES}/{file_name(name)})",
        _table(("figure", "value", "floor", "times the floor"), rows),
        f"Floor: {result['floor']}.",
        *(f"- {note}" for note in result["notes"]),
        *(f"- **wrong**: {wrong}" for wrong in result["wrong"]),
    ]
    return "\n\n".join(line for line in lines if line).replace("\n\n- ", "\n- ")


def _table(heads: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [heads, ("---",) * len(heads), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _indented(name: str) -> str:
    return "&nbsp;&nbsp;" + name.strip() if name.startswith(" ") else name


def _quantity(figure: Mapping[str, Any], key: str) -> str:
    return "" if figure[key] is None else f"{figure[key]:.4g} {figure['unit']}"


def _ratio(figure: Mapping[str, Any]) -> str:
    return "" if figure["ratio"] is None else f"{figure['ratio']:.3g}"


@click.command()
@click.argument("reports", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
def main(reports: tuple[Path, ...]) -> None:
    """Write reports into the docs."""
    for path in publish([json.loads(report.read_text()) for report in reports]):
        print(path)


if __name__ == "__main__":
    main()
