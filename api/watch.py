"""Watching runs: any number of watchers, one long-poll per watched run, and cursors that outlive this process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

from mulligan.activities.errors import InvalidRequest, NotFound, Unreachable
from mulligan.activities.values import Outcome
from mulligan.api.convert_runs import Update, parse_cursor
from mulligan.api.feed import BACKLOG, Feed, is_last
from mulligan.api.runs import Found, Runs

RUNS_PER_SECOND = 100
"""How many runs are asked for their progress in a second, at most; and each at most once a second."""


class Hub:
    """The watched runs of this process."""

    def __init__(self, runs: Runs, *, backlog: int = BACKLOG) -> None:
        self._runs, self._backlog = runs, backlog
        self._feeds: dict[str, Feed] = {}
        self._finding: dict[tuple[str, str], asyncio.Task[Found]] = {}
        self._stopped = False

    async def watch(
        self, workflow_id: str, run_id: str = "", cursor: str = ""
    ) -> AsyncGenerator[tuple[str, Update], None]:
        """(run id, update) from the cursor to the end of the run: the run first, the run and its machine last.

        Goes on with the next execution when an operator resets the run, unless it had ended so when it was asked for by
        its run id. Raises `NotFound` for the run and `InvalidRequest` for a cursor that is none, or another run's.
        """
        this_one = bool(run_id) and not cursor
        run_id, after = _start(run_id, cursor)
        while True:
            feed = await self._subscribe(workflow_id, run_id, cursor)
            run_id = feed.view.run_id
            this_one = this_one and feed.view.outcome is not Outcome.OPEN
            try:
                yield run_id, feed.view
                async with aclosing(feed.follow(after)) as updates:
                    async for update in updates:
                        if this_one or not (feed.successor and is_last(update)):
                            yield run_id, update
                if this_one or not feed.successor:
                    yield run_id, feed.view
                    if feed.machine is not None:
                        yield run_id, feed.machine
                    return
            finally:
                await self._unsubscribe(feed)
            run_id, after, cursor = feed.successor, feed.forked_at, ""

    async def stop(self) -> None:
        """End every stream; its watcher comes back with its cursor."""
        self._stopped = True
        await asyncio.gather(*(feed.stop() for feed in self._feeds.values()))

    @property
    def watched(self) -> int:
        """How many runs are watched."""
        return len(self._feeds)

    def _period(self) -> float:
        return max(1.0, len(self._feeds) / RUNS_PER_SECOND)

    async def _subscribe(self, workflow_id: str, run_id: str, cursor: str) -> Feed:
        feed = self._known(workflow_id, run_id)
        if feed is None:
            found = await self._find(workflow_id, run_id, cursor)
            if self._stopped:
                raise Unreachable("the API server is stopping; the run goes on. Watch it again from the last cursor")
            feed = self._feeds.get(found.view.run_id)
        if feed is None:
            feed = self._feeds[found.view.run_id] = Feed(self._runs, found, self._period, self._backlog)
            feed.start()
        feed.watchers += 1
        return feed

    async def _unsubscribe(self, feed: Feed) -> None:
        feed.watchers -= 1
        if feed.watchers == 0 and self._feeds.get(feed.view.run_id) is feed:
            del self._feeds[feed.view.run_id]
            await feed.stop()

    def _known(self, workflow_id: str, run_id: str) -> Feed | None:
        """The feed of this run. Without a run id: of the open run, for an open run is the newest of its id."""
        if run_id:
            feed = self._feeds.get(run_id)
            return feed if feed is not None and feed.view.workflow_id == workflow_id else None
        mine = (feed for feed in self._feeds.values() if feed.view.workflow_id == workflow_id)
        return next((feed for feed in mine if feed.view.outcome is Outcome.OPEN), None)

    async def _find(self, workflow_id: str, run_id: str, cursor: str) -> Found:
        """Look the run up, once for all who ask for it at the same time."""
        key = (workflow_id, run_id)
        task = self._finding.get(key)
        if task is None:
            task = self._finding[key] = asyncio.create_task(self._runs.find(workflow_id, run_id))
            task.add_done_callback(lambda _: self._found(key))
        try:
            return await asyncio.shield(task)
        except NotFound as error:
            if cursor and "run_id" in error.metadata:
                raise _foreign(cursor) from error
            raise

    def _found(self, key: tuple[str, str]) -> None:
        task = self._finding.pop(key)
        if not task.cancelled():
            task.exception()  # looked at, for those who asked may have gone away


def _start(run_id: str, cursor: str) -> tuple[str, int]:
    cursor_run, after = parse_cursor(cursor)
    if run_id and cursor_run and cursor_run != run_id:
        raise _foreign(cursor)
    return run_id or cursor_run, after


def _foreign(cursor: str) -> InvalidRequest:
    what = "belongs to another run; send one that this run's events carried, or none to begin at the beginning"
    return InvalidRequest(f"cursor {cursor[:80]!r} {what}", violations=[("cursor", what)])
