"""Plans: what a run would do, as the world is now, and what has changed since.

A plan is made by a short workflow of three activities: `choose` asks the inventory, `survey` asks the provider, and
`keep-plan` keeps what came out under its hash. None of them changes anything but the table of plans.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from mulligan.activities.calls import Call, ClaimIn
from mulligan.activities.values import Image, MachineRequest, StepEstimate, Target

HASH_DIGITS = 16
"""Hex digits of a plan's hash that people see."""

FITS = "fits"
"""The verdict of an explanation with which a plan can be applied."""


@dataclass(frozen=True, slots=True)
class PlanIn:
    """What would be asked for. `only` plans for this provider and no other one."""

    request: MachineRequest
    image: Image
    fingerprint: str
    only: str = ""


@dataclass(frozen=True, slots=True)
class Chosen:
    """What the inventory says: the provider that would be claimed, or why there is none."""

    said: str
    verdict: str
    explanation: Mapping[str, Any]
    """The inventory's explanation as plain data."""
    target: Target | None = None
    kind: str = ""
    generation: int = 0
    why: str = ""
    estimates: tuple[StepEstimate, ...] = ()


@dataclass(frozen=True, slots=True)
class SurveyIn:
    """Look at what the run would find on this provider."""

    target: Target
    kind: str
    image: Image
    request: MachineRequest


@dataclass(frozen=True, slots=True)
class Surveyed:
    """What the run would find. Bytes are 0 where there is nothing to move, or where the size is not known."""

    said: str
    download_bytes: int = 0
    place_bytes: int = 0
    cached_bytes: int = 0
    lacks: tuple[str, ...] = ()
    destroys: tuple[str, ...] = ()
    by_agent: bool = False
    """Whether the deploy agent would write a server's disk."""
    live: bool = False
    """Whether the machine would run without a disk."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run would do. Holds no secret: the request is without its user data."""

    request: MachineRequest
    fingerprint: str
    image_digest: str
    verdict: str
    explanation: Mapping[str, Any]
    provider: str = ""
    kind: str = ""
    generation: int = 0
    why: str = ""
    estimates: tuple[StepEstimate, ...] = ()
    download_bytes: int = 0
    place_bytes: int = 0
    cached_bytes: int = 0
    lacks: tuple[str, ...] = ()
    destroys: tuple[str, ...] = ()
    by_agent: bool = False
    live: bool = False
    made_at: datetime | None = None

    @property
    def can_be_applied(self) -> bool:
        """Whether a run could do this now."""
        return bool(self.provider) and self.verdict == FITS and not self.lacks

    @property
    def hash(self) -> str:
        """What names the plan: equal for plans that would do the same; empty for one that cannot be applied."""
        if not self.can_be_applied:
            return ""
        told = [
            self.fingerprint,
            self.image_digest,
            self.provider,
            self.generation,
            self.kind,
            self.verdict,
            list(self.lacks),
            list(self.destroys),
            self.download_bytes,
            self.place_bytes,
        ]
        canonical = json.dumps(told, separators=(",", ":"), ensure_ascii=True)
        return f"plan-{hashlib.sha256(canonical.encode()).hexdigest()[:HASH_DIGITS]}"


def plan_of(asked: PlanIn, chosen: Chosen, survey: Surveyed) -> Plan:
    """What would be done, from what the inventory and the provider say."""
    return Plan(
        request=replace(asked.request, user_data=""),
        fingerprint=asked.fingerprint,
        image_digest=asked.image.digest,
        verdict=chosen.verdict,
        explanation=chosen.explanation,
        provider=chosen.target.name if chosen.target is not None else "",
        kind=chosen.kind,
        generation=chosen.generation,
        why=chosen.why,
        estimates=chosen.estimates,
        download_bytes=survey.download_bytes,
        place_bytes=survey.place_bytes,
        cached_bytes=survey.cached_bytes,
        lacks=survey.lacks,
        destroys=survey.destroys,
        by_agent=survey.by_agent,
        live=survey.live,
    )


CHOOSE = Call[ClaimIn, Chosen]("choose", Chosen)
SURVEY = Call[SurveyIn, Surveyed]("survey", Surveyed)
KEEP_PLAN = Call[Plan, Plan]("keep-plan", Plan)
