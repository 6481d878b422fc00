"""Calls of the control workers: claims, machines, providers, stories; what is in the database."""

from __future__ import annotations

from dataclasses import dataclass

from mulligan.activities.calls.common import Call, Done
from mulligan.activities.values import (
    Claim,
    Evidence,
    Image,
    Inspection,
    MachineRequest,
    MachineState,
    Outcome,
    Provider,
    Target,
)


@dataclass(frozen=True, slots=True)
class ClaimIn:
    """Ask for a claim. `claim_id` is drawn by the run, so that asking again gives the same claim."""

    request: MachineRequest
    image: Image
    machine_id: str
    claim_id: str
    workflow_id: str
    run_id: str
    fingerprint: str
    avoid: tuple[str, ...]
    """Providers that this run tried already."""
    lease_seconds: int
    only: str = ""
    """The provider that a plan chose: claim no other one; empty for what the request says."""


@dataclass(frozen=True, slots=True)
class Claimed:
    """A claim was made, or was there already."""

    said: str
    claim: Claim
    provider: str


@dataclass(frozen=True, slots=True)
class ClaimRef:
    """Which claim; `dirty` when the provider must be erased before its next claim."""

    claim_id: str
    dirty: bool = False
    forgotten: bool = False
    """Its machine is given up without asking anything of its provider: kept as a change by hand."""
    actor: str = ""
    """Who asked for that."""
    reason: str = ""
    """Why, in their words."""


@dataclass(frozen=True, slots=True)
class LeaseIn:
    """Extend a lease by so many seconds from now."""

    claim_id: str
    seconds: int


@dataclass(frozen=True, slots=True)
class Suspicion:
    """A provider on which the calling run failed, with which image and in which step."""

    provider: str
    reason: str
    image: str = ""
    digest: str = ""
    step: str = ""


@dataclass(frozen=True, slots=True)
class Quarantine:
    """A claim whose undo could not be done: why, and the command that mends it."""

    claim_id: str
    machine_id: str
    reason: str
    mend: str


@dataclass(frozen=True, slots=True)
class MachineUpdate:
    """A machine's new state. READY and HELD make its claim permanent first."""

    machine_id: str
    state: MachineState
    claim_id: str = ""
    provider: str = ""
    addresses: tuple[str, ...] = ()
    login: str = ""
    evidence: tuple[Evidence, ...] = ()
    reason: str = ""


@dataclass(frozen=True, slots=True)
class ResumeIn:
    """A machine that was held is worked on again: its claim gets a lease again, and `said` is why it goes on."""

    machine_id: str
    claim_id: str
    lease_seconds: int
    said: str


@dataclass(frozen=True, slots=True)
class StoryIn:
    """Keep the story of the calling run, which is about to end so."""

    project: str
    machine: str
    machine_id: str
    outcome: Outcome
    reason: str


@dataclass(frozen=True, slots=True)
class Nothing:
    """For what needs no more than who asks."""


@dataclass(frozen=True, slots=True)
class RetryIn:
    """Begin now what waits for its next attempt, unless a provider that it asks has other settings by now."""

    used: tuple[Target, ...] = ()
    """The settings of those that are being asked."""


@dataclass(frozen=True, slots=True)
class Retried:
    """What waited was begun, or is to be begun anew."""

    said: str
    newer: tuple[Target, ...] = ()
    """The providers that have other settings by now: what waits for them was left to be begun anew."""
    waits: bool = False
    """Whether anything waited."""


OPERATOR = "operator"
"""Whom a failure blames that is no failure of the provider's: nothing of it has failed."""


@dataclass(frozen=True, slots=True)
class Why:
    """What the actions under way last failed with, or are doing; empty when nothing is known."""

    said: str
    blame: str = ""
    reason: str = ""
    """The name of the error with which it last failed; empty when it did not."""


@dataclass(frozen=True, slots=True)
class Another:
    """Whether another provider could be claimed now."""

    said: str
    fits: bool
    known: bool = True
    """False where that could not be found out in time."""


@dataclass(frozen=True, slots=True)
class ProviderRef:
    """Which provider."""

    name: str


@dataclass(frozen=True, slots=True)
class EnrolRecord:
    """Register what was found."""

    target: Target
    inspection: Inspection


@dataclass(frozen=True, slots=True)
class Enrolled:
    """The provider as registered."""

    said: str
    provider: Provider


CLAIM = Call[ClaimIn, Claimed]("claim", Claimed)
RELEASE_CLAIM = Call[ClaimRef, Done]("release-claim", Done)
EXTEND_LEASE = Call[LeaseIn, Done]("extend-lease", Done)
SUSPECT = Call[Suspicion, Done]("suspect", Done)
QUARANTINE = Call[Quarantine, Done]("quarantine", Done)
RECORD_MACHINE = Call[MachineUpdate, Done]("record-machine", Done)
RESUME = Call[ResumeIn, Claimed]("resume", Claimed)
KEEP_STORY = Call[StoryIn, Done]("keep-story", Done)
WHY = Call[Nothing, Why]("why", Why)
RETRY_NOW = Call[RetryIn, Retried]("retry-now", Retried)
LOOK_FOR_ANOTHER = Call[ClaimIn, Another]("look-for-another", Another)
FORGET_PROVIDER = Call[ProviderRef, Done]("forget-provider", Done)
RECORD_PROVIDER = Call[EnrolRecord, Enrolled]("record-provider", Enrolled)
