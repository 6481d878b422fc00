"""What the screen shows: runs and providers as the API told of them last. Knows no terminal and no network."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence

from mulligan.api.cli.top.row import Key, Row
from mulligan.v1 import inventory_pb2, provisioning_pb2, run_pb2

LINGER_SECONDS = 10.0
"""How long a run that ended while it was shown stays on the screen, so that its end is seen."""

MOST_STREAMS = 50
"""Runs that are streamed; the others are read one after the other."""


class Model:
    """Feed it what the API answers; ask it for what is to be shown, and for which runs to stream."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._rows: dict[Key, Row] = {}
        self._listed: set[Key] = set()
        self._ended: list[Key] = []
        self._providers: dict[str, inventory_pb2.Provider] = {}
        self.filters = {"runs": "", "providers": ""}
        """What must be in a row of each table for it to be shown; empty shows all."""
        self.shows_ended = False
        self.answered_once = False
        self._troubles: dict[str, str] = {}
        self.on_screen: Sequence[Key] = ()
        """The runs that can be seen now, the selected one first."""

    @property
    def open_count(self) -> int:
        """How many runs are in flight."""
        return sum(not row.is_over for row in self._rows.values())

    def row(self, key: Key) -> Row | None:
        """A run; None when it is not known any more."""
        return self._rows.get(key)

    def listed_open(self, runs: Iterable[run_pb2.Run]) -> None:
        """Take the list of all runs in flight."""
        self._listed = set()
        for run in runs:
            row = self._known(run)
            self._listed.add(row.key)
            if not row.is_over and not row.events:
                row.feed(run_pb2.RunUpdate(run=run))
        self._prune()

    def listed_ended(self, runs: Iterable[run_pb2.Run]) -> None:
        """Take a list of runs that have ended, newest first."""
        self._ended = [self._known(run).key for run in runs if run.outcome != run_pb2.RUN_OUTCOME_OPEN]
        self._prune()

    def listed_providers(self, providers: Iterable[inventory_pb2.Provider]) -> None:
        """Take the list of all providers."""
        self._providers = {each.name: each for each in providers}

    def feed(self, key: Key, update: run_pb2.RunUpdate) -> None:
        """Take an update of a run's stream."""
        self._take(key, lambda row: row.feed(update))

    def story(self, key: Key, told: provisioning_pb2.GetRunResponse) -> None:
        """Take the whole story of a run."""
        self._take(key, lambda row: row.story(told))

    def forget(self, key: Key) -> None:
        """The API does not know this run any more."""
        self._rows.pop(key, None)

    def runs(self) -> list[Row]:
        """The runs to show: those in flight, the oldest first, then those that ended, the newest first."""
        flying = [row for key, row in self._rows.items() if not row.is_over or self._lingers(row)]
        flying.sort(key=lambda row: (row.view.began, row.key))
        shown = [row for row in flying if row.key not in self._ended or not self.shows_ended]
        if self.shows_ended:
            shown += [self._rows[key] for key in self._ended if key in self._rows]
        return [row for row in shown if row.matches(self.filters["runs"])]

    def providers(self) -> list[inventory_pb2.Provider]:
        """The providers to show, by name."""
        text = self.filters["providers"].lower()
        return [each for _, each in sorted(self._providers.items()) if text in f"{each.name} {each.partition}".lower()]

    def to_stream(self) -> list[Key]:
        """The runs whose streams are wanted: what can be seen before the rest, and not more than MOST_STREAMS."""
        flying = [row.key for row in self._rows.values() if not row.is_over]
        ordered = dict.fromkeys([key for key in self.on_screen if key in set(flying)] + flying)
        return list(ordered)[:MOST_STREAMS]

    def to_read(self, streamed: Iterable[Key], most: int) -> list[Key]:
        """Runs without a stream whose story is to be read: what vanished from the list, is looked at, or is stale."""
        skip = set(streamed)
        gone = [key for key, row in self._rows.items() if not row.is_over and key not in self._listed]
        ended = [key for key in self.on_screen[:1] if key in self._rows and not self._rows[key].events]
        quiet = sorted(
            (row for row in self._rows.values() if not row.is_over and row.key not in skip), key=lambda row: row.told_at
        )
        return list(dict.fromkeys([*gone, *ended, *(row.key for row in quiet)]))[:most]

    def answered(self, what: str) -> None:
        """The API told of this, e.g. of the runs."""
        self.answered_once = True
        self._troubles.pop(what, None)

    def lost(self, what: str, why: str) -> None:
        """The API could not be asked for this."""
        self._troubles[what] = why

    @property
    def trouble(self) -> str:
        """Why the API does not answer; empty while it does, and before its first answer."""
        return next(iter(self._troubles.values()), "")

    def _known(self, run: run_pb2.Run) -> Row:
        key = Key(run.workflow_id, run.run_id)
        if key not in self._rows:
            self._rows[key] = Row(run)
        self._rows[key].run.superseded |= run.superseded
        return self._rows[key]

    def _take(self, key: Key, tell: Callable[[Row], None]) -> None:
        if (row := self._rows.get(key)) is None:
            return
        was_over, row.told_at = row.is_over, self._clock()
        tell(row)
        if row.is_over and not was_over:
            row.ended_at = self._clock()

    def _lingers(self, row: Row) -> bool:
        return row.ended_at is not None and self._clock() - row.ended_at < LINGER_SECONDS

    def _prune(self) -> None:
        kept = set(self._ended) if self.shows_ended else set()
        self._rows = {
            key: row
            for key, row in self._rows.items()
            if not row.is_over or key in kept or key in self._listed or self._lingers(row)
        }
