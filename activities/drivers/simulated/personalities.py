"""The ways in which a simulated host can misbehave, as real ones do: one table, listed for people."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum


class Personality(StrEnum):
    """One way to misbehave; a host may have several."""

    SLOW_POST = "slow-post"
    STICKY_MEDIA = "sticky-media"
    BUSY_WINDOW = "busy-window"
    DROPS_AFTER_ACTING = "drops-after-acting"
    LIES_ONCE = "lies-once"
    DIES = "dies"
    NEVER_BOOTS = "never-boots"
    BOOTS_THEN_SILENT = "boots-then-silent"
    NO_CALL_HOME = "no-call-home"
    CLOUD_INIT_FAILED = "cloud-init-failed"
    HALF_UNDO = "half-undo"
    STUCK_UNDO = "stuck-undo"


_DESCRIPTIONS: Mapping[Personality, str] = {
    Personality.SLOW_POST: "the firmware takes eight times as long as on its neighbours",
    Personality.STICKY_MEDIA: "the drive keeps a released machine's seed: the next machine boots with it once",
    Personality.BUSY_WINDOW: "answers Busy to the next two verbs after each change of power",
    Personality.DROPS_AFTER_ACTING: "acts, then drops the connection: each changing verb, once per machine",
    Personality.LIES_ONCE: "after a change of power, reads the old power state and an old address once",
    Personality.DIES: "stops answering for good once a machine was powered on, until it is mended",
    Personality.NEVER_BOOTS: "the power is on, and the console stays silent",
    Personality.BOOTS_THEN_SILENT: "boots to the login prompt, but never gets an address",
    Personality.NO_CALL_HOME: "boots and has an address, but never calls home",
    Personality.CLOUD_INIT_FAILED: "calls home to say that its set-up failed",
    Personality.HALF_UNDO: "the first removal of a machine's disks leaves its seed behind; asking again removes it",
    Personality.STUCK_UNDO: "disks and definitions cannot be removed until the host is mended",
}


def personalities() -> tuple[tuple[str, str], ...]:
    """Every personality as (name, what it does in one line), in the order in which documents list them."""
    return tuple((personality.value, _DESCRIPTIONS[personality]) for personality in Personality)
