"""Levers, cancels and calls home while the database takes its time, or is away: what was answered has its effect."""

from __future__ import annotations

import asyncio
import threading
import time
from dataclasses import replace
from typing import Any

import pytest
from temporalio import activity
from temporalio.client import WorkflowHandle

from mulligan.activities import calls
from mulligan.activities.errors import Unreachable
from mulligan.activities.events import EventKind
from mulligan.activities.inventory.suspects import SuspectKind
from mulligan.activities.levers import LeverKind
from mulligan.activities.values import OnFailure, Outcome
from tests.workflows.behind import called
from tests.workflows.stack import Stack, is_clean, until
from tests.workflows.stalls import ended_or_held, knows_of_its_cancel, started
from tests.workflows.steer import HELD, begun, held, last_of, pull, refused, verbs


@pytest.mark.parametrize("lever", [LeverKind.ABORT, LeverKind.MULLIGAN])
async def test_a_lever_while_its_failure_is_noted_ends_the_try(stack: Stack, stall: Any, lever: LeverKind) -> None:
    """It was answered, so the run is not held for the failure; here the database takes its time for noting that."""
    project, _ = await stack.hosts(1, fail="define:*:Unsupported")
    noting = stall("record_failure")
    handle = await stack.start(stack.request(project, on_failure=OnFailure.HOLD, deadlines=HELD))
    await noting.begun()
    await stack.another_host(project)
    await pull(handle, lever, "wrong image")
    noting.go.set()
    await until(lambda: ended_or_held(stack, project, handle))
    ended = Outcome.FAILED if lever is LeverKind.ABORT else Outcome.READY
    assert (await last_of(stack, handle)).outcome is ended


async def test_a_cancel_while_a_slow_step_looks_for_another_host_stops_it(stack: Stack, stall: Any) -> None:
    """The look swallows the cancel; the step does not go on to its deadline for that."""
    project, _ = await stack.hosts(1, fail="define:*:Unreachable")
    looking = stall("explain")
    request = stack.request(project, mulligans=1, deadlines=replace(HELD, boot_seconds=24))
    handle = await stack.start(request)
    await looking.begun()
    await handle.cancel()
    await until(lambda: knows_of_its_cancel(handle))
    looking.go.set()
    last = await last_of(stack, handle)
    assert last.outcome is Outcome.CANCELLED
    assert not any(e.kind is EventKind.DEADLINE_PASSED for e in await stack.story(handle))
    assert is_clean(stack, project)


async def test_a_cancel_right_after_an_extension_at_the_deadline_stops_the_step(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The deadline has passed, it is asked why, more time is given, and then the run is cancelled: at once."""
    asked, go, describe = asyncio.Event(), asyncio.Event(), WorkflowHandle.describe

    async def slowly(handle: WorkflowHandle[Any, Any], **values: Any) -> Any:
        if activity.in_activity() and activity.info().activity_type == calls.WHY.name:
            asked.set()
            await go.wait()
        return await describe(handle, **values)

    monkeypatch.setattr(WorkflowHandle, "describe", slowly)
    project, _ = await stack.hosts(fail="define:*:Busy")
    handle = await stack.start(stack.request(project, deadlines=replace(HELD, boot_seconds=2)))
    try:
        async with asyncio.timeout(30):
            await asked.wait()
        await pull(handle, LeverKind.EXTEND, seconds=600)
        await handle.cancel()
        await until(lambda: knows_of_its_cancel(handle))
    finally:
        go.set()
    assert (await last_of(stack, handle)).outcome is Outcome.CANCELLED
    assert is_clean(stack, project)


async def test_a_guest_that_calls_while_a_resume_is_recorded_gets_its_disk_anew(stack: Stack, stall: Any) -> None:
    """It calls once only: booted again from the disk from which it called, it would never be proved."""
    project, _ = await stack.hosts(personality="no-call-home")
    request = stack.request(project, on_failure=OnFailure.HOLD, deadlines=replace(HELD, verify_seconds=3))
    handle = await stack.start(request)
    await held(stack, project)
    recording = stall("lease_again")
    await pull(handle, LeverKind.RESUME, step="boot")
    await recording.begun()
    await called(handle, stack, project)
    recording.go.set()

    async def is_booted_again() -> bool:
        return await started(stack, handle, "boot") == 2

    await until(is_booted_again)
    assert verbs(stack, project, "create_disks") == 2
    await handle.cancel()
    await last_of(stack, handle)


async def test_a_step_is_not_kept_by_a_look_for_another_host(stack: Stack, stall: Any) -> None:
    """The database does not answer, and so neither the look: the host's own boot ends well, and the run goes on."""
    fails = ",".join(f"define:{number}:Unreachable" for number in (1, 2, 3))
    project, _ = await stack.hosts(1, fail=fails)
    looking = stall("explain")
    handle = await stack.start(stack.request(project, mulligans=1, deadlines=replace(HELD, boot_seconds=16)))
    await looking.begun()
    await until(lambda: stack.has_finished(handle, "boot"))

    async def is_looked_at() -> bool:
        return await started(stack, handle, "observe") == 1

    await until(is_looked_at)
    assert not looking.go.is_set()
    looking.go.set()
    assert (await last_of(stack, handle)).outcome is Outcome.READY


async def test_a_database_that_is_away_for_longer_than_an_undo_quarantines_nothing(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All is undone on the host; that the claim is given back is recorded once that can be. Nobody is blamed."""
    project, hosts = await stack.hosts(personality="no-call-home")
    handle = await stack.start(stack.request(project, deadlines=replace(HELD, undo_seconds=3)))
    await begun(stack, project, "power_on")
    is_back = threading.Event()
    tries: list[float] = []

    def away(method: Any) -> Any:
        def ask(*args: Any, **kwargs: Any) -> Any:
            if not is_back.is_set():
                tries.append(time.monotonic())
                raise Unreachable("the database does not answer")
            return method(*args, **kwargs)

        return ask

    for name in ("release_claim", "quarantine_claim", "update_machine", "record_failure", "keep_run"):
        monkeypatch.setattr(stack.inventory, name, away(getattr(stack.inventory, name)))
    await handle.cancel()
    await until(lambda: _true(len(tries) > 1 and tries[-1] - tries[0] > 4))
    is_back.set()
    assert (await last_of(stack, handle)).outcome is Outcome.CANCELLED
    assert stack.inventory.provider(hosts[0].name).suspect_count == 0
    assert is_clean(stack, project)


async def _true(value: bool) -> bool:
    return value


async def test_an_undo_that_fails_after_a_held_failure_is_held_against_the_host_too(stack: Stack) -> None:
    """Both are failures of one try; neither is taken for the other."""
    fails = ",".join(f"{verb}:*:AccessDenied" for verb in ("remove_disks", "undefine", "power_off"))
    project, hosts = await stack.hosts(fail=f"power_on:*:Unsupported,{fails}")
    handle = await stack.start(stack.request(project, on_failure=OnFailure.HOLD, deadlines=HELD))
    await held(stack, project)
    await pull(handle, LeverKind.ABORT)
    assert (await last_of(stack, handle)).outcome is Outcome.QUARANTINED
    suspect = stack.inventory.suspect(SuspectKind.PROVIDER, hosts[0].name)
    assert sorted(each.step for each in suspect.evidence) == ["boot", "undo"]


async def test_a_mulligan_that_the_database_keeps_waiting_says_that_it_is_not_known(stack: Stack, stall: Any) -> None:
    """There is another host, and a worker too; neither is denied."""
    project, _ = await stack.hosts(2, personality="no-call-home")
    handle = await stack.start(stack.request(project, deadlines=HELD))
    await begun(stack, project, "power_on")
    looking = stall("explain")
    said = await refused(handle, LeverKind.MULLIGAN)
    assert "it is not known whether another provider fits: the database takes its time" in said
    looking.go.set()
    await handle.cancel()
    assert (await last_of(stack, handle)).outcome is Outcome.CANCELLED
