"""The workflows as their callers see them: names, ids, what they take and what they give."""

from __future__ import annotations

from dataclasses import dataclass

from mulligan.activities.values import Erase, Evidence, Image, MachineRequest, Provider, Target

PROVISION = "ProvisionMachine"
RELEASE = "ReleaseMachine"
RECLAIM = "ReclaimClaim"
ENROL = "EnrolProvider"
REMOVE = "RemoveProvider"
SPARE = "SpareImage"
PLAN = "PlanMachine"
BMCS = "ListBmcs"

MEMO_REQUEST = "request"
MEMO_FINGERPRINT = "fingerprint"
MEMO_MACHINE_ID = "machine-id"


def provision_id(project: str, machine: str) -> str:
    """The workflow id of the run that makes this machine."""
    return f"provision:{project}:{machine}"


def release_id(project: str, machine: str) -> str:
    """The workflow id of the run that takes this machine down."""
    return f"release:{project}:{machine}"


def reclaim_id(claim_id: str) -> str:
    """The workflow id of the run that takes down what an abandoned run left on a claim."""
    return f"reclaim:{claim_id}"


def plan_id(unique: str) -> str:
    """The workflow id of one planning; it is no run, and nobody looks it up."""
    return f"plan:{unique}"


def bmcs_id(unique: str) -> str:
    """The workflow id of one listing of BMCs; it is no run, and nobody looks it up."""
    return f"bmcs:{unique}"


def enrol_id(provider: str) -> str:
    """The workflow id of the run that registers a provider."""
    return f"enrol:{provider}"


def remove_id(provider: str) -> str:
    """The workflow id of the run that removes a provider."""
    return f"remove:{provider}"


def spare_id(digest: str) -> str:
    """The workflow id of the run that removes an image's bases from all providers."""
    return f"spare:{digest}"


@dataclass(frozen=True, slots=True)
class ProvisionIn:
    """Make one machine. The id is drawn by whoever starts the run."""

    machine_id: str
    request: MachineRequest
    image: Image
    fingerprint: str
    lease_seconds: int = 900
    first_provider: str = ""
    """The provider that a plan chose for the first try; empty for any."""


@dataclass(frozen=True, slots=True)
class ProvisionOut:
    """The machine is up, and was proved to be."""

    said: str
    machine_id: str
    provider: str
    addresses: tuple[str, ...]
    evidence: tuple[Evidence, ...]


@dataclass(frozen=True, slots=True)
class ReleaseIn:
    """Take one machine down."""

    machine_id: str
    project: str
    machine: str
    claim_id: str
    target: Target
    run_id: str
    """The run that made the machine: its mark."""
    fence: int
    dirty: bool = False
    erase: Erase = Erase.METADATA
    by_agent: bool = False
    """Whether the deploy agent erases its disks; else they are removed."""
    forget: bool = False
    """The provider is gone for good: ask nothing of it, only give back what is claimed of it."""
    given_back: bool = False
    """Whether its user had the machine, and gave it back: a reclaim that goes on with that ends as a release does."""
    actor: str = ""
    """Who asked; empty where nobody did."""
    reason: str = ""
    """Why, in their words."""


@dataclass(frozen=True, slots=True)
class ReleaseOut:
    """The machine is gone."""

    said: str
    machine_id: str


@dataclass(frozen=True, slots=True)
class EnrolOut:
    """The provider as registered."""

    said: str
    provider: Provider


@dataclass(frozen=True, slots=True)
class RemoveOut:
    """The provider is forgotten."""

    said: str
    removed: tuple[str, ...]
    """What was kept there for Mulligan itself, by the names that it had there."""


@dataclass(frozen=True, slots=True)
class SpareIn:
    """Remove an image's bases from these providers."""

    name: str
    digest: str
    targets: tuple[Target, ...]
