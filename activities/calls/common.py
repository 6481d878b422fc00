"""What all calls have in common, and the names of queues, updates and capabilities."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

from mulligan.activities.values import Evidence, Verb

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
