"""All activities of a control worker: those that need the database."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from temporalio.client import Client

from mulligan.activities.claim import ClaimActivities
from mulligan.activities.inventory import Inventory
from mulligan.activities.plan import PlanActivities
from mulligan.activities.record import RecordActivities


def control_activities(inventory: Inventory, client: Client) -> list[Callable[..., Any]]:
    """The activities, bound to a database and to Temporal."""
    claim, record = ClaimActivities(inventory), RecordActivities(inventory, client)
    plan = PlanActivities(inventory)
    return [
        claim.claim,
        claim.look_for_another,
        claim.release_claim,
        claim.extend_lease,
        claim.suspect,
        claim.quarantine,
        record.record_machine,
        record.keep_story,
        record.why,
        record.resume,
        record.retry_now,
        record.record_provider,
        record.forget_provider,
        plan.choose,
        plan.keep,
    ]
