"""A run told as a story: each try with its steps, their times, what was seen and why it was left; then what is now."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mulligan.activities.levers import will_be_held
from mulligan.api.cli.display import event_lines, evidence_text, progress_text
from mulligan.api.cli.ending import ending
from mulligan.api.cli.explanation import explanation_lines
from mulligan.api.cli.naming import of_this_run
from mulligan.api.cli.text import ago, clean, clock, elapsed, seconds
from mulligan.api.cli.view import STEPS, STOPPED, UNDO
from mulligan.v1 import provisioning_pb2 as pb
from mulligan.v1 import run_pb2

BEGAN = run_pb2.RUN_EVENT_KIND_ACTION_STARTED
ENDED = (run_pb2.RUN_EVENT_KIND_ACTION_FINISHED, run_pb2.RUN_EVENT_KIND_ACTION_FAILED)
RECORDED = (run_pb2.RUN_EVENT_KIND_HELD, run_pb2.RUN_EVENT_KIND_RESUMED)
"""Events that are written when the action ends that records them."""

_AWAITS_AGAIN = re.compile(r"; last: awaits [^;]*; ")
"""What was awaited, said once more before what was last seen."""

INDENT = "  "
WHERE_WIDTH = 18

_AGAIN = re.compile(r"taking a mulligan after: (.*?)(?:; (claim (?:a provider|\S+) in \S+))?", re.DOTALL)
"""How a claim begins that is not the first: with why the try before was left."""


@dataclass
class Act:
    """One action, from its beginning to its end."""

    began: run_pb2.RunEvent
    ended: run_pb2.RunEvent | None = None

    @property
    def where(self) -> str:
        """The step and the part of it."""
        step, action = self.began.step, self.began.action
        return step if action in ("", step) else f"{step}/{action}"

    @property
    def failed(self) -> bool:
        """Whether it ended badly."""
        return self.ended is not None and self.ended.kind == run_pb2.RUN_EVENT_KIND_ACTION_FAILED

    def lines(self, why: str = "") -> Iterator[str]:
        """When, what, how long, how it ended, and what was seen. `why` nothing fits was said before."""
        again = _AGAIN.fullmatch(self.began.message)
        doing = again[2] or "" if again else self.began.message
        took, said = "", f"in progress{f': {doing}' if doing else ''}"
        if self.ended is not None:
            took = elapsed(seconds(self.ended.at) - seconds(self.began.at))
            said = self.ended.message or "done"
            said = said.removesuffix(f": {why}") if why else said
            if self.failed and self.ended.reason != STOPPED:
                reason = f" [{self.ended.reason}]" if self.ended.reason else ""
                is_told = self.ended.HasField("explanation") and said == why
                said = f"FAILED: {'no provider fits, as said above' if is_told else said}{reason}"
            if self.ended.attempts > 1:
                said += f" [{self.ended.attempts} attempts]"
        yield clean(f"{clock(self.began.at)} {self.where:<{WHERE_WIDTH}} {took:>8}  {said}")
        beside = f"{'':<{WHERE_WIDTH}} {'':>8} "
        for item in self.ended.evidence if self.ended is not None else ():
            yield f"{clock(item.at)} {beside} saw {evidence_text(item)}"
        if self.ended is not None and self.ended.HasField("explanation"):
            for line in explanation_lines(self.ended.explanation):
                yield f"{clock(self.ended.at)} {beside}   {line}"


Entry = Act | run_pb2.RunEvent


class Try:
    """What was done on one provider."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.provider = ""
        self.entries: list[Entry] = []

    def feed(self, event: run_pb2.RunEvent) -> None:
        """Take one event of this try."""
        self.provider = event.provider or self.provider
        if event.kind == BEGAN:
            self.entries.append(Act(event))
            return
        act = self._open(event) if event.kind in (*ENDED, *RECORDED) else None
        if act is not None and event.kind in ENDED:
            act.ended = event
            return
        if act is not None:
            self.entries.remove(act)
        self.entries.append(event)

    def _open(self, event: run_pb2.RunEvent) -> Act | None:
        acts = [each for each in reversed(self.entries) if isinstance(each, Act) and each.ended is None]
        return next((each for each in acts if (each.began.step, each.began.action) == (event.step, event.action)), None)

    @property
    def why_begun(self) -> str:
        """Why the try before was left, with what was last observed there; empty where that is not told."""
        messages = (entry.began.message for entry in self.entries if isinstance(entry, Act))
        why = next((again[1] for message in messages if (again := _AGAIN.fullmatch(message))), "")
        return _AWAITS_AGAIN.sub("; last: ", why)

    def why_left(self, told: str = "") -> str:
        """Why another provider was tried: as that try has `told` it, else what failed first."""
        failures = list(self._failures())
        first = ("", told) if told else next(iter(failures), ("", ""))
        step, why = next((each for each in failures if each[1] and each[1] in told), first)
        why = told or why
        return f"{step}: {why}" if step else why

    def _failures(self) -> Iterator[tuple[str, str]]:
        """(step, why) of what may have ended this try; no step where a mulligan was asked for."""
        for number, entry in enumerate(self.entries):
            event = entry.ended if isinstance(entry, Act) else entry
            if event is None:
                continue
            failed = event.kind == run_pb2.RUN_EVENT_KIND_ACTION_FAILED and event.reason != STOPPED
            if (failed and event.step in STEPS) or event.kind == run_pb2.RUN_EVENT_KIND_DEADLINE_PASSED:
                yield event.step, event.message
            elif event.lever.kind == run_pb2.LEVER_KIND_MULLIGAN and self._is_taken_up(event, number):
                yield "", event.message

    def _is_taken_up(self, event: run_pb2.RunEvent, number: int) -> bool:
        """Whether a lever was pulled by this event, and not refused by a later one."""
        later = (each for each in self.entries[number:] if isinstance(each, run_pb2.RunEvent))
        refused = (each.lever for each in later if each.kind == run_pb2.RUN_EVENT_KIND_LEVER_REFUSED)
        return event.kind == run_pb2.RUN_EVENT_KIND_LEVER_PULLED and event.lever not in refused


def tries_of(events: Sequence[run_pb2.RunEvent]) -> list[Try]:
    """The tries, in order. What belongs to none is told in the one that was under way."""
    tries: list[Try] = []
    for event in events:
        number = getattr(event, "try") or 1
        if not tries or number > tries[-1].number:
            tries.append(Try(number))
        tries[-1].feed(event)
    return tries


def story_lines(response: pb.GetRunResponse) -> Iterator[str]:
    """The whole story; what the run says of itself, why it ended so, is not told again."""
    tries, why = tries_of(response.events), response.run.reason
    makes = response.run.kind == run_pb2.RUN_KIND_PROVISION
    for number, each in enumerate(tries):
        if makes:
            yield clean(f"try {each.number}{f' on {each.provider}' if each.provider else ''}")
        for entry in each.entries:
            lines = entry.lines(why) if isinstance(entry, Act) else event_lines(_shorter(entry, why), detailed=False)
            yield from (f"{INDENT if makes else ''}{line}" for line in lines)
        if number < len(tries) - 1:
            left = each.why_left(tries[number + 1].why_begun)
            yield clean(f"{INDENT}left {each.provider or 'it'}{f': {left}' if left else ''}")
    if response.run.outcome == run_pb2.RUN_OUTCOME_OPEN:
        yield from now_lines(response)
    elif response.events:
        yield from _tried(response.events[-1].suggestions, response.run)


def _shorter(event: run_pb2.RunEvent, why: str) -> run_pb2.RunEvent:
    """The event; the last one without why the run ended, where that was said before."""
    if event.kind != run_pb2.RUN_EVENT_KIND_RUN_FINISHED or event.message != why:
        return event
    shorter = run_pb2.RunEvent()
    shorter.CopyFrom(event)
    shorter.message = ""
    return shorter


def now_lines(response: pb.GetRunResponse) -> Iterator[str]:
    """What an open run awaits, what was last observed, what it tries next, and what may help."""
    if response.run.held:
        held = [event for event in response.events if event.kind == run_pb2.RUN_EVENT_KIND_HELD]
        yield f"now: held, and waits for an operator{f' since {clock(held[-1].at)}' if held else ''}"
        yield from _tried(held[-1].suggestions if held else (), response.run)
    for progress in response.progress:
        yield from _doing(progress, response.run)
    if not response.progress and not (response.run.held or is_ending(response.run)) and response.events:
        yield from _waiting(response.events, response.run)
    if ahead := will_be_held((each.step, each.actor) for each in response.run.holds_ahead):
        yield clean(f"{ahead}; to take that back: mulligan run hold {response.run.workflow_id} --off")
    for number, undo in enumerate(response.undo, 1):
        if number == 1:
            yield f"{_undo_title(response.run)}, in this order:"
        yield clean(f"{INDENT}{number}. {undo.action}: {undo.description}")


def _undo_title(run: run_pb2.Run) -> str:
    if run.kind != run_pb2.RUN_KIND_PROVISION:  # it cannot be cancelled
        return "what is still to be taken down"
    return "what is still to be undone" if is_ending(run) else "if it is cancelled, it undoes"


def is_ending(run: run_pb2.Run) -> bool:
    """Whether what the run does is of no use any more: it is being cancelled, or undone."""
    return bool(ending(run))


def _doing(progress: run_pb2.RunProgress, run: run_pb2.Run) -> Iterator[str]:
    yield f"now: {progress.step}/{progress.action}: {progress_text(progress)}"
    if progress.HasField("observed_at"):
        yield f"{INDENT}last observed: {ago(progress.observed_at)} ago"
    if progress.HasField("next_attempt_at"):
        yield f"{INDENT}next attempt: {clock(progress.next_attempt_at)}"
    if progress.HasField("explanation"):
        yield from (f"{INDENT}{line}" for line in explanation_lines(progress.explanation))
    yield from _tried(progress.suggestions, run)


def _waiting(events: Sequence[run_pb2.RunEvent], run: run_pb2.Run) -> Iterator[str]:
    """What a run waits for that has no action under way: the newest word about it."""
    told = (run_pb2.RUN_EVENT_KIND_AWAITING, run_pb2.RUN_EVENT_KIND_SLOW)
    said = next((event for event in reversed(events) if event.kind in told), None)
    if said is not None and said.step not in ("", UNDO):
        yield clean(f"now: {said.step}: awaits {said.message}")
        yield from _tried(said.suggestions, run)


def _tried(commands: Sequence[str], run: run_pb2.Run) -> Iterator[str]:
    """What may help; but for the command whose output this is."""
    for_more = ("mulligan run extend ", "mulligan run mulligan ")
    if is_ending(run) and run.outcome == run_pb2.RUN_OUTCOME_OPEN:
        commands = [command for command in commands if not command.startswith(for_more)]
    others = (command for command in commands if command != f"mulligan run show {run.workflow_id}")
    for number, command in enumerate(of_this_run(others, run)):
        yield clean(f"{INDENT}{'next:' if number == 0 else '  or:'} {command}")
