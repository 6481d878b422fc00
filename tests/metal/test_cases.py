"""What the cases of the fault matrix cover: lies that pass at each step, and lies that last at some step each."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import pytest

from tests.metal import test_faults_ipmi, test_faults_redfish
from tests.metal.cases import Mending, lasting, passing

TABLES = [(each.PASSING, each.LASTS) for each in (test_faults_ipmi, test_faults_redfish)]
Table = Mapping[str, Sequence[str]]


@pytest.mark.parametrize(("passes", "lasts"), TABLES, ids=["ipmi", "redfish"])
def test_no_lie_and_no_step_is_left_out(passes: Table, lasts: Table) -> None:
    """Lies that pass are told at every step that they can fall on, and not at two steps in a row. Every lie that lasts
    is told, at every step by some lie, and ends in both ways."""
    told = {(case.lie, step) for case in passing(passes) for step in case.steps}
    assert told == {(lie, step) for lie, steps in passes.items() for step in steps}
    for case in passing(passes):
        at = [list(passes[case.lie]).index(step) for step in case.steps]
        assert case.where == "each step" or all(b - a > 1 for a, b in itertools.pairwise(at))
    cases = lasting(lasts)
    assert {case.lie for case in cases} == set(lasts)
    assert {step for case in cases for step in case.steps} == {step for steps in lasts.values() for step in steps}
    assert {case.mending for case in cases} == {Mending.HEALS, Mending.GIVEN_UP}
