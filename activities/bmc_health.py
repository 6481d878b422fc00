"""How BMCs answer, as a partition's workers have seen it: the values, and the activity that lists them, by its name."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from mulligan.activities.calls import Call
from mulligan.activities.values import Target


class BmcState(StrEnum):
    """How a BMC answered last."""

    NOT_KNOWN = "not-known"
    """Its partition does not say."""
    NOT_ASKED = "not-asked"
    """Nothing was asked of it yet."""
    ANSWERS = "answers"
    BUSY = "busy"
    """It answers, and asked to be left alone until some moment."""
    REFUSES = "refuses"
    """It answers, and did not do what it was asked last."""
    SILENT = "silent"
    """It does not answer, or not in a way that can be understood."""


@dataclass(frozen=True, slots=True)
class BmcHealth:
    """What is known of one BMC. Holds no secret: errors never do."""

    bmc: str
    """The name of its lane: the host, with the port where that is not its protocol's own."""
    state: BmcState = BmcState.NOT_ASKED
    answered_at: datetime | None = None
    """When it answered last, to a few seconds."""
    silent_since: datetime | None = None
    """When it was first found silent; None while it answers."""
    busy_until: datetime | None = None
    """Until when it is to be left alone; None when that is over."""
    error: str = ""
    """Why it is silent, or what it refused last; empty while all is well."""
    asked: int = 0
    """How often something was asked of it since `counted_since`."""
    failed: int = 0
    """How often it did not do so."""
    counted_since: datetime | None = None
    """The beginning of the hour, or less, for which is counted."""


@dataclass(frozen=True, slots=True)
class BmcsIn:
    """Which BMCs: those behind these providers, which are of one partition. With `probe` each is asked now."""

    partition: str
    targets: tuple[Target, ...]
    probe: bool = False


@dataclass(frozen=True, slots=True)
class BmcsOut:
    """The BMCs, each once, by name."""

    said: str
    bmcs: tuple[BmcHealth, ...]


LIST_BMCS = Call[BmcsIn, BmcsOut]("list-bmcs", BmcsOut)
