"""Whose turn it is where runs wait for the same workers: by priority, and evenly among projects within one priority."""

from __future__ import annotations

from temporalio.common import Priority

HIGHEST, USUAL, LOWEST = 1, 3, 5
"""The priorities of a request; lower goes first."""

AT_A_PROMPT = Priority(priority_key=HIGHEST, fairness_key="at:a:prompt")
"""Of what takes seconds and changes nothing, and someone waits for: no run's actions are in its way. No project has
this name."""


def turn_of(project: str, priority: int = USUAL) -> Priority:
    """What Temporal needs to know of a run; its actions inherit it. Taking machines down is as urgent as is usual."""
    return Priority(priority_key=priority, fairness_key=project)
