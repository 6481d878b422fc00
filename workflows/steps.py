"""The table of steps: every action with its undo, where it runs, how long one attempt may take, and how it is retried.

    step    action       undone by      why there is no undo
    claim   claim        release-claim
    image   prepare                     the image is kept for the next machine, whole or not at all
    image   place-disks  remove-disks
    image   deploy       erase           (in place of place-disks, where the deploy agent writes a server's disk)
    boot    boot         tear-down       (of a live image on a server: by its BMC and the boot server)
    verify  observe                     it only looks
    verify  watch-boot                  it only looks (where a BMC says how far a boot came)
    verify  watch-guest                 it only looks (elsewhere, when a guest is awaited for long)
    verify  service                     it only looks

An undo is registered before its action is asked for, because an action that failed may have happened. What bounds a
step as a whole is its deadline, a timer in the workflow; the numbers here bound single attempts.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Generic, TypeVar

from temporalio.common import RetryPolicy

from mulligan.activities import bmc_health, calls, planning
from mulligan.activities.calls import Call

In = TypeVar("In")
Out = TypeVar("Out")

HEARTBEAT = timedelta(seconds=15)
"""A worker that was killed is noticed after this long, and the attempt goes to another."""

QUICK = RetryPolicy(initial_interval=timedelta(milliseconds=500), maximum_interval=timedelta(seconds=10))
"""For our own database: it is away for moments, or for an outage that an operator is mending."""

PATIENT = RetryPolicy(initial_interval=timedelta(seconds=1), maximum_interval=timedelta(seconds=30))
"""For providers: busy windows last 20 to 60 seconds; an outage must never grow into an hour between attempts."""

PROMPT = RetryPolicy(initial_interval=timedelta(seconds=1), maximum_attempts=3)
"""For what someone waits for at a prompt: an error within seconds beats patience without a word."""


@dataclass(frozen=True)
class Action(Generic[In, Out]):
    """One action of a step."""

    step: str
    name: str
    call: Call[In, Out]
    attempt: timedelta
    """How long one attempt may take."""
    retry: RetryPolicy
    heartbeat: timedelta | None = None
    """None for what runs on the control queue; partition actions heartbeat, and so can be cancelled."""

    @property
    def on_control(self) -> bool:
        """Whether it needs the database, and so runs on a control worker."""
        return self.heartbeat is None


CLAIM = Action("claim", "claim", calls.CLAIM, timedelta(seconds=30), QUICK)
RELEASE_CLAIM = Action("undo", "release-claim", calls.RELEASE_CLAIM, timedelta(seconds=30), QUICK)

PREPARE_IMAGE = Action("image", "prepare", calls.PREPARE_IMAGE, timedelta(hours=4), PATIENT, HEARTBEAT)
PLACE_DISKS = Action("image", "place-disks", calls.PLACE_DISKS, timedelta(minutes=5), PATIENT, HEARTBEAT)
REMOVE_DISKS = Action("undo", "remove-disks", calls.REMOVE_DISKS, timedelta(minutes=2), PATIENT, HEARTBEAT)

DEPLOY = Action("image", "deploy", calls.DEPLOY, timedelta(hours=12), PATIENT, HEARTBEAT)
ERASE = Action("undo", "erase", calls.ERASE, timedelta(days=7), PATIENT, HEARTBEAT)

BOOT = Action("boot", "boot", calls.BOOT, timedelta(minutes=2), PATIENT, HEARTBEAT)
BOOT_LIVE = Action("boot", "boot", calls.BOOT_LIVE, timedelta(hours=4), PATIENT, HEARTBEAT)
TEAR_DOWN = Action("undo", "tear-down", calls.TEAR_DOWN, timedelta(minutes=2), PATIENT, HEARTBEAT)

OBSERVE = Action("verify", "observe", calls.OBSERVE, timedelta(days=7), PATIENT, HEARTBEAT)
WATCH_BOOT = Action("verify", "watch-boot", calls.WATCH_BOOT, timedelta(days=7), PATIENT, HEARTBEAT)
WATCH_GUEST = Action("verify", "watch-guest", calls.WATCH_GUEST, timedelta(minutes=2), PATIENT, HEARTBEAT)
PROBE_SERVICE = Action("verify", "service", calls.PROBE_SERVICE, timedelta(days=7), PATIENT, HEARTBEAT)

RECORD_READY = Action("record", "ready", calls.RECORD_MACHINE, timedelta(seconds=30), QUICK)
RECORD_HELD = Action("record", "held", calls.RECORD_MACHINE, timedelta(seconds=30), QUICK)
RECORD_RESUMED = Action("record", "resumed", calls.RESUME, timedelta(seconds=30), QUICK)
RECORD_RELEASING = Action("record", "releasing", calls.RECORD_MACHINE, timedelta(seconds=30), QUICK)
RECORD_ENDED = Action("record", "ended", calls.RECORD_MACHINE, timedelta(seconds=30), QUICK)
QUARANTINE = Action("record", "quarantine", calls.QUARANTINE, timedelta(seconds=30), QUICK)
SUSPECT = Action("record", "suspect", calls.SUSPECT, timedelta(seconds=30), QUICK)
EXTEND_LEASE = Action("record", "lease", calls.EXTEND_LEASE, timedelta(seconds=30), QUICK)
WHY = Action("record", "why", calls.WHY, timedelta(seconds=5), QUICK)
RETRY_NOW = Action("record", "retry-now", calls.RETRY_NOW, timedelta(seconds=10), PROMPT)
LOOK_FOR_ANOTHER = Action("record", "another", calls.LOOK_FOR_ANOTHER, timedelta(seconds=30), QUICK)
KEEP_STORY = Action("record", "story", calls.KEEP_STORY, timedelta(seconds=60), QUICK)

CHOOSE = Action("plan", "choose", planning.CHOOSE, timedelta(seconds=10), PROMPT)
SURVEY = Action("plan", "survey", planning.SURVEY, timedelta(seconds=15), PROMPT, HEARTBEAT)
KEEP_PLAN = Action("plan", "keep", planning.KEEP_PLAN, timedelta(seconds=10), PROMPT)

LIST_BMCS = Action("bmcs", "list", bmc_health.LIST_BMCS, timedelta(seconds=10), PROMPT, HEARTBEAT)
PROBE_BMCS = Action("bmcs", "probe", bmc_health.LIST_BMCS, timedelta(seconds=55), PROMPT, HEARTBEAT)

INSPECT = Action("enrol", "inspect", calls.INSPECT, timedelta(minutes=5), PROMPT, HEARTBEAT)
REMOVE_BASES = Action("remove", "bases", calls.REMOVE_BASES, timedelta(minutes=5), PROMPT, HEARTBEAT)
FORGET_PROVIDER = Action("remove", "forget", calls.FORGET_PROVIDER, timedelta(seconds=30), QUICK)
RECORD_PROVIDER = Action("enrol", "record", calls.RECORD_PROVIDER, timedelta(seconds=30), QUICK)
