"""How long the steps of one run usually take, and whether they take longer this time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime

from mulligan.activities.durations import LEARNED, began_at
from mulligan.activities.errors import MulliganError
from mulligan.activities.events import Due, EventKind, RunEvent
from mulligan.activities.values import StepEstimate
from mulligan.api.convert_runs import Progress
from mulligan.api.progress import AWAIT, awaited, until
from mulligan.api.run_views import is_undoing
from mulligan.api.runs import Runs
from mulligan.api.suggestions import for_progress, of_a_pinned_run

BEFORE_A_PROVIDER = "claim"
"""The step in which it is not known yet on what the machine will be made."""


LOOKS = "verify"
"""The step that only looks, and waits for what it looks for."""


class Estimates:
    """For one run: asked of the database once for each provider that it tries, and once before."""

    def __init__(self, runs: Runs, workflow_id: str, machine_id: str) -> None:
        self._runs, self._workflow_id, self._machine_id = runs, workflow_id, machine_id
        self._known: dict[str, Mapping[str, StepEstimate]] = {}

    async def add(
        self, doing: Iterable[Progress], events: Sequence[RunEvent], due: Due | None = None
    ) -> list[Progress]:
        """What is in progress, with how long it usually takes, and may take; `events` are all of the run so far."""
        told = list(doing)
        if not told and (waits := awaited(events)) is not None:
            told.append(waits)
        told = [until(progress, due) for progress in told]
        pinned = any(event.pinned for event in events[:1])
        if pinned:
            told = [replace(each, suggestions=of_a_pinned_run(each.suggestions)) for each in told]
        ending = is_undoing(events) or any(event.kind is EventKind.CANCEL_REQUESTED for event in events)
        if not any(progress.step in LEARNED for progress in told):
            return told
        began, now = began_at(events), datetime.now(UTC)
        provider = events[-1].provider if events else ""
        added = []
        for progress in told:
            known = await self._of("" if progress.step == BEFORE_A_PROVIDER else provider)
            estimate = known.get(progress.step)
            since = began.get((progress.try_number, progress.step))
            slower = bool(estimate and since and (now - since).total_seconds() > estimate.p95_seconds)
            helps = progress.suggestions
            if not helps and not ending:
                long = slower or progress.action == AWAIT or progress.step == LOOKS
                helps = tuple(for_progress(self._workflow_id, progress.step, waits=long, pinned=pinned))
            added.append(replace(progress, estimate=estimate, slower_than_p95=slower, suggestions=helps))
        return added

    async def _of(self, provider: str) -> Mapping[str, StepEstimate]:
        """The estimates there, by step; none while the database does not answer, which is asked again."""
        if provider not in self._known:
            with suppress(MulliganError):
                self._known[provider] = await self._runs.estimates(self._machine_id, provider)
        return self._known.get(provider, {})
