"""The steps of whole runs at which a BMC can lie, and which of them a request to the BMC belongs to.

A step is a change that the runs ask for, by the phase that it is for and by its kind: `deployed.off` cuts the power
after the deploy agent is done. An attempt that is repeated asks for the same step again. Steps that only look follow
a power on that the runs asked for.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

PHASES = {
    "deploy": ("off", "eject", "insert", "override", "on"),
    "deployed": ("off", "eject", "clear"),
    "boot": ("override", "on"),
    "release": ("off", "clear"),
    "erase": ("insert", "override", "on"),
    "erased": ("off", "eject", "clear"),
}
"""The kinds of changes in each phase, of a server that was on, with an old medium, and whose firmware does not take
the override away by itself."""
RELEASING = ("release", "erase", "erased")
"""The phases of a release; the others are those of making a machine."""
FIRST_LOOK = "register.look"
LOOKS = {"deploy": "deploy.watch", "boot": "verify.look", "erase": "erase.watch"}
"""The steps that only look, by the phase in which the server was switched on."""
LOOKS_BEFORE = 3
"""Looks at the server after that which still belong to the power on."""


def changes(kinds: Collection[str]) -> list[str]:
    """The steps that change something of these kinds, in the order of a run that goes well."""
    return [f"{phase}.{kind}" for phase, inner in PHASES.items() for kind in inner if kind in kinds]


def sides(steps: list[str]) -> list[list[str]]:
    """Those of making a machine, and those of releasing it."""
    released = [step for step in steps if step.partition(".")[0] in RELEASING]
    return [[step for step in steps if step not in released], released]


@dataclass
class Course:
    """How far the runs on one server are, as it can be told beside the BMC."""

    releasing: bool = False
    worked: bool = False
    """Whether the agent has done what it was booted for."""
    looks: int = 0
    """At the server, since the last change."""
    last: str = ""
    """The step of the last change."""

    def releases(self) -> None:
        """What comes now is the release."""
        if not self.releasing:
            self.releasing, self.worked, self.last = True, False, ""

    def step(self, kind: str, *, at_server: bool) -> str:
        """The step that a request belongs to, empty where it is none of them. `kind` is empty for what only looks, and
        `at_server` says that it looks at the server itself."""
        if kind:
            self.looks, self.last = 0, f"{self._phase(kind)}.{kind}"
            return self.last
        self.looks += at_server
        if not self.last and not self.releasing:
            return FIRST_LOOK
        phase, _, last = self.last.partition(".")
        return LOOKS.get(phase, "") if last == "on" and self.looks >= LOOKS_BEFORE else ""

    def _phase(self, kind: str) -> str:
        if not self.releasing:
            return "deploy" if not self.worked else "boot" if kind in PHASES["boot"] else "deployed"
        return "erased" if self.worked else "erase" if kind in PHASES["erase"] else "release"
