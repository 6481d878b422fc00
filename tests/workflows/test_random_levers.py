"""Random levers, at random moments, on hosts that misbehave at random: every run ends in a state that everything agrees
on. `MULLIGAN_RANDOM_RUNS` says how many runs there are: more of them find what few do not. `MULLIGAN_RANDOM_FIRST` is
the first run's seed: other seeds find other things.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
from collections import Counter
from typing import Any

from temporalio.client import WorkflowFailureError, WorkflowHandle, WorkflowUpdateFailedError
from temporalio.service import RPCError

from mulligan.activities.drivers.simulated import snapshot
from mulligan.activities.errors import NotFound
from mulligan.activities.levers import HOLDABLE, LeverKind
from mulligan.activities.values import Deadlines, MachineState, OnFailure, Outcome
from mulligan.workflows.steering import Phase
from tests.workflows.stack import Stack, is_clean, until
from tests.workflows.steer import pull
from tests.workflows.test_faults import CHANGING, LOOKING, MAKING, UNDOING

RUNS = int(os.environ.get("MULLIGAN_RANDOM_RUNS", "40"))
FIRST = int(os.environ.get("MULLIGAN_RANDOM_FIRST", "0"))
AT_ONCE = 10
DEADLINES = Deadlines(
    claim_seconds=20, image_seconds=20, boot_seconds=20, verify_seconds=6, run_seconds=60, undo_seconds=4
)
ERRORS = ("Unreachable", "Busy", "Conflict", "Unsupported", "AccessDenied")
PERSONALITIES = ("", "", "", "no-call-home", "cloud-init-failed", "boots-then-silent", "never-boots", "lies-once")


def misbehaviour(chance: random.Random) -> dict[str, str]:
    """How a host misbehaves: faults before or after acts, acts that take long, guests that fail."""
    verbs = (*MAKING, *LOOKING, *UNDOING)
    settings = {"personality": chance.choice(PERSONALITIES)}
    for key in chance.sample(("fail", "fail_after"), chance.randint(0, 2)):
        settings[key] = f"{chance.choice(verbs)}:{chance.choice((1, 1, 2, '*'))}:{chance.choice(ERRORS)}"
    settings["hold"] = f"{chance.choice((*CHANGING, *UNDOING))}:1:{chance.choice((0.2, 0.5, 1))}"
    return settings


async def steer(handle: WorkflowHandle[Any, Any], chance: random.Random) -> None:
    """Pull levers until the run ends: what is refused, or comes too late, changes nothing."""
    for _ in range(chance.randint(1, 6)):
        await asyncio.sleep(chance.choice((0.0, 0.05, 0.2, 0.5)))  # the moment is what is random here
        kind = chance.choice((*LeverKind, "cancel"))
        step = chance.choice(("", *HOLDABLE)) if kind in (LeverKind.HOLD, LeverKind.RESUME) else ""
        with contextlib.suppress(WorkflowUpdateFailedError, RPCError):
            if kind == "cancel":
                await handle.cancel()
            else:
                await pull(handle, LeverKind(kind), step=step, seconds=2)


async def is_held(stack: Stack, project: str, handle: WorkflowHandle[Any, Any]) -> bool:
    """Whether the run is held and recorded as such, and nothing was asked of it that it has not done."""
    cancelled = (await handle.describe()).raw_description.workflow_extended_info.cancel_requested
    held = not cancelled and await handle.query("phase", result_type=str) == Phase.HELD
    return held and await stack.machine_is(project, "m", MachineState.HELD)


async def settle(stack: Stack, project: str, handle: WorkflowHandle[Any, Any]) -> Outcome | None:
    """How the run ended; None when it is held, which is an end as good as any until an operator decides."""

    async def over_or_held() -> bool:
        ended = (await handle.describe()).close_time is not None
        return ended or await is_held(stack, project, handle)

    await until(over_or_held, within=90)
    if (await handle.describe()).close_time is None:
        return None
    with contextlib.suppress(WorkflowFailureError):
        await handle.result()
    return (await stack.story(handle))[-1].outcome


def agreement(stack: Stack, project: str, outcome: Outcome | None) -> str:
    """What claims, database and hosts say that the outcome does not; empty when they agree."""
    claims = sorted(c.state for c in stack.inventory.claims(project=project) if c.state != "released")
    seen, drift = snapshot(stack.site.drivers_dir, project), [d for d in stack.inventory.audit() if project in str(d)]
    try:
        state = stack.inventory.machine(project, "m").state
    except NotFound:  # it was stopped before it asked for anything: nothing was begun
        state = MachineState.FAILED
    wrong = [f"drift: {drift}"] if drift else []
    if outcome is None:
        expected: tuple[Any, ...] = (MachineState.HELD, ["permanent"])
    elif outcome is Outcome.READY:
        expected = (MachineState.READY, ["permanent"])
        if len(seen.powered_on) != 1 or len({each.host for each in seen.objects}) != 1:
            wrong.append(f"on the hosts: {seen}")
    elif outcome is Outcome.QUARANTINED:
        expected = (MachineState.QUARANTINED, ["quarantined"])
    else:
        expected = (MachineState.FAILED, [])
        if not is_clean(stack, project):
            wrong.append(f"left on the hosts: {seen}")
    if (state, claims) != expected:
        wrong.append(f"{outcome}: machine {state}, claims {claims}")
    return "; ".join(wrong)


async def one_run(stack: Stack, seed: int) -> tuple[str, str]:
    """Make a machine, steered at random: how it ended, and what is wrong then, or after a held one was cancelled."""
    chance = random.Random(seed)
    project, hosts = await stack.hosts(2)
    for host in hosts:
        await stack.enrol_with(host, **misbehaviour(chance))
    on_failure = chance.choice(tuple(OnFailure))
    request = stack.request(project, deadlines=DEADLINES, mulligans=chance.randint(0, 2), on_failure=on_failure)
    handle = await stack.start(request)
    await steer(handle, chance)
    outcome = await settle(stack, project, handle)
    ended = "held" if outcome is None else outcome.value
    wrong = agreement(stack, project, outcome)
    if outcome is None and not wrong:
        await handle.cancel()
        with contextlib.suppress(WorkflowFailureError):
            await handle.result()
        outcome = (await stack.story(handle))[-1].outcome
        wrong = agreement(stack, project, outcome)
    return ended, f"seed {seed}: {wrong}" if wrong else ""


async def test_random_levers_end_in_a_state_that_everything_agrees_on(stack: Stack) -> None:
    """Ready, rolled back, held or quarantined: claims, driver and database say the same."""
    gate = asyncio.Semaphore(AT_ONCE)

    async def gated(seed: int) -> tuple[str, str]:
        async with gate:
            return await one_run(stack, seed)

    ended = await asyncio.gather(*(gated(seed) for seed in range(FIRST, FIRST + RUNS)))
    print(f"{RUNS} runs:", dict(Counter(how for how, _ in ended)))
    wrong = [each for _, each in ended if each]
    assert not wrong, "\n".join(wrong)
