"""Registering a provider: its driver looks at it from its own partition, then the inventory records what was found."""

from __future__ import annotations

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from datetime import timedelta

    from mulligan.activities import calls
    from mulligan.activities.values import Target
    from mulligan.workflows import runs, steps
    from mulligan.workflows.execution import Execution

INSPECT_WITHIN = timedelta(minutes=15)


@workflow.defn(name=runs.ENROL)
class EnrolProvider:
    """Looks at a provider and registers it, or looks again at one that is registered."""

    @workflow.run
    async def enrol(self, target: Target) -> runs.EnrolOut:
        """Inspect, then record."""
        run = Execution(undo_seconds=0)
        look = f"Look at {target.name} ({target.url})"
        seen = await run.act(steps.INSPECT, target, look, partition=target.partition, limit=INSPECT_WITHIN)
        record = calls.EnrolRecord(target, seen.inspection)
        enrolled = await run.act(steps.RECORD_PROVIDER, record, "Register what was found")
        return runs.EnrolOut(enrolled.said, enrolled.provider)
