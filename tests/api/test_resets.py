"""Runs that an operator resets in Temporal: the two executions agree on what each of them is."""

from __future__ import annotations

from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.enums.v1 import EventType
from temporalio.api.workflowservice.v1 import ResetWorkflowExecutionRequest

from mulligan.v1 import provisioning_pb2, run_pb2
from tests.api.serving import Api, events, everything
from tests.api.test_watch import held
from tests.workflows.stack import Stack, until


async def reset(stack: Stack, run: run_pb2.Run) -> str:
    """Run its newest decision again; the id of the execution that does."""
    handle = stack.client.get_workflow_handle(run.workflow_id, run_id=run.run_id)
    completed = [
        event.event_id
        async for event in handle.fetch_history_events()
        if event.event_type == EventType.EVENT_TYPE_WORKFLOW_TASK_COMPLETED
    ]
    execution = WorkflowExecution(workflow_id=run.workflow_id, run_id=run.run_id)
    asked = ResetWorkflowExecutionRequest(
        namespace="default",
        workflow_execution=execution,
        reason="look again",
        workflow_task_finish_event_id=completed[-1],
        request_id=run.run_id,
    )
    return (await stack.client.workflow_service.reset_workflow_execution(asked)).run_id


async def test_a_run_that_was_reset_is_the_same_in_every_answer(api: Api, stack: Stack) -> None:
    """When it began, how it ended, and which is the newer one: in the list, on its page, and to who watches it."""
    run = await held(api, stack)
    newer = await reset(stack, run)

    async def shown(run_id: str) -> run_pb2.Run:
        asked = provisioning_pb2.GetRunRequest(workflow_id=run.workflow_id, run_id=run_id)
        return (await api.provisioning.GetRun(asked)).run

    async def listed() -> list[run_pb2.Run]:
        asked = provisioning_pb2.ListRunsRequest(project=run.project)
        return [each.run async for each in api.provisioning.ListRuns(asked)]

    async def all_agree() -> bool:
        runs = {each.run_id: each for each in await listed()}
        pages = [await shown(each) for each in (run.run_id, newer)]
        facts = ("started_at", "outcome", "superseded")
        return all(getattr(page, each) == getattr(runs[page.run_id], each) for page in pages for each in facts)

    await until(all_agree)
    asked = provisioning_pb2.GetRunRequest(workflow_id=run.workflow_id, run_id=run.run_id)
    told = await api.provisioning.GetRun(asked)
    assert told.run.reason.endswith("; it was reset: what there is of the machine is the newer run's of its id")
    assert not any("machine release" in each for each in told.events[-1].suggestions), "the newer run has the machine"
    await api.provisioning.CancelRun(provisioning_pb2.CancelRunRequest(workflow_id=run.workflow_id))
    await everything(api.watch(run.workflow_id))
    await until(lambda: _is_kept(stack, newer))
    await until(all_agree)
    assert [(await shown(each)).superseded for each in (run.run_id, newer)] == [True, False]
    old = await everything(api.watch(run.workflow_id, run_id=run.run_id))
    assert old[-1].update.run.run_id == run.run_id
    assert old[-1].update.run.outcome == events(old)[-1].outcome == run_pb2.RUN_OUTCOME_TERMINATED


async def _is_kept(stack: Stack, run_id: str) -> bool:
    return run_id in {record.run_id for record in stack.inventory.runs()}
