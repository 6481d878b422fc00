"""Runs that are under way when their provider is given other settings: each is told, and asks with the new ones."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass

from mulligan.activities.errors import Conflict, MulliganError
from mulligan.activities.inventory import By, ClaimRow, Inventory
from mulligan.activities.levers import LeverIn, LeverKind
from mulligan.activities.threads import run_blocking
from mulligan.activities.values import Target
from mulligan.api.levers import Levers
from mulligan.api.runs import Runs
from mulligan.workflows.runs import provision_id, reclaim_id, release_id

AT_ONCE = 20
"""So many runs are asked for, and told, at the same time."""


@dataclass(frozen=True, slots=True)
class Told:
    """What a run made of its provider's new settings."""

    workflow_id: str
    run_id: str
    said: str


class NewSettings:
    """Pulls `retry-now` for the runs under way on a provider."""

    def __init__(self, inventory: Inventory, runs: Runs, levers: Levers) -> None:
        self._inventory, self._runs, self._levers = inventory, runs, levers

    async def tell(self, before: Target | None, after: Target, by: By) -> list[Told]:
        """What each of its open runs made of it, if anything is new. A held run takes the settings when it is resumed.

        Never raises `MulliganError`: the change stands, and of a run that did not answer it is told so.
        """
        if before is None or before == after:
            return []
        claims = await run_blocking(self._inventory.claims, after.partition)
        reason = f"{after.name} has other settings now{f': {by.reason}' if by.reason else ''}"
        asked, places = LeverIn(actor=by.actor, reason=reason), asyncio.Semaphore(AT_ONCE)

        async def told(workflow_id: str, machine_id: str) -> Told | None:
            async with places:
                return await self._tell(workflow_id, machine_id, asked)

        ids = [each for claim in claims if claim.provider == after.name for each in _ids(claim)]
        answers = await asyncio.gather(*(told(*each) for each in ids))
        return [answer for answer in answers if answer is not None]

    async def _tell(self, workflow_id: str, machine_id: str, asked: LeverIn) -> Told | None:
        run = await self._runs.open_run(workflow_id, machine_id)
        if run is None:
            return None
        try:
            answer = await self._levers.pull(workflow_id, run.run_id, LeverKind.RETRY_NOW, asked)
        except Conflict:  # it is held, or has ended meanwhile
            return None
        except MulliganError as error:
            return Told(workflow_id, run.run_id, f"it does not know the new settings: {error}")
        return Told(workflow_id, run.run_id, answer.said)


def _ids(claim: ClaimRow) -> Iterable[tuple[str, str]]:
    """The runs that may be making, or taking down, what is on a claim, each with its machine's id."""
    named = (provision_id, release_id)
    return (
        *((name(claim.project, claim.machine), claim.machine_id) for name in named),
        (reclaim_id(claim.id), claim.machine_id),
    )
