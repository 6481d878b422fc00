"""What an operator may try next: one table from what a run tells, and in which step, to commands that exist.

The likeliest command is first. A test reads every command of the table with the command line's own parser.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from mulligan.activities.calls import CONTROL_QUEUE
from mulligan.activities.events import EventKind, RunEvent
from mulligan.activities.values import Outcome
from mulligan.api.enums import RunKind
from mulligan.api.run_ids import parse_id, provider_of

ANY = ""
OFF = "off"
"""Why a run is held whose machine was found to be off: to look again helps only who switched it on."""

SHOW = "mulligan run show {id}"
WATCH = "mulligan run watch {id}"
RETRY = "mulligan run retry {id}"
RETRY_NOW = "mulligan run retry-now {id}"
RESUME = "mulligan run resume {id} --held {held}"
REBOOT = RESUME + " --from boot"
EXTEND = "mulligan run extend {id} --by 10m"
MULLIGAN = "mulligan run mulligan {id}"
ABORT = "mulligan run abort {id}"
CANCEL = "mulligan run cancel {id}"
RELEASE = "mulligan machine release {machine} --project {project}"
MACHINE = "mulligan machine show {machine} --project {project}"
PROVIDER = "mulligan provider show {provider}"
PROVIDERS = "mulligan provider list"
CLAIMS = "mulligan claim list"
EXPLAIN = "mulligan claim explain --machine {machine} --project {project}"
IMAGES = "mulligan image list"
SUSPECTS = "mulligan suspect list"
DOCTOR = "mulligan doctor"
CONTROL = "mulligan worker --control"
PARTITION = "mulligan worker --partition {partition}"

EVENTS: Mapping[tuple[EventKind, str, str], tuple[str, ...]] = {
    # (what happened, why, in which step): the first of (why, step), (why, any), (any, step), (any, any) that is there
    (EventKind.ACTION_FAILED, "NEVER_FITS", ANY): (EXPLAIN, PROVIDERS, SHOW),
    (EventKind.ACTION_FAILED, "NOT_NOW", ANY): (EXPLAIN, CLAIMS, PROVIDERS),
    (EventKind.ACTION_FAILED, "IMAGE_REJECTED", ANY): (IMAGES, SHOW),
    (EventKind.ACTION_FAILED, "CANCELLED", ANY): (),
    (EventKind.ACTION_FAILED, "STALE_FENCE", ANY): (CLAIMS,),
    (EventKind.ACTION_FAILED, "HOST_NOT_READY", ANY): (PROVIDER, DOCTOR),
    (EventKind.ACTION_FAILED, "NO_ANSWER", ANY): (DOCTOR, PROVIDER),
    (EventKind.ACTION_FAILED, "NOT_SHARED", ANY): (DOCTOR, PROVIDER),
    (EventKind.ACTION_FAILED, ANY, "undo"): (PROVIDER, CLAIMS),
    (EventKind.ACTION_FAILED, ANY, "record"): (DOCTOR,),
    (EventKind.ACTION_FAILED, ANY, ANY): (PROVIDER, SHOW),
    (EventKind.HELD, OFF, ANY): (REBOOT, RESUME, MULLIGAN, ABORT, SHOW),
    (EventKind.HELD, ANY, ANY): (RESUME, MULLIGAN, ABORT, SHOW),
    (EventKind.SLOW, ANY, "claim"): (EXPLAIN, CLAIMS, EXTEND),
    (EventKind.SLOW, ANY, "verify"): (SHOW, EXTEND, MULLIGAN),
    (EventKind.SLOW, ANY, ANY): (EXTEND, RETRY_NOW, MULLIGAN),
    (EventKind.AWAITING, ANY, "claim"): (EXPLAIN, CLAIMS, RETRY_NOW, CANCEL),
    (EventKind.AWAITING, ANY, ANY): (SHOW, EXTEND, MULLIGAN),
}
"""What to try when a run that makes a machine tells this."""

NOBODYS_FAULT = ("GUEST_FAILED", "ABORTED", "MULLIGAN_ASKED", "CLAIM_LOST", "INVALID_REQUEST", "NOT_FOUND")
"""Failures that count against neither provider nor image, such as a guest whose own set-up ended badly."""

ENDINGS: Mapping[tuple[Outcome, str], tuple[str, ...]] = {
    (Outcome.FAILED, "NEVER_FITS"): (EXPLAIN, PROVIDERS, RETRY),
    (Outcome.FAILED, "NOT_NOW"): (EXPLAIN, CLAIMS, RETRY),
    (Outcome.FAILED, "IMAGE_REJECTED"): (IMAGES, SHOW),
    **{(Outcome.FAILED, innocent): (SHOW, RETRY) for innocent in NOBODYS_FAULT},
    (Outcome.FAILED, ANY): (SHOW, RETRY, SUSPECTS),
    (Outcome.CANCELLED, ANY): (RETRY,),
    (Outcome.QUARANTINED, ANY): (RELEASE, CLAIMS, SHOW),
    (Outcome.TERMINATED, ANY): (RELEASE, MACHINE, SHOW),  # what it left is in the way of a retry
}
"""What to try when a run that makes a machine ended so, and why."""

MENDED = (MACHINE, SHOW)
"""What to try when a run left something behind that is settled since: a release would hit what stands there now."""

TAKING_DOWN: Mapping[EventKind, tuple[str, ...]] = {
    EventKind.ACTION_FAILED: (PROVIDER, WATCH),
    EventKind.SLOW: (RETRY_NOW, ABORT),
    EventKind.AWAITING: (RETRY_NOW, ABORT),
    EventKind.RUN_FINISHED: (RELEASE, CLAIMS, SHOW),
}
"""What to try when a run that takes a machine down tells this."""

ENROLLING: Mapping[EventKind, tuple[str, ...]] = {
    EventKind.ACTION_FAILED: (DOCTOR, PROVIDERS),
    EventKind.RUN_FINISHED: (DOCTOR, PROVIDERS),
}
"""What to try when a run that registers a provider tells this."""

FAILED_BEFORE = {"claim": (EXPLAIN, CLAIMS, RETRY_NOW), "undo": (RETRY_NOW, PROVIDER, ABORT)}
"""What to try while an action is tried again, by its step."""

FAILED_BEFORE_ELSE = (RETRY_NOW, PROVIDER, MULLIGAN)
PAUSED = {"claim": (RETRY_NOW, EXTEND), "undo": (RETRY_NOW, ABORT)}
"""What to try while an action is paused in Temporal, by its step: its deadline goes on meanwhile."""

PAUSED_ELSE = (RETRY_NOW, EXTEND, MULLIGAN)
WAITS = (EXTEND, MULLIGAN)
"""What to try when a step takes longer than 95 of 100 runs like it, or waits for what is not in the run's hands."""

_BAD = frozenset({Outcome.FAILED, Outcome.CANCELLED, Outcome.QUARANTINED, Outcome.TERMINATED})
_QUEUE = re.compile(rf"task queue ({re.escape(CONTROL_QUEUE)}(?:\.([a-z][a-z0-9-]*))?)\b")


@dataclass(frozen=True, slots=True)
class Names:
    """The names that a command may hold. A command whose name is not known is left out."""

    id: str
    kind: RunKind = RunKind.PROVISION
    project: str = ""
    machine: str = ""
    provider: str = ""
    partition: str = ""
    pinned: bool = False
    """Whether the run may use one named provider only: then there is no other one to try."""
    held: int = 0
    """How often the run has been held, so that what is decided now is not taken for a later hold."""

    @classmethod
    def of(cls, workflow_id: str, provider: str = "", *, pinned: bool = False) -> Names:
        """The names of a run, as its id has them, and of the provider that is concerned."""
        kind, project, machine = parse_id(workflow_id) or (RunKind.PROVISION, "", "")
        return cls(workflow_id, kind, project, machine, provider or provider_of(workflow_id), pinned=pinned)


def for_event(event: RunEvent, workflow_id: str) -> list[str]:
    """The commands that may help after this event; none while all is well."""
    names = replace(Names.of(workflow_id, event.provider, pinned=event.pinned), held=event.times_held)
    if event.kind is EventKind.RUN_FINISHED and event.outcome not in _BAD:
        return []
    if event.mended or names.kind is RunKind.ENROL:
        return _filled(MENDED if event.mended else ENROLLING.get(event.kind, ()), names)
    if names.kind is not RunKind.PROVISION:
        stopped = event.kind is EventKind.ACTION_FAILED and event.reason == "CANCELLED"
        return _filled(() if stopped else TAKING_DOWN.get(event.kind, ()), names)
    if event.kind is EventKind.RUN_FINISHED:
        found = ENDINGS.get((event.outcome, event.reason), ENDINGS.get((event.outcome, ANY), ()))
        return _filled(found, names)
    why = OFF if event.off else event.reason
    for reason, step in ((why, event.step), (why, ANY), (ANY, event.step), (ANY, ANY)):
        if (commands := EVENTS.get((event.kind, reason, step))) is not None:
            return _filled(commands, names)
    return []


def for_progress(
    workflow_id: str,
    step: str,
    *,
    message: str = "",
    last_failure: str = "",
    waits: bool = False,
    paused: bool = False,
    pinned: bool = False,
) -> list[str]:
    """The commands that may help while an action is tried again, is `paused` or waits for a worker, or while the run
    `waits`: for what is not in its hands, or longer than 95 of 100 did."""
    names = Names.of(workflow_id, pinned=pinned)
    if (queue := _QUEUE.search(message)) is not None and not last_failure:
        partition = queue[2] or ""
        names = replace(names, partition=partition)
        return _filled((PARTITION if partition else CONTROL, DOCTOR), names)
    if names.kind is RunKind.ENROL:
        return _filled((DOCTOR,), names) if last_failure else []
    if paused or last_failure:
        commands = PAUSED.get(step, PAUSED_ELSE) if paused else FAILED_BEFORE.get(step, FAILED_BEFORE_ELSE)
        return _filled([each for each in commands if names.kind is RunKind.PROVISION or each != MULLIGAN], names)
    return _filled(WAITS, names) if waits and names.kind is RunKind.PROVISION else []


def of_a_pinned_run(commands: Iterable[str]) -> tuple[str, ...]:
    """Those of the commands that help a run which may use one named provider only."""
    return tuple(command for command in commands if not command.startswith(MULLIGAN.partition("{")[0]))


def _filled(commands: Iterable[str], names: Names) -> list[str]:
    commands = of_a_pinned_run(commands) if names.pinned else commands
    known = {name: getattr(names, name) for name in ("id", "project", "machine", "provider", "partition", "held")}
    wanted = [(command, re.findall(r"\{(\w+)\}", command)) for command in commands]
    return [command.format(**known) for command, needs in wanted if all(known[need] for need in needs)]
