"""How long claims are leased: often enough to notice a run that was terminated, not so often that it ends the run."""

from __future__ import annotations

from datetime import timedelta

import pytest

from mulligan.workflows.leases import leased

EVENTS = 11
"""That one extension of a lease adds to a history."""
MOST_EVENTS = 51_200
"""At which Temporal terminates a run."""


@pytest.mark.parametrize("seconds", [30, 900])
def test_a_run_of_months_does_not_end_by_its_leases(seconds: int) -> None:
    """It is extended three times in each."""
    age, extended = timedelta(), 0
    while age < timedelta(days=30):
        age += timedelta(seconds=leased(seconds, age) / 3)
        extended += 1
    assert extended * EVENTS < MOST_EVENTS / 2


@pytest.mark.parametrize("seconds", [30, 900, 7200])
def test_a_young_run_has_the_leases_that_it_began_with(seconds: int) -> None:
    """Nobody waits longer for what a run left that was terminated soon, and never much longer than an hour."""
    assert leased(seconds, timedelta(seconds=8 * seconds)) == seconds or seconds > 3600
    assert leased(seconds, timedelta(days=7)) == max(3600, seconds)
