"""What is kept of machines, runs and providers when a run says so. Runs on control workers."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from pydantic import TypeAdapter
from temporalio import activity
from temporalio.api.enums.v1 import PendingActivityState
from temporalio.api.workflow.v1 import PendingActivityInfo
from temporalio.api.workflowservice.v1 import PauseActivityRequest, UnpauseActivityRequest
from temporalio.client import Client

from mulligan.activities import calls
from mulligan.activities.durations import step_seconds
from mulligan.activities.errors import NotFound
from mulligan.activities.events import RunEvent, last_event
from mulligan.activities.history import blamed_by, describe_failure, nobody_began, said_by_heartbeat, seen_meanwhile
from mulligan.activities.inventory import Inventory, Lesson, RunRecord
from mulligan.activities.story import StoryFold
from mulligan.activities.threads import run_blocking
from mulligan.activities.values import MachineState, Outcome, Target

STORY = TypeAdapter(list[RunEvent])
"""How a story is kept: the JSON text of its events."""


def _waits_for_its_next_attempt(pending: PendingActivityInfo) -> bool:
    scheduled = PendingActivityState.PENDING_ACTIVITY_STATE_SCHEDULED
    backs_off = pending.state == scheduled and pending.attempt > 1 and pending.HasField("last_failure")
    return backs_off or pending.paused


def _told(pending: PendingActivityInfo) -> str:
    paused = ", was paused" if pending.paused else ""
    return f"{pending.activity_id.partition('/')[2]} (attempt {pending.attempt}{paused})"


class RecordActivities:
    """Machines' states, runs' stories, and providers as found."""

    def __init__(self, inventory: Inventory, client: Client) -> None:
        self._inventory = inventory
        self._client = client

    @activity.defn(name=calls.RECORD_MACHINE.name)
    async def record_machine(self, asked: calls.MachineUpdate) -> calls.Done:
        """Record a machine's state. READY and HELD make its claim permanent first: it then needs no lease."""
        if not await run_blocking(self._record, asked):
            return calls.Done("the run ended before there was a machine to record")
        if asked.state is MachineState.FAILED and asked.reason:  # a cancelled run has not failed
            return calls.Done(f"recorded: {asked.reason}")
        return calls.Done(f"recorded as {asked.state}{f': {asked.reason}' if asked.reason else ''}")

    def _record(self, asked: calls.MachineUpdate) -> bool:
        """Whether there was a machine to record. One thread for all of it: what waits for each is another."""
        if asked.state in (MachineState.READY, MachineState.HELD):
            self._inventory.make_permanent(asked.claim_id)
        if asked.state is MachineState.READY:
            self._inventory.machine_came_up(asked.machine_id, asked.provider)
        try:
            self._inventory.update_machine(
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
            return False
        return True

    @activity.defn(name=calls.RESUME.name)
    async def resume(self, asked: calls.ResumeIn) -> calls.Claimed:
        """A machine that was held is worked on again: the lease comes first, so that it is never without both."""
        claim = await run_blocking(self._inventory.lease_again, asked.claim_id, asked.lease_seconds)
        provisioning = MachineState.PROVISIONING
        await run_blocking(self._inventory.update_machine, asked.machine_id, state=provisioning, reason="")
        return calls.Claimed(asked.said, claim, claim.target.name)

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
        reason = "" if asked.outcome in (Outcome.READY, Outcome.RELEASED, Outcome.ENROLLED) else asked.outcome.name
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
        lesson = Lesson(record.run_id, record.machine_id, now, step_seconds(events))
        taught = lesson if asked.outcome is Outcome.READY else None
        await run_blocking(self._inventory.keep_run, record, taught)
        return calls.Done("the story is kept")

    @activity.defn(name=calls.WHY.name)
    async def why(self, asked: calls.Nothing) -> calls.Why:
        """What the calling run's actions under way last failed with, or are doing; or that no worker has begun them."""
        info = activity.info()
        assert info.workflow_id is not None
        run = await self._client.get_workflow_handle(info.workflow_id, run_id=info.workflow_run_id).describe()
        for pending in run.raw_description.pending_activities:
            if pending.activity_id == info.activity_id:
                continue
            if waits := nobody_began(pending, info.current_attempt_scheduled_time):
                return calls.Why(waits, calls.OPERATOR)
            seen, _ = seen_meanwhile(pending)
            if pending.HasField("last_failure") and not seen:
                said, reason = describe_failure(pending.last_failure)
                return calls.Why(said, blamed_by(pending.last_failure), reason)
            return calls.Why(seen or said_by_heartbeat(pending.heartbeat_details))
        return calls.Why("")

    @activity.defn(name=calls.RETRY_NOW.name)
    async def retry_now(self, asked: calls.RetryIn) -> calls.Retried:
        """Begin now what the calling run would try again later, or what someone paused; attempts are counted on.

        To unpause begins the next attempt at once and keeps the count, unlike a reset. If this dies in between, its own
        next attempt finds a paused action. Where a provider's settings are others by now nothing is begun with the old
        ones: the run begins it anew.
        """
        info = activity.info()
        assert info.workflow_id is not None
        run = await self._client.get_workflow_handle(info.workflow_id, run_id=info.workflow_run_id).describe()
        waiting = [each for each in run.raw_description.pending_activities if _waits_for_its_next_attempt(each)]
        told = ", ".join(_told(each) for each in waiting)
        if newer := await run_blocking(self._newer, asked.used):
            names = ", ".join(target.name for target in newer)
            begun = f"; begun anew with them: {told}" if waiting else "; nothing waits for another attempt"
            return calls.Retried(f"{names} is asked with its settings of now{begun}", newer, bool(waiting))
        for pending in waiting:
            about: dict[str, Any] = {
                "namespace": self._client.namespace,
                "execution": run.raw_description.workflow_execution_info.execution,
                "identity": self._client.identity,
                "id": pending.activity_id,
            }
            if not pending.paused:
                await self._client.workflow_service.pause_activity(PauseActivityRequest(**about, reason="retry now"))
            await self._client.workflow_service.unpause_activity(UnpauseActivityRequest(**about))
        if not waiting:
            return calls.Retried("nothing waits for another attempt; what is tried goes on")
        return calls.Retried(f"tried again now: {told}", waits=True)

    def _newer(self, used: tuple[Target, ...]) -> tuple[Target, ...]:
        """The settings of now of those providers that have other ones than these. One that is gone has none."""
        newer = []
        for target in used:
            try:
                known = self._inventory.provider(target.name).target
            except NotFound:
                continue
            if known != target:
                newer.append(known)
        return tuple(newer)

    @activity.defn(name=calls.FORGET_PROVIDER.name)
    async def forget_provider(self, asked: calls.ProviderRef) -> calls.Done:
        """Forget a provider that nothing is claimed of."""
        await run_blocking(self._inventory.remove_provider, asked.name)
        return calls.Done(f"{asked.name} is forgotten")

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
