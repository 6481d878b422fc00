"""BMCs listed: a partition is asked how its BMCs answer. Claims nothing and changes nothing."""

from __future__ import annotations

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from datetime import timedelta

    from mulligan.activities.bmc_health import BmcsIn, BmcsOut
    from mulligan.workflows import runs, steps
    from mulligan.workflows.execution import Execution

LIST_WITHIN = timedelta(seconds=15)
PROBE_WITHIN = timedelta(seconds=60)

BEGIN_WITHIN = timedelta(seconds=6)
"""So soon a worker of the partition must have begun; someone waits."""


@workflow.defn(name=runs.BMCS)
class ListBmcs:
    """Asks a partition for its BMCs."""

    @workflow.run
    async def list_bmcs(self, asked: BmcsIn) -> BmcsOut:
        """Ask once."""
        run = Execution(undo_seconds=0)
        action, limit = (steps.PROBE_BMCS, PROBE_WITHIN) if asked.probe else (steps.LIST_BMCS, LIST_WITHIN)
        said = f"{'Ask' if asked.probe else 'List'} the BMCs of {asked.partition}"
        return await run.act(action, asked, said, partition=asked.partition, limit=limit, begin_within=BEGIN_WITHIN)
