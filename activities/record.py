"""What is kept of machines, runs and providers when a run says so. Runs on control workers."""

from __future__ import annotations

from datetime import UTC, datetime

from pydantic import TypeAdapter
from temporalio import activity
from temporalio.client import Client

from mulligan.activities import calls
from mulligan.activities.errors import NotFound
from mulligan.activities.inventory import Inventory, RunRecord
from mulligan.activities.story import (
    RunEvent,
    StoryFold,
    blamed_by,
    describe_failure,
    last_event,
    said_by_heartbeat,
)
from mulligan.activities.threads import run_blocking
from mulligan.activities.values import MachineState, Outcome

STORY = TypeAdapter(list[RunEvent])
"""How a story is kept: the JSON text of its events."""


class RecordActivities:
    """Machines' states, runs' stories, and providers as found."""

    def __init__(self, inventory: Inventory, client: Client) -> None:
        self._inventory = inventory
        self._client = client

    @activity.defn(name=calls.RECORD_MACHINE.name)
    async def record_machine(self, asked: calls.MachineUpdate) -> calls.Done:
        """Record a machine's state. READY and HELD make its claim permanent first: it then needs no lease."""
        if asked.state in (MachineState.READY, MachineState.HELD):
            await run_blocking(self._inventory.make_permanent, asked.claim_id)
        if asked.state is MachineState.READY:
            await run_blocking(self._inventory.clear_suspect, asked.provider)
        try:
            await run_blocking(
                self._inventory.update_machine,
                asked.machine_id,
                state=asked.state,
                provider=asked.provider or None,
                claim_id=asked.claim_id or None,
                addresses=asked.addresses or None,
                login=asked.login or None,
                evidence=asked.evidence or None,
                reason=asked.reason,
                ready_at=datetime.now(UTC) if asked.state is MachineState.READY else None,
            )
        except NotFound:
            return calls.Done("the run ended before there was a machine to record")
        return calls.Done(f"recorded as {asked.state}{f': {asked.reason}' if asked.reason else ''}")

    @activity.defn(name=calls.KEEP_STORY.name)
    async def keep_story(self, asked: calls.StoryIn) -> calls.Done:
        """Keep the calling run's story, for the time when Temporal has forgotten it."""
        info = activity.info()
        assert info.workflow_id is not None
        handle = self._client.get_workflow_handle(info.workflow_id, run_id=info.workflow_run_id)
        story, events = StoryFold(), []
        async for event in handle.fetch_history_events():
            if (told := story.feed(event)) is not None:
                events.append(told)
        now = datetime.now(UTC)
        reason = "" if asked.outcome in (Outcome.READY, Outcome.RELEASED) else asked.outcome.name
        events.append(last_event(now, asked.outcome, asked.reason or str(asked.outcome), reason, story.provider))
        record = RunRecord(
            workflow_id=info.workflow_id,
            run_id=info.workflow_run_id or "",
            kind=info.workflow_id.partition(":")[0],
            project=asked.project,
            machine=asked.machine,
            machine_id=asked.machine_id,
            outcome=asked.outcome,
            reason=asked.reason,
            started_at=events[0].at,
            ended_at=now,
            story=STORY.dump_json(events).decode(),
        )
        await run_blocking(self._inventory.keep_run, record)
        return calls.Done("the story is kept")

    @activity.defn(name=calls.WHY.name)
    async def why(self, asked: calls.Nothing) -> calls.Why:
        """What the calling run's actions under way last failed with, or are doing."""
        info = activity.info()
        assert info.workflow_id is not None
        run = await self._client.get_workflow_handle(info.workflow_id, run_id=info.workflow_run_id).describe()
        for pending in run.raw_description.pending_activities:
            if pending.activity_id == info.activity_id:
                continue
            if pending.HasField("last_failure"):
                return calls.Why(describe_failure(pending.last_failure)[0], blamed_by(pending.last_failure))
            return calls.Why(said_by_heartbeat(pending.heartbeat_details))
        return calls.Why("")

    @activity.defn(name=calls.RECORD_PROVIDER.name)
    async def record_provider(self, asked: calls.EnrolRecord) -> calls.Enrolled:
        """Register what a driver found."""
        target = asked.target
        provider = await run_blocking(
            self._inventory.put_provider,
            target.name,
            target.partition,
            target.url,
            target.credential,
            asked.inspection,
            {**target.settings, **asked.inspection.settings},
        )
        rows = ", ".join(f"{row.capacity} {row.resource}" for row in provider.inventory)
        return calls.Enrolled(f"{provider.name} gives {rows} in {provider.partition}", provider)
