"""Workflow code is deterministic: every kind of history replays with today's code."""

from __future__ import annotations

import contextlib

from temporalio.client import WorkflowFailureError
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.worker import Replayer
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner, SandboxRestrictions

from mulligan.activities.values import Deadlines
from mulligan.workflows import all_workflows
from tests.workflows.stack import Stack, until


async def test_every_kind_of_history_replays(stack: Stack) -> None:
    """Ready, failed after a mulligan, cancelled, and released."""
    project, hosts = await stack.hosts(2)
    ready = await stack.start(stack.request(project, "ready"))
    await ready.result()
    released = await stack.release(project, "ready")
    await released.result()
    for host in hosts:
        await stack.enrol_with(host, personality="no-call-home")
    failed = await stack.start(
        stack.request(project, "failed", mulligans=1, deadlines=Deadlines(verify_seconds=2, undo_seconds=8))
    )
    cancelled = await stack.start(stack.request(project, "cancelled"))
    await until(lambda: stack.has_finished(cancelled, "prepare"))
    await cancelled.cancel()
    # Only value types pass through: workflow code that asks a clock or dice of its own fails here.
    strict = SandboxedWorkflowRunner(
        restrictions=SandboxRestrictions.default.with_passthrough_modules(
            "mulligan.activities.values", "mulligan.activities.calls"
        )
    )
    replayer = Replayer(workflows=all_workflows(), data_converter=pydantic_data_converter, workflow_runner=strict)
    for handle in (ready, released, failed, cancelled):
        with contextlib.suppress(WorkflowFailureError):
            await handle.result()
        await replayer.replay_workflow(await handle.fetch_history())
