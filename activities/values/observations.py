"""What was seen and done: evidence, a guest that called home, calls to a driver, how long steps usually take."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from mulligan.activities.values.choices import VerifyLevel


@dataclass(frozen=True, slots=True)
class Evidence:
    """An observation newer than the action that it proves."""

    level: VerifyLevel
    source: str
    """Where it was seen: `power`, `console`, `dhcp-lease`, `arp`, `guest-agent`, `call-home`, `ssh-banner`, ..."""
    observed: str
    """What was seen, for people; at most a few hundred characters."""
    at: datetime


@dataclass(frozen=True, slots=True)
class StepEstimate:
    """How long a step usually takes, learned from runs that ended ready. Times in seconds."""

    step: str
    p50_seconds: float
    p95_seconds: float
    runs: int
    """How many runs this was learned from."""
    basis: str
    """What those runs have in common with the one at hand, for people."""


@dataclass(frozen=True, slots=True)
class Verb:
    """One call to a driver, for the transcript: never its arguments, which may name what is secret."""

    name: str
    at: datetime
    """When it was called first."""
    seconds: float
    """How long the calls took together."""
    said: str = ""
    """The name of the error that it raised; empty when it did what was asked."""
    count: int = 1
    """How many equal calls this stands for: in a row, or taking turns with others, as a poll does."""


@dataclass(frozen=True, slots=True)
class CallHome:
    """What a guest said of itself when it called home."""

    at: datetime
    hostname: str = ""
    instance_id: str = ""
    boot_id: str = ""
    addresses: tuple[str, ...] = ()
    ssh_host_keys: tuple[str, ...] = ()
    status: str = "done"
    """`done` when the guest's set-up ended well; anything else fails the level `guest`."""
    errors: tuple[str, ...] = ()
    peer: str = ""
    """The address that the call came from."""
