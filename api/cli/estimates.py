"""Expected times in words: how long a step usually takes, and whether it takes longer this time."""

from __future__ import annotations

from datetime import UTC, datetime

from mulligan.api.cli.text import elapsed
from mulligan.v1 import run_pb2


def usual_text(estimate: run_pb2.StepEstimate) -> str:
    """From the middle to the edge of what the runs took, e.g. `5 to 9 s`; one number where they are the same."""
    low, high = estimate.p50_seconds, estimate.p95_seconds
    if high < 0.1:
        return "under 0.1 s"
    if high >= 60:
        first, last, unit = elapsed(low), elapsed(high), ""
    else:
        digits = 0 if high >= 5 else 1
        first, last, unit = f"{low:.{digits}f}", f"{high:.{digits}f}", " s"
    return f"{last}{unit}" if first == last else f"{first} to {last}{unit}"


def until_text(progress: run_pb2.RunProgress) -> str:
    """Until when the step has time, e.g. `has until 23:59:44 UTC`; with the day where that is not today."""
    if not progress.HasField("deadline"):
        return ""
    at = progress.deadline.ToDatetime(tzinfo=UTC)
    day = "" if at.date() == datetime.now(UTC).date() else f"{at:%Y-%m-%d} "
    return f"has until {day}{at:%H:%M:%S} UTC"


def pace_text(progress: run_pb2.RunProgress) -> str:
    """What is known of the step's time; empty where no run has taught it."""
    if not progress.HasField("estimate"):
        return ""
    estimate = progress.estimate
    usually = f"usually {usual_text(estimate)}"
    if not progress.slower_than_p95:
        return usually
    return f"slower than p95 of {estimate.runs} runs ({estimate.basis}: {usually})"
