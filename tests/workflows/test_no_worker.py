"""Partitions whose workers are away: that is said, with what helps, and no provider is blamed for it."""

from __future__ import annotations

import itertools
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from temporalio.api.enums.v1 import PendingActivityState, TimeoutType
from temporalio.api.failure.v1 import ApplicationFailureInfo, Failure, TimeoutFailureInfo
from temporalio.api.workflow.v1 import PendingActivityInfo
from temporalio.exceptions import TimeoutError as TimeIsOver
from temporalio.exceptions import TimeoutType as TimedOut

from mulligan.activities.calls import CONTROL_QUEUE, partition_queue
from mulligan.activities.history import nobody_began
from mulligan.activities.inventory import SuspectKind
from mulligan.activities.values import MachineRequest, Outcome, Target
from mulligan.api.processes.worker import partition_worker
from mulligan.workflows.failures import unheard
from tests.workflows.stack import Stack, until
from tests.workflows.steer import HELD, last_of

NOON = datetime(2026, 11, 30, 12, tzinfo=UTC)
_numbers = itertools.count(1)


async def apart(stack: Stack, **settings: str) -> tuple[str, MachineRequest]:
    """A partition of the calling test's own, of the same name as its project, with two hosts and no worker yet; and a
    request for one of them."""
    name = f"away{next(_numbers)}"
    stack.inventory.add_partition(name)
    query = "&".join(f"{key}={value}" for key, value in {"speed": "0", **settings}.items())
    for number in range(2):
        await stack.enrol(Target(f"{name}-h{number}", name, f"simulated://{name}/{name}-h{number}?{query}"))
    return name, replace(stack.request(name, deadlines=HELD, mulligans=1), partition=name)


def is_suspect(stack: Stack, project: str) -> bool:
    """Whether anything is held against a host of the project."""
    names = (each.name for each in stack.inventory.suspects(SuspectKind.PROVIDER))
    return any(name.startswith(f"{project}-") for name in names)


async def test_a_step_that_no_worker_begins_is_not_held_against_its_provider(stack: Stack) -> None:
    """The failure names the command that starts one; another provider of the partition would fail just as well."""
    project, request = await apart(stack)
    deadlines = replace(HELD, image_seconds=3, undo_seconds=2)
    last = await last_of(stack, await stack.start(replace(request, deadlines=deadlines)))
    start = f"`mulligan worker --partition {project}`"
    assert f"no worker of partition {project} has begun it; see that one runs: {start}" in last.message
    assert not is_suspect(stack, project)


async def test_an_undo_that_no_worker_begins_is_not_held_against_its_provider(stack: Stack) -> None:
    """What is left is quarantined all the same, with the reason; the host did nothing wrong."""
    project, request = await apart(stack, personality="no-call-home")
    async with partition_worker(stack.client, project, stack.site):
        handle = await stack.start(replace(request, deadlines=replace(HELD, undo_seconds=3)))
        await until(lambda: stack.has_finished(handle, "observe"))
    await handle.cancel()
    last = await last_of(stack, handle)
    assert last.outcome is Outcome.QUARANTINED
    assert "no worker was heard of in time" in last.message
    assert "`mulligan doctor`" in last.message
    assert not is_suspect(stack, project)


async def test_an_undo_that_a_host_does_not_answer_is_held_against_it(stack: Stack) -> None:
    """A worker is at it, and heard of, until the time is over."""
    project, request = await apart(stack, personality="no-call-home", hold="power_off:*:60")
    async with partition_worker(stack.client, project, stack.site):
        handle = await stack.start(replace(request, deadlines=replace(HELD, undo_seconds=4)))
        await until(lambda: stack.has_finished(handle, "observe"))
        await handle.cancel()
        assert (await last_of(stack, handle)).outcome is Outcome.QUARANTINED
        assert is_suspect(stack, project)


def pending(**values: Any) -> PendingActivityInfo:
    """An action of the partition `north` that was asked for at noon, and no worker has begun."""
    waits = PendingActivityInfo(state=PendingActivityState.PENDING_ACTIVITY_STATE_SCHEDULED, **values)
    waits.activity_options.task_queue.name = partition_queue("north")
    waits.scheduled_time.FromDatetime(NOON)
    return waits


def failed(timeout: TimeoutType.ValueType | None = None) -> Failure:
    """An attempt's failure: the provider's, or a time that was over."""
    if timeout is None:
        return Failure(message="no answer", application_failure_info=ApplicationFailureInfo(type="UNREACHABLE"))
    return Failure(message="over", timeout_failure_info=TimeoutFailureInfo(timeout_type=timeout))


@pytest.mark.parametrize(
    ("action", "said"),
    [
        (pending(), "has begun it;"),
        (
            pending(last_failure=failed(TimeoutType.TIMEOUT_TYPE_HEARTBEAT), attempt=2),
            "since the one that did fell silent",
        ),
        (pending(last_failure=failed(TimeoutType.TIMEOUT_TYPE_START_TO_CLOSE), attempt=2), ""),
        (pending(last_failure=failed(), attempt=2), ""),
    ],
)
def test_that_a_worker_is_missing_is_told_apart_from_a_provider_that_fails(
    action: PendingActivityInfo, said: str
) -> None:
    """By what the last attempt ended with: silence is the worker's, any other end is the provider's."""
    assert said in nobody_began(action, NOON + timedelta(seconds=5))
    assert bool(said) is bool(nobody_began(action, NOON + timedelta(seconds=5)))


def test_an_action_that_hardly_waited_or_runs_has_its_worker() -> None:
    """Neither one that was asked for just now, nor one whose next attempt is not due, nor what another queue has."""
    later, started, control = pending(), pending(), pending()
    later.next_attempt_schedule_time.FromDatetime(NOON + timedelta(seconds=30))
    started.state = PendingActivityState.PENDING_ACTIVITY_STATE_STARTED
    control.activity_options.task_queue.name = CONTROL_QUEUE
    assert not nobody_began(pending(), NOON + timedelta(milliseconds=500))
    assert not any(nobody_began(each, NOON + timedelta(seconds=5)) for each in (later, started, control))


@pytest.mark.parametrize(
    ("kind", "heartbeat", "said"),
    [
        (TimedOut.SCHEDULE_TO_START, (), "no worker was heard of"),
        (TimedOut.SCHEDULE_TO_CLOSE, (), "no worker was heard of"),
        (TimedOut.SCHEDULE_TO_CLOSE, ({"message": "awaits power off"},), ""),
        (TimedOut.HEARTBEAT, ({"message": "awaits power off"},), "its worker fell silent"),
        (TimedOut.START_TO_CLOSE, (), ""),
    ],
)
def test_a_time_that_was_over_is_the_providers_fault_where_a_worker_was_at_it(
    kind: TimedOut, heartbeat: tuple[object, ...], said: str
) -> None:
    """By which time it was, and whether a worker was heard of."""
    told = unheard(TimeIsOver("over", type=kind, last_heartbeat_details=heartbeat))
    assert (said in told, bool(told)) == (True, bool(said))
