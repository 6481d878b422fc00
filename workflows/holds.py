"""The holds that operators asked for ahead: before which steps, by whom, and why. All of them are kept."""

from __future__ import annotations

from dataclasses import replace

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from mulligan.activities.levers import HOLDABLE, LeverIn, held_before, will_be_held

KEEPS_EVERY_HOLD = "keeps-every-hold"
"""Of a run that is to be held before two steps: since November 2026 both are kept. Before, the later request took the
earlier one's place."""


class Holds:
    """What is to be held, and was not reached yet."""

    def __init__(self) -> None:
        self._asked: list[LeverIn] = []

    def __bool__(self) -> bool:
        return bool(self._asked)

    def add(self, asked: LeverIn, step: str) -> None:
        """Hold before this step."""
        if any(each.step != step for each in self._asked) and not workflow.patched(KEEPS_EVERY_HOLD):
            self._asked.clear()
        self._asked.append(replace(asked, step=step))

    def drop(self, step: str) -> None:
        """Do not hold before this step; before none where it is empty."""
        self._asked = [each for each in self._asked if step not in ("", each.step)]

    def take(self, step: str) -> str:
        """The reason for which it is to be held before this step, which is reached; empty where nobody asked for it."""
        by = [_by(each) for each in self._asked if each.step == step]
        self.drop(step)
        return f"{held_before(step)} {', and '.join(by)}" if by else ""

    def steps(self) -> list[str]:
        """Before which steps, in their order."""
        return [step for step in HOLDABLE if any(each.step == step for each in self._asked)]

    def said(self) -> str:
        """What is ahead, for people; empty where nothing is."""
        return will_be_held((each.step, each.actor) for each in self._asked)


def _by(asked: LeverIn) -> str:
    return f"by {asked.actor}{f': {asked.reason}' if asked.reason else ''}"
