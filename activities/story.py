"""A run's story: its Temporal history folded into the domain's events.

The history is the log. One durable history event gives at most one run event, whose cursor is the history event's id;
workflow tasks give none, because their ids may be reused. Activity ids are `<try>/<step>/<action>` (see `action_id`),
so that the fold needs nothing but the history.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from temporalio.api.enums.v1 import EventType
from temporalio.api.failure.v1 import Failure
from temporalio.api.history.v1 import HistoryEvent

from mulligan.activities.events import Due, EventKind, RunEvent, last_event
from mulligan.activities.history import (
    describe_failure,
    evidence_of,
    explanation_of,
    power_seen_by,
    result_of,
    text_of,
    when,
)
from mulligan.activities.home_evidence import call_home_evidence, call_of, disk_evidence, disk_of
from mulligan.activities.levers import NOTE_CANCEL, UNKNOWN, Lever, LeverKind, cause_of_cancel
from mulligan.activities.values import DiskIdentity, Erase, Outcome

MEMO_RETRIED = "retried"
"""The memo of a run that says who asked again for what an earlier run failed to make, and why."""

HIDDEN_ACTIONS = frozenset({"story", "lease", "why", "another", "retry-now"})
"""Book-keeping that is not part of the story."""

WATCHES = frozenset({"watch-boot", "watch-guest"})
"""Actions that look at a machine while something else is awaited: that one begins or ends ends no wait."""

LOOKS_AGAIN = "watch-guest"
"""The one of them that looks until it is stopped: neither its beginning nor that is told, only what made it fail."""


def action_id(try_number: int, step: str, action: str) -> str:
    """The activity id of one action."""
    return f"{try_number}/{step}/{action}"


def parse_action_id(activity_id: str) -> tuple[int, str, str] | None:
    """The (try, step, action) of an activity id, or None for one that is not ours."""
    parts = activity_id.split("/")
    if len(parts) != 3 or not parts[0].isdigit():
        return None
    return int(parts[0]), parts[1], parts[2]


TIMER_SLOW = "slow: "
TIMER_DEADLINE = "deadline: "
TIMER_AWAITING = "awaiting: "
"""How the summaries of the workflows' timers begin."""

_ALLOWED = re.compile(r"; allowed (\d+) s in all$")
_ROUNDING = timedelta(seconds=1)
"""A summary gives whole seconds: moments so close to each other are the same deadline."""


@dataclass
class _Action:
    try_number: int
    step: str
    action: str
    message: str
    attempts: int = 1


@dataclass
class StoryFold:
    """Folds one run's history, event by event. Feed it from the first event on."""

    actions: dict[int, _Action] = field(default_factory=dict)
    timers: dict[str, str] = field(default_factory=dict)
    provider: str = ""
    pinned: bool = False
    """Whether the request names the one provider that may make it."""
    try_number: int = 0
    last_id: int = 0
    held_tries: set[int] = field(default_factory=set)
    """Tries that asked for a claim and did not give it back."""
    undone: list[str] = field(default_factory=list)
    """What was undone, in that order, in the present try."""
    levers: dict[str, Lever] = field(default_factory=dict)
    """The levers that are being answered, by the id of their update."""
    written: DiskIdentity | None = None
    """The disk that the deploy agent wrote in the present try."""
    is_cancelled: bool = False
    """Whether a cancel was asked for."""
    times_held: int = 0
    found_off: bool = False
    """Whether the last action failed because the machine was off; what is only recorded since does not count."""
    due: Due | None = None
    """Until when the step that runs has time."""
    awaited: str = ""
    """The summary of the timer that fired last: a wait that goes on gets another one of the same words."""
    step_began: datetime | None = None
    """When the first timer of that step was started."""

    def feed(self, event: HistoryEvent) -> RunEvent | None:
        """The run event that this history event gives, if any. Events seen before give none."""
        handler = _HANDLERS.get(event.event_type)
        if handler is None or event.event_id <= self.last_id:
            return None
        self.last_id = event.event_id
        return handler(self, event)

    def scheduled(self, event: HistoryEvent) -> RunEvent | None:
        """An action began."""
        attributes = event.activity_task_scheduled_event_attributes
        parsed = parse_action_id(attributes.activity_id)
        if parsed is None or parsed[2] in HIDDEN_ACTIONS:
            return None
        action = _Action(*parsed, message=text_of(event.user_metadata.summary))
        self.actions[event.event_id] = action
        if action.step == "undo" or action.action == "held":
            self.due = None
        if action.step != "record":
            self.found_off = False
        if action.step == "claim":
            self.held_tries.add(action.try_number)
        if action.try_number > self.try_number:
            self.try_number, self.provider, self.written = action.try_number, "", None
            self.undone = []
        if action.action == LOOKS_AGAIN:
            return None
        return self._about(event, EventKind.ACTION_STARTED, action, message=action.message, attempts=0)

    def started(self, event: HistoryEvent) -> None:
        """Remember how often it was attempted: this event is written only when the activity closes."""
        attributes = event.activity_task_started_event_attributes
        if action := self.actions.get(attributes.scheduled_event_id):
            action.attempts = attributes.attempt

    def completed(self, event: HistoryEvent) -> RunEvent | None:
        """An action ended well."""
        attributes = event.activity_task_completed_event_attributes
        action = self.actions.pop(attributes.scheduled_event_id, None)
        if action is None:
            return None
        result = result_of(attributes.result)
        if action.step == "undo":
            self.undone.append(action.action)
        if action.action == "release-claim":
            self.held_tries.discard(action.try_number)
        if isinstance(disk := result.get("written"), dict):
            self.written = disk_of(disk)
        if provider := result.get("provider"):
            self.provider = provider if isinstance(provider, str) else self.provider
        kind = _RECORDED.get(action.action, EventKind.ACTION_FINISHED)
        told = self._about(event, kind, action, message=str(result.get("said", "")), evidence=evidence_of(result))
        if kind is not EventKind.HELD:
            return told
        self.times_held += 1
        return replace(told, times_held=self.times_held, off=self.found_off)

    def failed(self, event: HistoryEvent) -> RunEvent | None:
        """An action ended badly."""
        attributes = event.activity_task_failed_event_attributes
        return self._ended_badly(event, attributes.scheduled_event_id, attributes.failure)

    def timed_out(self, event: HistoryEvent) -> RunEvent | None:
        """An action did not answer in time, after all its attempts."""
        attributes = event.activity_task_timed_out_event_attributes
        return self._ended_badly(event, attributes.scheduled_event_id, attributes.failure)

    def canceled(self, event: HistoryEvent) -> RunEvent | None:
        """An action was stopped."""
        attributes = event.activity_task_canceled_event_attributes
        return self._ended_badly(event, attributes.scheduled_event_id, None)

    def timer_started(self, event: HistoryEvent) -> RunEvent | None:
        """Remember what the timer means. One without a meaning of its own stands for what a step awaits."""
        timer_id = event.timer_started_event_attributes.timer_id
        summary = self.timers[timer_id] = text_of(event.user_metadata.summary)
        goes_on, self.awaited = summary == self.awaited, ""
        self._note_due(event, summary)
        if not summary.startswith(TIMER_AWAITING) or goes_on:
            return None
        step, _, message = summary.removeprefix(TIMER_AWAITING).partition(": ")
        return self._event(event, EventKind.AWAITING, step=step, message=message)

    def _note_due(self, event: HistoryEvent, summary: str) -> None:
        """A step is given another timer whenever its deadline is moved."""
        began, at = when(event.event_time), None
        step = summary.partition(": ")[2].partition(": ")[0]
        if self.due is not None and self.due.step == step and self.step_began is not None:
            began = self.step_began
        if summary.startswith(TIMER_SLOW) and (allowed := _ALLOWED.search(summary)) is not None:
            at = began + timedelta(seconds=int(allowed[1]))
        elif summary.startswith(TIMER_DEADLINE):
            timeout = event.timer_started_event_attributes.start_to_fire_timeout
            at = when(event.event_time) + timeout.ToTimedelta()
        if at is None:
            return
        self.step_began = began
        if self.due is None or self.due.step != step or abs(self.due.at - at) > _ROUNDING:
            self.due = Due(step, at)

    def timer_fired(self, event: HistoryEvent) -> RunEvent | None:
        """A step is slow, or its deadline passed."""
        summary = self.timers.pop(event.timer_fired_event_attributes.timer_id, "")
        self.awaited = summary
        for prefix, kind in ((TIMER_SLOW, EventKind.SLOW), (TIMER_DEADLINE, EventKind.DEADLINE_PASSED)):
            if summary.startswith(prefix):
                step, _, message = summary.removeprefix(prefix).partition(": ")
                return self._event(event, kind, step=step, message=message)
        return None

    def update_accepted(self, event: HistoryEvent) -> RunEvent | None:
        """The guest called home, or an operator pulled a lever."""
        attributes = event.workflow_execution_update_accepted_event_attributes
        request = attributes.accepted_request
        if request.input.name == "call-home":
            return self._called_home(event, result_of(request.input.args))
        if request.input.name not in set(LeverKind):
            return None
        asked = result_of(request.input.args)
        lever = Lever(
            LeverKind(request.input.name),
            str(asked.get("actor") or UNKNOWN),
            str(asked.get("reason") or ""),
            step=str(asked.get("step") or ""),
            off=bool(asked.get("off")),
        )
        self.levers[attributes.protocol_instance_id] = lever
        message = f"{_lever_words(lever.kind, asked)}, by {lever.actor}{f': {lever.reason}' if lever.reason else ''}"
        return self._event(event, EventKind.LEVER_PULLED, message=message, lever=lever)

    def update_completed(self, event: HistoryEvent) -> RunEvent | None:
        """A lever that was taken up could not do what was asked."""
        attributes = event.workflow_execution_update_completed_event_attributes
        lever = self.levers.pop(attributes.meta.update_id, None)
        if lever is None or not attributes.outcome.HasField("failure"):
            return None
        message, reason = describe_failure(attributes.outcome.failure)
        return self._event(event, EventKind.LEVER_REFUSED, message=message, reason=reason, lever=lever)

    def _called_home(self, event: HistoryEvent, told: Mapping[str, Any]) -> RunEvent:
        call = call_of(told.get("call", told), when(event.event_time))
        up, disk = call_home_evidence(call), disk_evidence(call, self.written)
        return self._event(event, EventKind.CALLED_HOME, step="verify", message=up.observed, evidence=(*disk, up))

    def cancel_requested(self, event: HistoryEvent) -> RunEvent:
        """A cancel was asked for."""
        cause = event.workflow_execution_cancel_requested_event_attributes.cause
        message = f"cancel requested{f': {cause}' if cause else ''}; what was done will be undone"
        self.is_cancelled = True
        return self._event(event, EventKind.CANCEL_REQUESTED, message=message, cause=cause)

    def signaled(self, event: HistoryEvent) -> RunEvent | None:
        """A cancel was asked for once more. A run that was reset is told of it again, and is not being cancelled."""
        attributes = event.workflow_execution_signaled_event_attributes
        if attributes.signal_name != NOTE_CANCEL or not self.is_cancelled:
            return None
        by = result_of(attributes.input)
        cause = cause_of_cancel(str(by.get("actor") or UNKNOWN), str(by.get("reason") or ""))
        message = f"cancel requested again: {cause}; it was being cancelled already"
        return self._event(event, EventKind.CANCEL_REQUESTED, message=message, cause=cause)

    def run_started(self, event: HistoryEvent) -> RunEvent:
        """The run began; afresh, if someone asked again for a machine whose run had ended badly."""
        attributes = event.workflow_execution_started_event_attributes
        given = result_of(attributes.input)
        asked = given.get("request")
        self.pinned = isinstance(asked, dict) and bool(asked.get("provider"))
        erase = Erase(given.get("erase", Erase.METADATA)) if given.get("by_agent") else None
        memo = attributes.memo.fields
        by = text_of(memo[MEMO_RETRIED]) if MEMO_RETRIED in memo else ""
        if actor := given.get("actor"):
            by = f"asked for {cause_of_cancel(str(actor), str(given.get('reason') or ''))}"
        message = f"run started{f', {by}' if by else ''}"
        return self._event(
            event, EventKind.RUN_STARTED, message=message, erase=erase, forgets=bool(given.get("forget"))
        )

    def run_completed(self, event: HistoryEvent) -> RunEvent:
        """The run reached its aim."""
        attributes = event.workflow_execution_completed_event_attributes
        result = result_of(attributes.result)
        outcome = Outcome.READY if "addresses" in result else Outcome.RELEASED
        if "provider" in result and "addresses" not in result:
            outcome = Outcome.ENROLLED
        return self._last(event, outcome, str(result.get("said", "")))

    def run_failed(self, event: HistoryEvent) -> RunEvent:
        """The run failed; its failure says whether everything was undone."""
        failure = event.workflow_execution_failed_event_attributes.failure
        reason = failure.application_failure_info.type
        outcome = Outcome.QUARANTINED if reason == "QUARANTINED" else Outcome.FAILED
        return self._last(event, outcome, failure.message, reason)

    def run_canceled(self, event: HistoryEvent) -> RunEvent:
        """The run was cancelled and undone."""
        if self.held_tries:
            message = "cancelled; its undo was not seen to end: `mulligan claim list` shows what it holds"
        elif self.undone:
            undone = [each if count == 1 else f"{each} ({count} times)" for each, count in Counter(self.undone).items()]
            message = f"cancelled; everything was undone, and seen to be: {', '.join(undone)}"
        else:
            message = "cancelled before anything was made"
        return self._last(event, Outcome.CANCELLED, message, "CANCELLED")

    def run_terminated(self, event: HistoryEvent) -> RunEvent:
        """The run was ended from outside, without undo."""
        message = "terminated from outside, without undo; what it holds is reclaimed when its lease has passed"
        return self._last(event, Outcome.TERMINATED, message, "TERMINATED")

    def _ended_badly(self, event: HistoryEvent, scheduled_id: int, failure: Failure | None) -> RunEvent | None:
        action = self.actions.pop(scheduled_id, None)
        if action is None:
            return None
        if failure is None and action.action == LOOKS_AGAIN:
            return None
        message, reason = describe_failure(failure) if failure is not None else ("stopped", "CANCELLED")
        self.found_off = self.found_off or (failure is not None and bool(power_seen_by(failure)))
        explanation = explanation_of(failure) if failure is not None and action.step == "claim" else None
        failed = EventKind.ACTION_FAILED
        return self._about(event, failed, action, message=message, reason=reason, explanation=explanation)

    def _about(self, event: HistoryEvent, kind: EventKind, action: _Action, **values: Any) -> RunEvent:
        values.setdefault("attempts", action.attempts)
        return self._event(event, kind, try_number=action.try_number, step=action.step, action=action.action, **values)

    def _last(self, event: HistoryEvent, outcome: Outcome, message: str, reason: str = "") -> RunEvent:
        return last_event(when(event.event_time), outcome, message, reason, self.provider)

    def _event(self, event: HistoryEvent, kind: EventKind, **values: Any) -> RunEvent:
        values.setdefault("try_number", self.try_number)
        at = when(event.event_time)
        return RunEvent(event.event_id, at, kind, provider=self.provider, pinned=self.pinned, **values)


def fold(events: Iterator[HistoryEvent]) -> list[RunEvent]:
    """The whole story of a history."""
    story = StoryFold()
    return [run_event for event in events if (run_event := story.feed(event)) is not None]


_RECORDED = {"held": EventKind.HELD, "resumed": EventKind.RESUMED}
"""Records that are events of their own."""


def _lever_words(kind: LeverKind, asked: Mapping[str, Any]) -> str:
    """What was asked for, for people."""
    step, seconds = str(asked.get("step") or ""), asked.get("seconds") or 0
    if kind is LeverKind.HOLD and asked.get("off"):
        return f"do not hold{f' before {step}' if step else ''} after all"
    return {
        LeverKind.RETRY_NOW: "try again now",
        LeverKind.HOLD: f"hold before {step or 'the next step'}",
        LeverKind.RESUME: f"go on{f' with {step}' if step else ''}",
        LeverKind.EXTEND: f"{seconds} s more for the {'run' if asked.get('whole_run') else 'step'}",
        LeverKind.MULLIGAN: "take a mulligan",
        LeverKind.ABORT: "abort",
    }[kind]


_HANDLERS = {
    EventType.EVENT_TYPE_WORKFLOW_EXECUTION_STARTED: StoryFold.run_started,
    EventType.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED: StoryFold.scheduled,
    EventType.EVENT_TYPE_ACTIVITY_TASK_STARTED: StoryFold.started,
    EventType.EVENT_TYPE_ACTIVITY_TASK_COMPLETED: StoryFold.completed,
    EventType.EVENT_TYPE_ACTIVITY_TASK_FAILED: StoryFold.failed,
    EventType.EVENT_TYPE_ACTIVITY_TASK_TIMED_OUT: StoryFold.timed_out,
    EventType.EVENT_TYPE_ACTIVITY_TASK_CANCELED: StoryFold.canceled,
    EventType.EVENT_TYPE_TIMER_STARTED: StoryFold.timer_started,
    EventType.EVENT_TYPE_TIMER_FIRED: StoryFold.timer_fired,
    EventType.EVENT_TYPE_WORKFLOW_EXECUTION_UPDATE_ACCEPTED: StoryFold.update_accepted,
    EventType.EVENT_TYPE_WORKFLOW_EXECUTION_UPDATE_COMPLETED: StoryFold.update_completed,
    EventType.EVENT_TYPE_WORKFLOW_EXECUTION_CANCEL_REQUESTED: StoryFold.cancel_requested,
    EventType.EVENT_TYPE_WORKFLOW_EXECUTION_SIGNALED: StoryFold.signaled,
    EventType.EVENT_TYPE_WORKFLOW_EXECUTION_COMPLETED: StoryFold.run_completed,
    EventType.EVENT_TYPE_WORKFLOW_EXECUTION_FAILED: StoryFold.run_failed,
    EventType.EVENT_TYPE_WORKFLOW_EXECUTION_TIMED_OUT: StoryFold.run_terminated,
    EventType.EVENT_TYPE_WORKFLOW_EXECUTION_CANCELED: StoryFold.run_canceled,
    EventType.EVENT_TYPE_WORKFLOW_EXECUTION_TERMINATED: StoryFold.run_terminated,
}
