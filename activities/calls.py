"""The activities as the workflows see them: names, what they take and what they give.

Workflows call these by descriptor and so import neither drivers nor SQL; workers bind each descriptor to its activity.
Every result carries `said`, one line for people, and may carry `evidence`: both are shown in the run's stream.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Generic, TypeVar

from mulligan.activities.values import (
    CallHome,
    Claim,
    DiskIdentity,
    Erase,
    Evidence,
    Image,
    Inspection,
    MachineRequest,
    MachineState,
    Mark,
    Outcome,
    Provider,
    RootDisk,
    Service,
    Target,
    Verb,
    VerifyLevel,
)

In_contra = TypeVar("In_contra", contravariant=True)
Out_co = TypeVar("Out_co", covariant=True)

CONTROL_QUEUE = "mulligan"
CALL_HOME = "call-home"
"""The update by which the boot server tells a provision run that its guest called home."""

BY_AGENT = "deploy.agent"
"""The capability of providers whose disks the deploy agent writes and erases."""

TELLS_PROGRESS = "boot.progress"
"""The capability of providers whose BMC says how far a boot came."""

IN_SERVICE = "IN_SERVICE"
"""Why a claim is refused to a run that was reset after its machine was handed over."""


def partition_queue(partition: str) -> str:
    """The task queue on which a partition's workers listen."""
    return f"{CONTROL_QUEUE}.{partition}"


@dataclass(frozen=True)
class Call(Generic[In_contra, Out_co]):
    """One activity: its name in the history, and the type of its result."""

    name: str
    gives: type[Out_co]


@dataclass(frozen=True, slots=True)
class Done:
    """What every activity says at least."""

    said: str
    evidence: tuple[Evidence, ...] = ()
    verbs: tuple[Verb, ...] = ()
    """The driver transcript (see `transcript`)."""


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


@dataclass(frozen=True, slots=True)
class MadeFor:
    """Whose things, on which provider."""

    target: Target
    mark: Mark


@dataclass(frozen=True, slots=True)
class ImageIn:
    """Bring an image to a provider."""

    target: Target
    image: Image


@dataclass(frozen=True, slots=True)
class BasesIn:
    """Remove bases of images from a provider: those of one digest, or all when it is empty."""

    target: Target
    digest: str = ""


@dataclass(frozen=True, slots=True)
class BasesGone:
    """What was removed, by the names that it had there."""

    said: str
    removed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ProviderRef:
    """Which provider."""

    name: str


@dataclass(frozen=True, slots=True)
class DisksIn:
    """Make a machine's disks: its root disk on the image, and its NoCloud seed."""

    target: Target
    mark: Mark
    image: Image
    request: MachineRequest
    workflow_id: str
    try_number: int
    token_seconds: int
    """How long the call-home token stays good."""


@dataclass(frozen=True, slots=True)
class Deployed:
    """The image is on a server's disk, and was read back. `disk` names it for people: model, serial number, size."""

    said: str
    disk: str
    evidence: tuple[Evidence, ...] = ()
    verbs: tuple[Verb, ...] = ()
    written: DiskIdentity | None = None
    """The disk, as the deploy agent's kernel knows it; None in what was recorded before it was told."""


@dataclass(frozen=True, slots=True)
class EraseIn:
    """Erase a server's disks."""

    target: Target
    mark: Mark
    mode: Erase
    root_disk: RootDisk
    workflow_id: str
    token_seconds: int
    """How long the deploy agent's token stays good."""
    only_if_written: bool = False
    """For a try that failed: a disk on which nothing was written for this claim, as far as is known, stays as it is."""


@dataclass(frozen=True, slots=True)
class BootIn:
    """Make the machine and switch it on."""

    target: Target
    mark: Mark
    claim: Claim
    image: Image
    request: MachineRequest


@dataclass(frozen=True, slots=True)
class Booted:
    """The machine was switched on; evidence must be newer than `at`, by the partition worker's clock."""

    said: str
    at: datetime
    verbs: tuple[Verb, ...] = ()
    evidence: tuple[Evidence, ...] = ()


@dataclass(frozen=True, slots=True)
class ObserveIn:
    """Look until everything up to `level` (at most ADDRESS) is proved; its step is `allowed` so many seconds in all."""

    target: Target
    mark: Mark
    level: VerifyLevel
    booted_at: datetime
    seconds: int
    """How long to look before giving up with what was last observed."""
    allowed: int = 0


@dataclass(frozen=True, slots=True)
class WatchBootIn:
    """Say how far the boot came, for those who wait for `awaiting`, until cancelled."""

    target: Target
    mark: Mark
    booted_at: datetime
    awaiting: str


@dataclass(frozen=True, slots=True)
class Observed:
    """What was proved."""

    said: str
    evidence: tuple[Evidence, ...] = ()
    addresses: tuple[str, ...] = ()
    verbs: tuple[Verb, ...] = ()


@dataclass(frozen=True, slots=True)
class ProbeIn:
    """Ask the machine's service until it answers."""

    addresses: tuple[str, ...]
    service: Service
    seconds: int
    """How long to ask before giving up with what was last observed; `allowed` as in `ObserveIn`."""
    allowed: int = 0


@dataclass(frozen=True, slots=True)
class CallHomeIn:
    """What the boot server tells a run when a guest called home with its token: the update `call-home`."""

    machine_id: str
    try_number: int
    call: CallHome


@dataclass(frozen=True, slots=True)
class Inspected:
    """What a driver found."""

    said: str
    inspection: Inspection
    verbs: tuple[Verb, ...] = ()


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
RETRY_NOW = Call[Nothing, Done]("retry-now", Done)
LOOK_FOR_ANOTHER = Call[ClaimIn, Another]("look-for-another", Another)
FORGET_PROVIDER = Call[ProviderRef, Done]("forget-provider", Done)
RECORD_PROVIDER = Call[EnrolRecord, Enrolled]("record-provider", Enrolled)

PREPARE_IMAGE = Call[ImageIn, Done]("prepare-image", Done)
REMOVE_BASES = Call[BasesIn, BasesGone]("remove-bases", BasesGone)
PLACE_DISKS = Call[DisksIn, Done]("place-disks", Done)
REMOVE_DISKS = Call[MadeFor, Done]("remove-disks", Done)
DEPLOY = Call[DisksIn, Deployed]("deploy", Deployed)
ERASE = Call[EraseIn, Done]("erase", Done)
BOOT = Call[BootIn, Booted]("boot", Booted)
BOOT_LIVE = Call[DisksIn, Booted]("boot-live", Booted)
TEAR_DOWN = Call[MadeFor, Done]("tear-down", Done)
OBSERVE = Call[ObserveIn, Observed]("observe", Observed)
WATCH_BOOT = Call[WatchBootIn, Observed]("watch-boot", Observed)
PROBE_SERVICE = Call[ProbeIn, Observed]("probe-service", Observed)
INSPECT = Call[Target, Inspected]("inspect", Inspected)
