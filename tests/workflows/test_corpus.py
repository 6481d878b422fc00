"""Workflow code is deterministic, and runs in flight survive its changes: recorded histories replay with today's code.

The corpus is in tests/capsules; docs/versioning.md says what to do when one of these tests fails.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import pytest

from mulligan.activities.values import Outcome
from mulligan.api.capsule_file import SUFFIX, Capsule, history_of, unpack
from mulligan.api.replay import replay
from tests.capsules.endings import ENDINGS

CORPUS = Path(__file__).parents[1] / "capsules"
FILES = sorted(CORPUS.glob(f"*{SUFFIX}"))


def read(name: str) -> Capsule:
    """A capsule of the corpus."""
    return unpack((CORPUS / f"{name}{SUFFIX}").read_bytes(), name)


@pytest.mark.parametrize("name", [file.stem for file in FILES])
async def test_todays_code_does_what_was_recorded(name: str) -> None:
    """A change that would break such a run in flight fails here."""
    history = history_of(read(name), name)
    assert history is not None
    verdict = await replay(history)
    assert verdict.agrees, verdict.why


async def test_a_change_that_breaks_runs_is_noticed() -> None:
    """An action that today's code would ask for under another name, and one that it would not ask for at all."""
    capsule = read("simulated-ready")
    assert capsule.history is not None
    for old, new in (("1/boot/boot", "1/boot/kick"), ("1/image/place-disks", "1/image/prepare-again")):
        changed = copy.deepcopy(dict(capsule.history))
        (scheduled,) = [e for e in changed["events"] if old in str(e.get("activityTaskScheduledEventAttributes"))]
        scheduled["activityTaskScheduledEventAttributes"]["activityId"] = new
        history = history_of(replace(capsule, history=changed), "changed")
        assert history is not None
        verdict = await replay(history)
        assert not verdict.agrees
        assert new in verdict.why


def test_every_ending_is_in_the_corpus() -> None:
    """On simulated hosts all of them, with real drivers those that a user sees most; every outcome is among them."""
    names = {file.stem for file in FILES}
    assert {f"simulated-{ending}" for ending in ENDINGS} - names == set()
    assert {f"libvirt-{ending}" for ending in ("ready", "released", "cancelled")} - names == set()
    assert {f"{bmc}-{ending}" for bmc in ("redfish", "ipmi") for ending in ("ready", "released")} - names == set()
    assert {read(name).run.outcome for name in names} == set(Outcome), "the open ones were steered by code of before"


def test_nothing_of_a_host_is_in_the_corpus() -> None:
    """A capsule that is committed names neither who polled nor where our code lay."""
    for file in FILES:
        history = unpack(file.read_bytes(), file.name).history
        assert history is not None
        assert "identity" not in str(history)
        assert "stackTrace" not in str(history)
