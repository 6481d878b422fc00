"""Calls of the partition workers, next to the providers: images, disks, power, evidence."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from mulligan.activities.calls.common import Call, Done
from mulligan.activities.values import (
    CallHome,
    Claim,
    DiskIdentity,
    Erase,
    Evidence,
    Image,
    Inspection,
    MachineRequest,
    Mark,
    RootDisk,
    Service,
    Target,
    Verb,
    VerifyLevel,
)


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
    without_missing: bool = False
    """Written disks of which an earlier erase told that they are gone need not be there: an operator asks again."""


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
class WatchGuestIn:
    """Look at a machine whose guest is awaited; `awaiting` says for what. A look never ends well: see `watch_guest`."""

    target: Target
    mark: Mark
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
WATCH_GUEST = Call[WatchGuestIn, Done]("watch-guest", Done)
PROBE_SERVICE = Call[ProbeIn, Observed]("probe-service", Observed)
INSPECT = Call[Target, Inspected]("inspect", Inspected)
