"""A machine as the inventory keeps it: what its user gets."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from mulligan.activities.values import Evidence, Image, MachineRequest, MachineState


@dataclass(frozen=True, slots=True)
class Machine:
    """What the user gets."""

    id: str
    project: str
    name: str
    state: MachineState
    partition: str
    provider: str
    claim_id: str
    run_id: str
    request: MachineRequest
    image: Image
    addresses: tuple[str, ...] = ()
    login: str = ""
    evidence: tuple[Evidence, ...] = ()
    reason: str = ""
    """Why it failed, is held or quarantined; empty otherwise."""
    created_at: datetime | None = None
    ready_at: datetime | None = None
