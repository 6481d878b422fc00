"""Registering a provider: its driver looks at it from its own partition, then the inventory records what was found."""

from __future__ import annotations

from temporalio import workflow
from temporalio.exceptions import ActivityError

with workflow.unsafe.imports_passed_through():
    from datetime import timedelta

    from mulligan.activities import calls
    from mulligan.activities.values import Outcome, Target
    from mulligan.workflows import runs, search, steps
    from mulligan.workflows.execution import Execution
    from mulligan.workflows.failures import Failure

INSPECT_WITHIN = timedelta(minutes=15)

KEEPS_STORY = "enrol-keeps-its-story"
"""An enrolment's story is kept when it ends. Those that began before this was so end without (docs/versioning.md)."""


@workflow.defn(name=runs.ENROL)
class EnrolProvider:
    """Looks at a provider and registers it, or looks again at one that is registered."""

    @workflow.run
    async def enrol(self, target: Target) -> runs.EnrolOut:
        """Inspect, then record; keep the story, however it ends."""
        run = Execution(undo_seconds=0)
        search.upsert(step="enrol", provider=target.name)
        try:
            enrolled = await _look_and_record(run, target)
        except ActivityError as error:
            await _keep_story(run, Outcome.FAILED, Failure.of(error).message)
            raise
        search.upsert(outcome=Outcome.ENROLLED)
        await _keep_story(run, Outcome.ENROLLED, "")
        return runs.EnrolOut(enrolled.said, enrolled.provider)


async def _look_and_record(run: Execution, target: Target) -> calls.Enrolled:
    look = f"Look at {target.name} ({target.url})"
    seen = await run.act(steps.INSPECT, target, look, partition=target.partition, limit=INSPECT_WITHIN)
    record = calls.EnrolRecord(target, seen.inspection)
    return await run.act(steps.RECORD_PROVIDER, record, "Register what was found")


async def _keep_story(run: Execution, outcome: Outcome, reason: str) -> None:
    if workflow.patched(KEEPS_STORY):
        await run.keep_story(calls.StoryIn("", "", "", outcome, reason))
