"""Undo as a property: fail at every step, repeat every step, repeat every undo, cancel anywhere; then a clean slate."""

from __future__ import annotations

import contextlib
import random

import pytest
from temporalio.client import WorkflowFailureError

from mulligan.activities.drivers.simulated import journal, snapshot
from mulligan.activities.values import Deadlines, MachineState, Outcome
from tests.workflows.stack import Stack, is_clean, until

MAKING = ("has_base", "place_base", "create_disks", "define", "power_on")
LOOKING = ("power", "console", "addresses")
CHANGING = ("place_base", "create_disks", "define", "power_on")
UNDOING = ("power_off", "undefine", "remove_disks")
BRIEF = Deadlines(
    claim_seconds=10, image_seconds=10, boot_seconds=10, verify_seconds=10, run_seconds=30, undo_seconds=10
)


async def outcome_of(stack: Stack, project: str, **values: object) -> Outcome:
    """Make a machine and say how that ended, having checked that database, claims and hosts agree with it."""
    handle = await stack.start(stack.request(project, deadlines=BRIEF, **values))
    with contextlib.suppress(WorkflowFailureError):
        await handle.result()
    last = (await stack.story(handle))[-1]
    check_agreement(stack, project, last.outcome)
    return last.outcome


def check_agreement(stack: Stack, project: str, outcome: Outcome) -> None:
    """Whatever the outcome says is so, everywhere."""
    claims = [c.state for c in stack.inventory.claims(project=project) if c.state != "released"]
    seen = snapshot(stack.site.drivers_dir, project)
    assert not [d for d in stack.inventory.audit() if project in str(d)]
    if outcome is Outcome.READY:
        assert stack.inventory.machine(project, "m").state is MachineState.READY
        assert claims == ["permanent"]
        assert len(seen.powered_on) == 1
        assert len({o.host for o in seen.objects}) == 1
    elif outcome is Outcome.QUARANTINED:
        assert stack.inventory.machine(project, "m").state is MachineState.QUARANTINED
        assert claims == ["quarantined"]
    else:
        assert is_clean(stack, project)


@pytest.mark.parametrize("verb", [*MAKING, *LOOKING])
@pytest.mark.parametrize("when", ["fail", "fail_after"])
async def test_a_passing_fault_at_any_step_ends_ready(stack: Stack, verb: str, when: str) -> None:
    """An outage before the act, or after it, is tried again: the step repeats, and the machine comes up."""
    project, _ = await stack.hosts(**{when: f"{verb}:1:Unreachable"})
    assert await outcome_of(stack, project) is Outcome.READY


@pytest.mark.parametrize("verb", [*MAKING, *LOOKING])
@pytest.mark.parametrize("when", ["fail", "fail_after"])
async def test_a_lasting_fault_at_any_step_leaves_nothing(stack: Stack, verb: str, when: str) -> None:
    """What cannot be done, whether it was half done or not, is undone."""
    project, _ = await stack.hosts(**{when: f"{verb}:*:Unsupported"})
    assert await outcome_of(stack, project) is Outcome.FAILED


@pytest.mark.parametrize("verb", UNDOING)
@pytest.mark.parametrize("when", ["fail", "fail_after"])
async def test_a_passing_fault_in_any_undo_leaves_nothing(stack: Stack, verb: str, when: str) -> None:
    """Undo repeats until it is done."""
    project, _ = await stack.hosts(personality="cloud-init-failed", **{when: f"{verb}:1:Unreachable"})
    assert await outcome_of(stack, project) is Outcome.FAILED


@pytest.mark.parametrize("verb", UNDOING)
async def test_an_undo_that_never_works_is_quarantined(stack: Stack, verb: str) -> None:
    """And never called clean."""
    project, _ = await stack.hosts(personality="cloud-init-failed", fail=f"{verb}:*:AccessDenied")
    assert await outcome_of(stack, project) is Outcome.QUARANTINED


@pytest.mark.parametrize("verb", CHANGING)
async def test_a_cancel_in_any_step_leaves_nothing(stack: Stack, verb: str) -> None:
    """The undo starts only when the act that it undoes has ended, and takes back what it did."""
    project, _ = await stack.hosts(hold=f"{verb}:1:2")
    handle = await stack.start(stack.request(project, deadlines=BRIEF))

    async def begun() -> bool:
        return any(e.verb == verb and e.outcome == "BEGUN" for e in journal(stack.site.drivers_dir, project))

    await until(begun)
    await handle.cancel()
    with pytest.raises(WorkflowFailureError):
        await handle.result()
    assert (await stack.story(handle))[-1].outcome is Outcome.CANCELLED
    assert is_clean(stack, project)


async def test_a_cancel_while_the_undo_runs_changes_nothing(stack: Stack) -> None:
    """The undo is shielded: it goes on to its end, and a second cancel is harmless."""
    project, _ = await stack.hosts(personality="cloud-init-failed", hold="power_off:1:2")
    handle = await stack.start(stack.request(project, deadlines=BRIEF))

    async def undoing() -> bool:
        return any(e.verb == "power_off" and e.outcome == "BEGUN" for e in journal(stack.site.drivers_dir, project))

    await until(undoing)
    await handle.cancel()
    await handle.cancel()
    with pytest.raises(WorkflowFailureError):
        await handle.result()
    assert is_clean(stack, project)


@pytest.mark.parametrize("seed", range(12))
async def test_random_faults_end_in_a_state_that_everything_agrees_on(stack: Stack, seed: int) -> None:
    """Several faults at once, of any kind, anywhere, on two hosts."""
    chance = random.Random(seed)
    verbs, errors = (*MAKING, *LOOKING, *UNDOING), ("Unreachable", "Busy", "Conflict")
    settings = {
        key: ",".join(
            f"{chance.choice(verbs)}:{chance.choice((1, 1, 2, '*'))}:{chance.choice(errors)}"
            for _ in range(chance.randint(1, 2))
        )
        for key in chance.sample(("fail", "fail_after"), chance.randint(1, 2))
    }
    project, hosts = await stack.hosts(2)
    await stack.enrol_with(hosts[0], **settings)
    await outcome_of(stack, project, mulligans=1)
