"""One watched run in this process: a single long-poll of its history, whose events all its watchers share."""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from dataclasses import replace

from temporalio.api.enums.v1 import EventType, WorkflowTaskFailedCause
from temporalio.api.history.v1 import HistoryEvent
from temporalio.client import WorkflowExecutionDescription
from temporalio.service import RPCError, RPCStatusCode

from mulligan.activities.errors import Unreachable
from mulligan.activities.events import LAST, Due, EventKind, RunEvent
from mulligan.activities.inventory.machine import Machine
from mulligan.activities.story import StoryFold
from mulligan.api.convert_runs import Progress, Update, cursor_of
from mulligan.api.enums import RunKind
from mulligan.api.errors import Laggard, domain_error
from mulligan.api.estimates import Estimates
from mulligan.api.mended import event_since
from mulligan.api.pace import Pace
from mulligan.api.progress import AWAIT, ends_a_wait, is_news, progress_of, until
from mulligan.api.run_views import GOOD, is_held, is_undoing
from mulligan.api.runs import Found, Runs

BACKLOG = 1024
"""How many events a watcher may fall behind what happens while it watches."""

RECONNECT_SECONDS = 0.3

Key = tuple[int, str, str]


def is_last(update: Update) -> bool:
    """Whether it is the end of the run."""
    return isinstance(update, RunEvent) and update.kind is EventKind.RUN_FINISHED


class Feed:
    """A run and everything that is known to have happened in it, for as long as somebody watches."""

    def __init__(self, runs: Runs, found: Found, period: Callable[[], float], backlog: int = BACKLOG) -> None:
        self.view = found.view
        self.machine: Machine | None = None
        self.successor = ""
        """The execution in which the run goes on after a reset."""
        self.forked_at = 0
        """The last event that the successor's history shares with this one."""
        self.watchers = 0
        self.ended = False
        self._runs, self._found, self._period, self._backlog = runs, found, period, backlog
        self._log: list[RunEvent] = []
        self._running: dict[Key, Progress | None] = {}
        self._began: dict[Key, float] = {}
        """When each action in progress was first seen, on the event loop's clock."""
        self._due: Due | None = None
        self._awaits = ""
        """The step that awaits, or awaited last, something without an action."""
        self._estimates = Estimates(runs, found.view.workflow_id, found.view.machine_id)
        self._read_once = asyncio.Event()
        self._error: Exception | None = None
        self._changed = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin to read."""
        self._tasks = [asyncio.create_task(self._pump()), asyncio.create_task(self._probe())]

    async def stop(self) -> None:
        """End reading; whoever still watches is told to come back."""
        self._end(Unreachable("the API server is stopping; the run goes on. Watch it again from the last cursor"))
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def follow(self, after: int) -> AsyncGenerator[Update, None]:
        """Every event after that one, and the newest progress between them, to the end of this execution."""
        position, past, sent = self._place(after), self._past(), dict[Key, Progress]()
        while True:
            changed = self._changed
            while position < len(self._log):
                event = self._log[position]
                if event.id > after:
                    self._refuse_laggard(max(position, self._place(past)), after)
                    yield event
                    after = event.id
                position += 1
            for key, progress in list(self._running.items()):
                if progress is not None and sent.get(key) is not progress:
                    sent[key] = progress
                    yield progress
            if position < len(self._log):
                continue
            if self._error is not None:
                raise self._error
            if self.ended:
                return
            await changed.wait()

    def _place(self, after: int) -> int:
        return bisect_right(self._log, after, key=lambda event: event.id)

    def _past(self) -> int:
        """The last event that there is already: no watcher can be late for what came before it."""
        description = self._found.description
        known = description.history_length if description is not None else LAST
        return max(known, self._log[-1].id if self._log else 0)

    def _refuse_laggard(self, position: int, after: int) -> None:
        if len(self._log) - position > self._backlog:
            cursor = cursor_of(self.view.run_id, after)
            message = f"this watcher is more than {self._backlog} events behind; watch again from cursor {cursor}"
            raise Laggard(message, cursor=cursor)

    async def _pump(self) -> None:
        try:
            if self._found.description is not None:
                await self._read_history()
            else:
                self._take(await self._runs.story(self._found))
            await self._close()
        except Exception as error:  # noqa: BLE001 - the reader's end: every watcher is told, and the server answers it
            self._end(error)
        else:
            self._end(None)

    async def _read_history(self) -> None:
        """Read to the end of this execution; what breaks off is read again, and what was seen is not told twice."""
        story = StoryFold()
        while True:
            try:
                await self._read_pages(story)
                break
            except RPCError as error:
                if error.status is RPCStatusCode.NOT_FOUND:
                    kept = await self._runs.kept_story(self.view.workflow_id, self.view.run_id)
                    self._take([told for told in kept if told.id > story.last_id])
                    break
                if domain_error(error) is None:
                    raise
            await asyncio.sleep(RECONNECT_SECONDS)

    async def _read_pages(self, story: StoryFold) -> None:
        """One long-poll after the other. What came together is told together."""
        handle = self._runs.handle(self.view.workflow_id, self.view.run_id)
        pages, pace = handle.fetch_history_events(wait_new_event=True), Pace()
        while True:
            await pages.fetch_next_page()
            page, told = pages.current_page or (), list[RunEvent]()
            try:
                for event in page:
                    told += await self._read(story, event)
            finally:
                self._take(told)
                self._note_due(story.due)
            self._read_once.set()
            if pages.next_page_token is None:
                return
            await asyncio.sleep(pace.pause(page))

    async def _read(self, story: StoryFold, event: HistoryEvent) -> list[RunEvent]:
        if event.event_type == EventType.EVENT_TYPE_WORKFLOW_EXECUTION_CONTINUED_AS_NEW:
            self.successor = event.workflow_execution_continued_as_new_event_attributes.new_execution_run_id
        if event.event_type == EventType.EVENT_TYPE_WORKFLOW_EXECUTION_TERMINATED:
            await self._note_reset()
        told = story.feed(event)
        return [] if told is None else [told]

    async def _note_reset(self) -> None:
        """Note where this execution goes on, and from which event, if it was ended by a reset."""
        description = await self._runs.describe(self.view.workflow_id, self.view.run_id)
        successor = description.raw_description.workflow_extended_info.reset_run_id if description is not None else ""
        if not successor:
            return
        async for event in self._runs.handle(self.view.workflow_id, successor).fetch_history_events():
            failed = event.workflow_task_failed_event_attributes
            if failed.cause == WorkflowTaskFailedCause.WORKFLOW_TASK_FAILED_CAUSE_RESET_WORKFLOW:
                self.forked_at = event.event_id
                if failed.new_run_id == successor:
                    break
        self.successor = successor

    def _take(self, events: list[RunEvent]) -> None:
        since = self._found.view.mended
        for event in events:
            self._log.append(event_since(event, since))
            key = (event.try_number, event.step, event.action)
            if ends_a_wait(event):
                self._forget((event.try_number, self._awaits, AWAIT))
            if event.kind is EventKind.AWAITING:
                self._awaits = event.step
                key = (event.try_number, event.step, AWAIT)
            if event.kind in (EventKind.ACTION_STARTED, EventKind.AWAITING):
                self._running[key], self._began[key] = None, asyncio.get_running_loop().time()
            elif event.kind in (EventKind.ACTION_FINISHED, EventKind.ACTION_FAILED):
                self._forget(key)
            elif event.kind is EventKind.CANCEL_REQUESTED:
                self.view = replace(self.view, cancel_requested=True)
        self.view = replace(
            self.view,
            held=is_held(events, before=self.view.held),
            undoing=self.view.kind is RunKind.PROVISION and is_undoing(events, before=self.view.undoing),
            provider=next((event.provider for event in reversed(events) if event.provider), self.view.provider),
        )
        if events:
            self._wake()

    def _note_due(self, due: Due | None) -> None:
        """What is in progress has another deadline: its watchers are told at once."""
        if due == self._due:
            return
        self._due = due
        for key, progress in self._running.items():
            if progress is not None and due is not None and progress.step == due.step:
                self._running[key] = until(progress, due)
        self._wake()

    def _forget(self, key: Key) -> None:
        self._running.pop(key, None)
        self._began.pop(key, None)

    async def _probe(self) -> None:
        """Ask what is in progress: not before an action took a period's time, and once in a period at most. A period
        is as long as the number of watched runs demands."""
        await self._read_once.wait()
        if self._found.description is not None:
            await self._show(self._found.description)
        clock = asyncio.get_running_loop().time
        asked = clock()
        while not self.ended:
            due = max(asked, min(self._began.values(), default=clock())) + self._period()
            if due > clock():
                await asyncio.sleep(due - clock())
                continue
            asked = clock()
            with suppress(RPCError):  # the history says whether the run is gone; the next look may work
                description = await self._runs.describe(self.view.workflow_id, self.view.run_id)
                if description is not None:
                    await self._show(description)

    async def _show(self, description: WorkflowExecutionDescription) -> None:
        cancelled = description.raw_description.workflow_extended_info.cancel_requested
        self.view = replace(self.view, cancel_requested=cancelled or self.view.cancel_requested)
        for progress in await self._estimates.add(progress_of(description), self._log, self._due):
            key = (progress.try_number, progress.step, progress.action)
            if key in self._running and is_news(self._running[key], progress):
                self._running[key] = progress
                self._wake()

    async def _close(self) -> None:
        if self._log and self._log[-1].kind is EventKind.RUN_FINISHED:
            last = self._log[-1]
            reason = "" if last.outcome in GOOD else last.message
            cancelled = self.view.cancel_requested or any(
                event.kind is EventKind.CANCEL_REQUESTED for event in self._log
            )
            self.view = replace(
                self.view, outcome=last.outcome, reason=reason, ended_at=last.at, cancel_requested=cancelled
            )
        if self.view.machine_id and not self.successor:
            self.machine = await self._runs.machine(self.view.machine_id)

    def _end(self, error: Exception | None) -> None:
        if not self.ended:
            self.ended, self._error = True, error
            self._running.clear()
            self._wake()

    def _wake(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
