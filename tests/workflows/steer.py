"""Pulling levers in tests, the way the API and Temporal's Web UI do (by an update of the run), and what came of it."""

from __future__ import annotations

import contextlib
import re
import shlex
from typing import Any

import click
import pytest
from temporalio.client import WorkflowFailureError, WorkflowHandle, WorkflowUpdateFailedError
from temporalio.exceptions import ApplicationError

from mulligan.activities.drivers.simulated import journal
from mulligan.activities.events import EventKind, RunEvent
from mulligan.activities.levers import LeverIn, LeverKind, Pulled
from mulligan.activities.values import Deadlines, MachineState
from mulligan.api.cli.main import cli
from tests.workflows.stack import Stack, until

HELD = Deadlines(
    claim_seconds=30, image_seconds=30, boot_seconds=30, verify_seconds=30, run_seconds=90, undo_seconds=30
)


async def pull(handle: WorkflowHandle[Any, Any], kind: LeverKind, reason: str = "a test", **values: Any) -> str:
    """Pull a lever; what it says."""
    asked = LeverIn(actor="alice", reason=reason, **values)
    pulled: Pulled = await handle.execute_update(kind.value, asked, result_type=Pulled)
    return pulled.said


async def refused(handle: WorkflowHandle[Any, Any], kind: LeverKind, **values: Any) -> str:
    """Pull a lever that cannot do what is asked; why not."""
    with pytest.raises(WorkflowUpdateFailedError) as failed:
        await pull(handle, kind, **values)
    assert isinstance(failed.value.cause, ApplicationError)
    assert failed.value.cause.type in ("CONFLICT", "INVALID_REQUEST")
    return failed.value.cause.message


async def last_of(stack: Stack, handle: WorkflowHandle[Any, Any]) -> RunEvent:
    """The run's last event, however it ended."""
    with contextlib.suppress(WorkflowFailureError):
        await handle.result()
    return (await stack.story(handle))[-1]


async def begun(stack: Stack, project: str, verb: str) -> None:
    """Wait until a host of the project was asked for this verb."""

    async def asked() -> bool:
        return any(e.verb == verb for e in journal(stack.site.drivers_dir, project))

    await until(asked)


async def held(stack: Stack, project: str) -> None:
    """Wait until the machine is held."""
    await until(lambda: stack.machine_is(project, "m", MachineState.HELD))


async def is_at(handle: WorkflowHandle[Any, Any], phase: str) -> bool:
    """Whether the run says that it is at this."""
    return await handle.query("phase", result_type=str) == phase


async def was_held(stack: Stack, handle: WorkflowHandle[Any, Any], *, times: int) -> bool:
    """Whether the run was held so often, by now."""
    return [e.kind for e in await stack.story_so_far(handle)].count(EventKind.HELD) == times


def verbs(stack: Stack, project: str, verb: str) -> int:
    """How often the hosts of the project were asked for this verb."""
    return len([e for e in journal(stack.site.drivers_dir, project) if e.verb == verb and e.outcome != "BEGUN"])


def offered(said: str) -> list[str]:
    """The commands that a refusal names; the command line's own parser takes each."""
    commands = re.findall(r"`([^`]+)`", said.partition("possible now: ")[2])
    for command in commands:
        words = shlex.split(command)[1:]
        group: click.Command = cli
        context = click.Context(cli, info_name="mulligan")
        while isinstance(group, click.Group):
            found = group.get_command(context, words.pop(0))
            assert found is not None, command
            group = found
        group.make_context(group.name, words)
    return commands
