"""Registering providers: starting the run that looks at one, and waiting for what it finds."""

from __future__ import annotations

from temporalio.client import Client, WorkflowHandle
from temporalio.common import WorkflowIDConflictPolicy
from temporalio.exceptions import WorkflowAlreadyStartedError

from mulligan.activities.calls import CONTROL_QUEUE
from mulligan.activities.errors import Conflict, NotFound
from mulligan.activities.inventory import Inventory
from mulligan.activities.threads import run_blocking
from mulligan.activities.values import Provider, Target
from mulligan.api.names import require
from mulligan.api.queues import require_workers
from mulligan.workflows import search
from mulligan.workflows.runs import ENROL, EnrolOut, enrol_id

MEMO_TARGET = "target"


class Enrolments:
    """Starts, or joins, the runs that register providers."""

    def __init__(self, client: Client, inventory: Inventory) -> None:
        self._client, self._inventory = client, inventory

    async def enrol(self, target: Target) -> tuple[Target | None, Provider]:
        """How it was registered before, if it was, and the provider as registered now. The run goes on when the caller
        goes away.

        Raises `NotFound` for the partition, `Unreachable` when no worker serves it, `Conflict` when the same name is
        being registered otherwise, and whatever the driver raised.
        """
        require("partition", target.partition, await run_blocking(self._inventory.partitions))
        await require_workers(self._client, target.partition)
        before = await run_blocking(self._known, target.name)
        result: EnrolOut = await (await self._start(target)).result()
        return before, result.provider

    def _known(self, name: str) -> Target | None:
        try:
            return self._inventory.provider(name).target
        except NotFound:
            return None

    async def _start(self, target: Target) -> WorkflowHandle[object, EnrolOut]:
        try:
            return await self._client.start_workflow(
                ENROL,
                target,
                id=enrol_id(target.name),
                task_queue=CONTROL_QUEUE,
                result_type=EnrolOut,
                id_conflict_policy=WorkflowIDConflictPolicy.FAIL,
                memo={MEMO_TARGET: target},
                static_summary=f"Register provider {target.name} of partition {target.partition}",
                search_attributes=search.started(partition=target.partition, provider=target.name, step="enrol"),
            )
        except WorkflowAlreadyStartedError as error:
            handle: WorkflowHandle[object, EnrolOut] = self._client.get_workflow_handle(
                error.workflow_id, run_id=error.run_id, result_type=EnrolOut
            )
        asked = await (await handle.describe()).memo_value(MEMO_TARGET, target, type_hint=Target)
        if asked != target:
            raise Conflict(
                f"provider {target.name!r} is being registered with other parameters ({asked.url}); wait for that",
                provider=target.name,
                workflow_id=handle.id,
            )
        return handle
