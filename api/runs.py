"""Runs wherever they are: open and recent ones in Temporal, older ones kept in the database."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime

from temporalio.client import (
    Client,
    WorkflowExecution,
    WorkflowExecutionDescription,
    WorkflowExecutionStatus,
    WorkflowHandle,
    WorkflowHistoryEventFilterType,
)
from temporalio.service import RPCError, RPCStatusCode

from mulligan.activities.errors import NotFound
from mulligan.activities.events import Due, RunEvent
from mulligan.activities.inventory import Inventory, RunRecord, driver_of, model_of
from mulligan.activities.inventory.machine import Machine
from mulligan.activities.record import STORY
from mulligan.activities.story import StoryFold
from mulligan.activities.threads import run_blocking
from mulligan.activities.values import MachineState, Outcome, StepEstimate
from mulligan.api.convert_runs import RunView
from mulligan.api.mended import with_what_became
from mulligan.api.names import no_run
from mulligan.api.run_ids import parse_id
from mulligan.api.run_views import GOOD, view_of_execution, view_of_machine, view_of_record, visibility_query
from mulligan.workflows.runs import MEMO_MACHINE_ID, provision_id, reclaim_id, release_id

_UNKNOWN = frozenset({RPCStatusCode.NOT_FOUND, RPCStatusCode.INVALID_ARGUMENT})
"""What Temporal says of a run that it does not have, and of an id that cannot be one."""

PAGE = 500
MARGIN = 50
"""How many more than asked for are looked at, because the two lists are not in the same order."""

MOST_OF_A_MACHINE = 20
"""So many runs of one machine are told at most."""


@dataclass(frozen=True, slots=True)
class Found:
    """A run, and where it was found: Temporal's description, else the kept record."""

    view: RunView
    description: WorkflowExecutionDescription | None = None
    record: RunRecord | None = None

    @property
    def is_open(self) -> bool:
        """Whether it has not ended."""
        return self.view.outcome is Outcome.OPEN


def _superseded(newest_first: Iterable[RunView], newer: Iterable[str]) -> set[str]:
    """The run ids of ended runs whose workflow id a newer one has; `newer` are ids of workflows newer than these."""
    seen, older = set(newer), set[str]()
    for view in newest_first:
        if view.workflow_id in seen and view.outcome is not Outcome.OPEN:
            older.add(view.run_id)
        seen.add(view.workflow_id)
    return older


class Runs:
    """Finds and lists runs."""

    def __init__(self, client: Client, inventory: Inventory) -> None:
        self._client = client
        self._inventory = inventory

    def handle(self, workflow_id: str, run_id: str) -> WorkflowHandle[object, object]:
        """Temporal's handle of one execution."""
        return self._client.get_workflow_handle(workflow_id, run_id=run_id or None)

    async def find(self, workflow_id: str, run_id: str = "") -> Found:
        """The run; without a run id the newest of the workflow id. Raises `NotFound` with the nearest names."""
        if parse_id(workflow_id) is not None:
            if (description := await self.describe(workflow_id, run_id)) is not None:
                cancelled = description.raw_description.workflow_extended_info.cancel_requested
                view = replace(await self._view(description), cancel_requested=cancelled)
                view = replace(view, held=view.outcome is Outcome.OPEN and await self._is_held(view.machine_id))
                view = replace(view, superseded=bool(run_id) and await self._has_newer(view))
                return Found(await self._with_what_became(view), description)
            if (record := await self._record(workflow_id, run_id)) is not None:
                view = view_of_record(record)
                view = replace(view, superseded=bool(run_id) and await self._has_newer(view))
                return Found(await self._with_what_became(view), record=record)
        if run_id:
            await self.find(workflow_id)
            message = f"no run {run_id[:80]!r} of {workflow_id!r}; ask without the run id for the newest"
            raise NotFound(message, what="run", name=workflow_id, run_id=run_id[:80])
        raise no_run(workflow_id, [run.workflow_id async for run in self.listed(limit=200)])

    async def describe(self, workflow_id: str, run_id: str = "") -> WorkflowExecutionDescription | None:
        """What Temporal says of it; None when it does not, or no longer, know it."""
        try:
            return await self.handle(workflow_id, run_id).describe()
        except RPCError as error:
            if error.status in _UNKNOWN:
                return None
            raise

    async def _has_newer(self, view: RunView) -> bool:
        """Whether a newer run has its workflow id; an open run is the newest."""
        if view.outcome is Outcome.OPEN:
            return False
        newest = await self.describe(view.workflow_id) or await self._record(view.workflow_id, "")
        return newest is not None and newest.run_id != view.run_id

    async def open_run(self, workflow_id: str, machine_id: str) -> WorkflowExecutionDescription | None:
        """The open execution of this workflow id that is about this machine, also when it was reset meanwhile."""
        found = await self.describe(workflow_id)
        if found is None or found.status is not WorkflowExecutionStatus.RUNNING:
            return None
        about = await found.memo_value(MEMO_MACHINE_ID, machine_id, type_hint=str)
        return found if about == machine_id else None

    async def making(self, project: str, machine: str, machine_id: str) -> WorkflowExecutionDescription | None:
        """The open run that makes, or holds, this machine."""
        return await self.open_run(provision_id(project, machine), machine_id)

    async def taking_down(self, machine: Machine) -> WorkflowExecutionDescription | None:
        """The open run that takes it down: because that was asked for, or because its claim was abandoned."""
        claim = await run_blocking(self._inventory.live_claim_of, machine.id)
        claim_id = claim.id if claim is not None else machine.claim_id
        for workflow_id in (release_id(machine.project, machine.name), reclaim_id(claim_id)):
            if (found := await self.open_run(workflow_id, machine.id)) is not None:
                return found
        return None

    async def story(self, found: Found) -> list[RunEvent]:
        """Its events so far."""
        return (await self.story_and_due(found))[0]

    async def story_and_due(self, found: Found) -> tuple[list[RunEvent], Due | None]:
        """Its events so far, and until when the step that runs has time."""
        if found.record is not None:
            return STORY.validate_json(found.record.story), None
        story = StoryFold()
        events = self.handle(found.view.workflow_id, found.view.run_id).fetch_history_events()
        told = [told async for event in events if (told := story.feed(event)) is not None]
        return told, story.due

    async def kept_story(self, workflow_id: str, run_id: str) -> list[RunEvent]:
        """The events of a run that Temporal has forgotten. Raises `NotFound` when it was not kept either."""
        record = await run_blocking(self._inventory.run, workflow_id, run_id)
        return STORY.validate_json(record.story)

    async def estimates(self, machine_id: str, provider: str) -> Mapping[str, StepEstimate]:
        """How long each step usually takes for this machine's image on this provider (or, if empty, on any).

        Raises `NotFound` for a machine or provider that is not there, or not yet.
        """
        return await run_blocking(self._estimates, machine_id, provider)

    def _estimates(self, machine_id: str, provider: str) -> Mapping[str, StepEstimate]:
        machine = self._inventory.machine_by_id(machine_id)
        on = self._inventory.provider(provider) if provider else None
        group = (driver_of(on), model_of(on)) if on is not None else ("", "")
        known = self._inventory.estimates(machine.image.name, *group, machine.request.verify)
        return {each.step: each for each in known}

    async def machine(self, machine_id: str) -> Machine | None:
        """The machine of a run, if there is one."""
        try:
            return await run_blocking(self._inventory.machine_by_id, machine_id)
        except NotFound:
            return None

    async def of_machine(self, workflow_id: str, run_id: str, machine: Machine) -> RunView:
        """A run that ended with this machine; what is known of the machine when the run is no longer kept anywhere."""
        try:
            view = (await self.find(workflow_id, run_id)).view
            was_reset = view.outcome is Outcome.TERMINATED and machine.ready_at is not None
            return (await self.find(workflow_id)).view if was_reset else view
        except NotFound:
            return view_of_machine(workflow_id, run_id, machine)

    async def listed(
        self, project: str = "", machine: str = "", outcome: Outcome | None = None, limit: int = 100
    ) -> AsyncGenerator[RunView, None]:
        """Runs, newest first, each once; what is open is asked of Temporal, what is kept of the database."""
        kept, older = await self._kept(project, machine, outcome, limit)
        seen = {run.run_id: run for run in kept}
        query = visibility_query(project, machine, outcome)
        async for execution in self._client.list_workflows(query, page_size=min(limit, PAGE)):
            is_open = execution.status is WorkflowExecutionStatus.RUNNING
            if parse_id(execution.id) is None:
                continue
            if execution.run_id in seen and not is_open:  # one that was reset is kept as begun with the first of them
                seen[execution.run_id] = replace(seen[execution.run_id], started_at=execution.start_time)
                continue
            view = await self._view(execution)
            seen[view.run_id] = view
            if sum(outcome in (None, run.outcome) for run in seen.values()) >= limit + MARGIN:
                break
        newest = sorted(seen.values(), key=lambda run: (run.started_at is not None, run.started_at), reverse=True)
        older |= _superseded(newest, await self._open_ids(project, machine) if outcome is not None else set())
        wanted = [run for run in newest if outcome in (None, run.outcome)][:limit]
        wanted = [replace(run, superseded=run.run_id in older) for run in wanted]
        held = await self._held(project) if any(run.outcome is Outcome.OPEN for run in wanted) else frozenset()
        for view in await run_blocking(with_what_became, wanted, self._inventory):
            yield replace(view, held=view.outcome is Outcome.OPEN and view.machine_id in held)

    async def about(self, machine: Machine) -> list[RunView]:
        """The newest runs of this machine, and of no other that had its name; none while Temporal cannot list them."""
        with suppress(RPCError):
            listed = self.listed(machine.project, machine.name)
            return [view async for view in listed if view.machine_id == machine.id][:MOST_OF_A_MACHINE]
        return []

    async def others(self, view: RunView) -> list[RunView]:
        """The other runs of a run's machine."""
        machine = await self.machine(view.machine_id) if view.machine_id else None
        return [each for each in await self.about(machine) if each.run_id != view.run_id] if machine is not None else []

    async def _open_ids(self, project: str, machine: str) -> set[str]:
        """The workflow ids under which a run is open."""
        query = visibility_query(project, machine, Outcome.OPEN)
        return {execution.id async for execution in self._client.list_workflows(query, page_size=PAGE)}

    async def _with_what_became(self, view: RunView) -> RunView:
        if view.outcome is Outcome.OPEN or view.outcome in GOOD:
            return view
        return (await run_blocking(with_what_became, [view], self._inventory))[0]

    async def _held(self, project: str) -> frozenset[str]:
        """The ids of the machines that are held: their runs wait for an operator."""
        machines = await run_blocking(self._inventory.machines, project, "", (MachineState.HELD,))
        return frozenset(machine.id for machine in machines)

    async def _is_held(self, machine_id: str) -> bool:
        machine = await self.machine(machine_id) if machine_id else None
        return machine is not None and machine.state is MachineState.HELD

    async def _kept(
        self, project: str, machine: str, outcome: Outcome | None, limit: int
    ) -> tuple[list[RunView], set[str]]:
        """Those that are kept, and the run ids of those of them whose workflow id a newer one has."""
        kept: list[RunView] = []
        ids: set[str] = set()
        older: set[str] = set()
        before: tuple[datetime, str] | None = None
        while len(kept) < limit and outcome is not Outcome.OPEN:
            page = await run_blocking(self._inventory.runs, project, machine, PAGE, before)
            views = [view_of_record(record) for record in page if parse_id(record.workflow_id) is not None]
            older |= _superseded(views, ids)
            ids |= {view.workflow_id for view in views}
            kept += [view for view in views if outcome in (None, view.outcome)]
            if len(page) < PAGE:
                break
            before = (page[-1].started_at, page[-1].run_id)
        return kept[:limit], older

    async def _view(self, execution: WorkflowExecution) -> RunView:
        view = await view_of_execution(execution)
        return view if view.outcome in (Outcome.OPEN, *GOOD) else await self._ended(view)

    async def _ended(self, view: RunView) -> RunView:
        """The view of a run that ended badly, with its outcome and reason: as it was kept, else as its last event has
        them, which does not know what was undone."""
        record = await self._record(view.workflow_id, view.run_id)
        if record is not None and view.outcome is not Outcome.TERMINATED and record.outcome not in GOOD:
            return replace(view, outcome=record.outcome, reason=record.reason)
        handle = self.handle(view.workflow_id, view.run_id)
        async for event in handle.fetch_history_events(event_filter_type=WorkflowHistoryEventFilterType.CLOSE_EVENT):
            if (last := StoryFold().feed(event)) is not None:
                cancelled = last.outcome is Outcome.CANCELLED
                return replace(view, outcome=last.outcome, reason="cancelled" if cancelled else last.message)
        return view

    async def _record(self, workflow_id: str, run_id: str) -> RunRecord | None:
        try:
            return await run_blocking(self._inventory.run, workflow_id, run_id)
        except NotFound:
            return None
