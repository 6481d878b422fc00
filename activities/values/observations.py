"""What was seen and done: evidence, disks, a guest that called home, calls to a driver, how long steps usually take."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from mulligan.activities.values.choices import VerifyLevel


@dataclass(frozen=True, slots=True)
class Evidence:
    """An observation newer than the action that it proves."""

    level: VerifyLevel | None
    """The level that it proves; None for what proves something else, e.g. that a disk was written."""
    source: str
    """Where it was seen: `power`, `console`, `dhcp-lease`, `arp`, `call-home`, `ssh-banner`, `disk`, ..."""
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
class DiskIdentity:
    """By what a disk is told from others, as a kernel says; empty, or 0, where it does not."""

    path: str = ""
    """The name that the kernel gave it at that boot, e.g. `/dev/sda`."""
    serial: str = ""
    wwn: str = ""
    model: str = ""
    size_bytes: int = 0
    mount: str = ""
    """What the guest has mounted from it: `/` or `/boot`; empty where not the guest told of it."""

    @property
    def named(self) -> str:
        """The disk for people: model, serial number or WWN, size and path, as far as they are known."""
        told = [self.model or "a disk"]
        if self.serial or self.wwn:
            told.append(f"serial {self.serial}" if self.serial else f"WWN {self.wwn}")
        told += [f"{self.size_bytes / 10**9:.0f} GB"] if self.size_bytes > 0 else []
        return ", ".join(told) + f" ({self.path or 'path unknown'})"


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
    disks: tuple[DiskIdentity, ...] = ()
    """The disks beneath `/` and, where they are others, beneath `/boot`; none where the guest cannot tell."""
