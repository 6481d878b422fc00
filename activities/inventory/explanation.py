"""Why a claim found what it found: plain values that any process can show, free of other projects' names."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from mulligan.activities.values import Provider


class Verdict(StrEnum):
    """FITS: some provider can hold it now. NOT_NOW: some could later. NEVER: none could, even empty."""

    FITS = "fits"
    NOT_NOW = "not-now"
    NEVER = "never"


@dataclass(frozen=True, slots=True)
class Predicate:
    """One stage of the funnel: `removed` providers that passed all before it fail here, `remaining` pass."""

    name: str
    description: str
    remaining: int
    removed: int


@dataclass(frozen=True, slots=True)
class NearMiss:
    """A provider that fails few predicates; `detail` gives the numbers."""

    provider: str
    failing: tuple[str, ...]
    detail: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """The funnel over all providers in order, and what it comes to."""

    verdict: Verdict
    summary: str
    """One line for people, with what to do next."""
    funnel: tuple[Predicate, ...]
    fits_count: int
    """Providers that can hold it now."""
    not_now_count: int
    """Providers that could hold it, but not at the moment."""
    never_count: int
    """Providers that could not hold it even if they were empty and in service."""
    near_misses: tuple[NearMiss, ...] = ()


@dataclass(frozen=True, slots=True)
class Choice:
    """What a claim would take now: the provider, if one fits, and the explanation, of one moment."""

    explanation: Explanation
    provider: Provider | None = None
    alike: int = 1
    """How many of those that fit are as good as it, itself included: among them lots are drawn."""
