"""Removing what is kept on providers for the next machine: with the provider, or with an image that nobody needs."""

from __future__ import annotations

import asyncio

from temporalio import workflow
from temporalio.exceptions import ActivityError

with workflow.unsafe.imports_passed_through():
    from datetime import timedelta

    from mulligan.activities import calls
    from mulligan.activities.values import Target
    from mulligan.workflows import runs, search, steps
    from mulligan.workflows.execution import Execution
    from mulligan.workflows.failures import Failure

REMOVE_WITHIN = timedelta(minutes=15)


@workflow.defn(name=runs.REMOVE)
class RemoveProvider:
    """Removes the bases of all images from a provider, then forgets it. Nothing may be claimed of it any more."""

    @workflow.run
    async def remove(self, target: Target) -> runs.RemoveOut:
        """Remove, then forget."""
        run = Execution(undo_seconds=0)
        search.upsert(step="remove", provider=target.name)
        said = f"Remove the images' bases from {target.name}"
        bases = calls.BasesIn(target)
        gone = await run.act(steps.REMOVE_BASES, bases, said, partition=target.partition, limit=REMOVE_WITHIN)
        await run.act(steps.FORGET_PROVIDER, calls.ProviderRef(target.name), f"Forget {target.name}")
        return runs.RemoveOut(f"{target.name} is forgotten; {gone.said}", gone.removed)


@workflow.defn(name=runs.SPARE)
class SpareImage:
    """Removes an image's bases from every provider, where nothing is built on them."""

    @workflow.run
    async def spare(self, asked: runs.SpareIn) -> str:
        """Ask all; one that does not answer keeps its base, which does no harm but take space."""
        return "; ".join(await asyncio.gather(*(self._from(number, asked) for number in range(len(asked.targets)))))

    async def _from(self, number: int, asked: runs.SpareIn) -> str:
        target = asked.targets[number]
        run = Execution(undo_seconds=0)
        run.try_number = number + 1  # each has actions of its own name
        said = f"Remove {asked.name} from {target.name}"
        bases = calls.BasesIn(target, asked.digest)
        try:
            gone = await run.act(steps.REMOVE_BASES, bases, said, partition=target.partition, limit=REMOVE_WITHIN)
        except ActivityError as error:
            return f"{target.name} keeps {asked.name}: {Failure.of(error).message}"
        return gone.said
