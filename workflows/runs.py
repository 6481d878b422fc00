"""The workflows as their callers see them: names, ids, what they take and what they give."""

from __future__ import annotations

from dataclasses import dataclass

from mulligan.activities.values import Evidence, Image, MachineRequest, Provider, Target

PROVISION = "ProvisionMachine"
RELEASE = "ReleaseMachine"
RECLAIM = "ReclaimClaim"
ENROL = "EnrolProvider"

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


def enrol_id(provider: str) -> str:
    """The workflow id of the run that registers a provider."""
    return f"enrol:{provider}"


@dataclass(frozen=True, slots=True)
class ProvisionIn:
    """Make one machine. The id is drawn by whoever starts the run."""

    machine_id: str
    request: MachineRequest
    image: Image
    fingerprint: str
    lease_seconds: int = 900


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
