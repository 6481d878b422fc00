"""What a claim is asked with and shown as: the value types of the inventory that only it and its callers share."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from mulligan.activities.values import Kind, Outcome, Placement, Resources


class ClaimState(StrEnum):
    """Where a claim is in its life. All but RELEASED hold resources; RELEASED is a tombstone."""

    HELD = "held"
    PERMANENT = "permanent"
    QUARANTINED = "quarantined"
    RELEASED = "released"


@dataclass(frozen=True, slots=True)
class ClaimRequest:
    """One claim, as asked for. The same `claim_id` asked again with the same `fingerprint` is the same claim."""

    claim_id: str
    machine_id: str
    project: str
    machine: str
    run_id: str
    partition: str
    resources: Resources
    """At least one resource above 0; for a provider given whole, the least that it must have."""
    kind: Kind = Kind.ANY
    requires: tuple[str, ...] = ()
    """Names of capabilities; `one|other` is had by whoever has one of the two."""
    forbids: tuple[str, ...] = ()
    provider: str = ""
    """Claim only this provider; empty for any."""
    avoid: tuple[str, ...] = ()
    """Providers already tried in this run: never candidates."""
    placement: Placement = Placement.PACK
    lease_seconds: int = 900
    """How long the claim is held before it must have been extended or made permanent; at least 1."""
    fingerprint: str = ""
    """Digest of the normalised request."""


@dataclass(frozen=True, slots=True)
class ClaimRow:
    """One claim as lists show it. A tombstone of a claim that was never made has only its id."""

    id: str
    machine_id: str
    project: str
    machine: str
    partition: str
    provider: str
    resources: Resources
    """What is held (or, when released, was)."""
    fence: int
    state: ClaimState
    lease_expires_at: datetime | None
    """By the database's clock; None unless the state is HELD."""
    run_id: str
    reason: str
    """Why it is quarantined; empty when it is not."""
    mend: str
    """The command that mends what is quarantined."""
    created_at: datetime


@dataclass(frozen=True, slots=True)
class RunRecord:
    """A run as it is kept after its end. `story` is JSON text that the inventory does not look into."""

    workflow_id: str
    run_id: str
    kind: str
    """provision, release, reclaim or enrol."""
    project: str
    machine: str
    machine_id: str
    outcome: Outcome
    reason: str
    started_at: datetime
    ended_at: datetime | None
    story: str
    provider: str = field(default="", compare=False)
    """Where its machine was claimed last. Not kept with the run: read from its machine, while that is kept."""


class DriftKind(StrEnum):
    """What an audit found: a counter that the live claims do not add up to, or a claim whose machine is gone."""

    COUNTER = "counter"
    CLAIM = "claim"


@dataclass(frozen=True, slots=True)
class Drift:
    """One finding of an audit."""

    kind: DriftKind
    provider: str
    resource: str = ""
    """For COUNTER: which resource."""
    used: int = 0
    """For COUNTER: what the counter says."""
    claimed: int = 0
    """For COUNTER: what live claims add up to."""
    claim_id: str = ""
    """For CLAIM: the claim that outlived its machine."""
    machine_id: str = ""
    detail: str = ""
    """For people: what is wrong, and what repairing does."""
