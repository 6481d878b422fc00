"""How long a run leases its claim for: the older the run, the longer, so that what extends leases fills no history."""

from __future__ import annotations

from datetime import timedelta

SHARE = 8
"""A run that is older than so many of its leases gets a longer one: that share of its age."""

AT_MOST = timedelta(hours=1)
"""Unless it began with longer ones. A lease is how late it may be noticed that somebody terminated the run; Temporal
terminates it, and runs no undo, when its history has 51,200 events."""


def leased(seconds: int, age: timedelta) -> int:
    """Seconds to lease a claim for, by a run of this age that began with leases of so many."""
    return max(seconds, round(min(age / SHARE, AT_MOST).total_seconds()))
