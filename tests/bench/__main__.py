"""The benchmarks: `python -m tests.bench [NAME...] [--quick] [--json FILE]`.

Ratios are measured side by side in one run. The program fails when something is wrong, never because it is slow.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from tests.bench.results import Result, show, this_machine

NAMES = ("orchestration", "ironic", "watch", "claims", "image", "vm", "footprint")


def run(names: tuple[str, ...], quick: bool, console: Console) -> dict[str, Any]:
    """Run benchmarks one after the other, each told when it ends; all of it as a JSON object."""
    machine = this_machine()
    for line in machine.lines():
        console.print(line, highlight=False)
    results = []
    for name in names:
        measure: Callable[[bool], Result] = import_module(f"tests.bench.{name}").measure
        began = time.monotonic()
        result = measure(quick)
        result.seconds = time.monotonic() - began
        show(console, result)
        results.append(result.as_json())
    return {"machine": machine.as_json(), "quick": quick, "benchmarks": results}


def wrong(report: Mapping[str, Any]) -> list[str]:
    """Everything in a report that must never be."""
    return [each for result in report["benchmarks"] for each in result["wrong"]]


@click.command()
@click.argument("names", nargs=-1, type=click.Choice(NAMES))
@click.option("--quick", is_flag=True, help="Small sizes: shows that it works, not how fast.")
@click.option("--json", "file", type=click.Path(dir_okay=False, path_type=Path), help="Write the report there too.")
def main(names: tuple[str, ...], quick: bool, file: Path | None) -> None:
    """Run the benchmarks, all of them unless some are named."""
    report = run(names or NAMES, quick, Console(width=None if sys.stdout.isatty() else 140))
    if file is not None:
        file.write_text(json.dumps(report, indent=2) + "\n")
    if wrong(report):
        sys.exit(1)


if __name__ == "__main__":
    main()
