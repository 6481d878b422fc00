"""Which cases there are: each lie at each step of the runs, and what becomes of it.

Lies that pass are told at every other step of one and the same runs, so that two cases have every step, and each step
that lies comes after one that does not. Lies that last are told at one step: either somebody mends the BMC, or the
operator gives up, by turns; and each is told at every other step, so that each step has every other lie.
`FAULT_MATRIX=full` has all steps and both ends, and tells each lie that passes at each step by itself too.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

FULL = os.environ.get("FAULT_MATRIX") == "full"
FEW = 4
"""So many steps or fewer are told in one case: they are apart anyhow."""


class Mending(StrEnum):
    """What becomes of a lie that lasts, once a run cannot undo for it."""

    NONE = "passes"
    HEALS = "heals"
    """Somebody mends the BMC, and the run goes on by itself."""
    GIVEN_UP = "given up"
    """The operator ends the undo, mends the BMC later, and releases the machine as the quarantine says."""


@dataclass(frozen=True)
class Case:
    """One lie, at some steps of the runs on one server."""

    lie: str
    steps: tuple[str, ...]
    where: str
    """The steps, in words."""
    mending: Mending = Mending.NONE

    def __str__(self) -> str:
        return f"{self.lie} at {self.where}" + (f", {self.mending}" if self.lasts else "")

    @property
    def lasts(self) -> bool:
        """Whether the lie lasts until somebody mends the BMC."""
        return self.mending is not Mending.NONE


def passing(lies: Mapping[str, Sequence[str]]) -> list[Case]:
    """The cases of lies that pass, each with the steps that it can fall on."""
    found = []
    for lie, steps in lies.items():
        if FULL:
            found += [Case(lie, (step,), step) for step in steps]
        if len(steps) <= FEW:
            found.append(Case(lie, tuple(steps), "each step"))
        else:
            found += [Case(lie, tuple(steps[turn::2]), f"{name} steps") for turn, name in enumerate(("odd", "even"))]
    return found


def lasting(lies: Mapping[str, Sequence[str]]) -> list[Case]:
    """The cases of lies that last."""
    ways = (Mending.HEALS, Mending.GIVEN_UP)
    return [
        Case(lie, (step,), step, way)
        for number, (lie, steps) in enumerate(lies.items())
        for turn, step in enumerate(steps)
        if FULL or (number + turn) % 2 == 0
        for way in (ways if FULL else (ways[(number + turn // 2) % 2],))
    ]
