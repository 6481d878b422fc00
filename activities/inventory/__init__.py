"""Providers, claims and their explanation, images' names, machines and kept runs: everything that is in the database.

`Inventory` is the door; the other names are what goes in and comes out of it.
"""

from mulligan.activities.inventory.claims import (
    ClaimRequest,
    ClaimRow,
    ClaimState,
    Drift,
    DriftKind,
    RunRecord,
)
from mulligan.activities.inventory.explanation import Explanation, NearMiss, Predicate, Verdict
from mulligan.activities.inventory.inventory import Inventory

__all__ = [
    "ClaimRequest",
    "ClaimRow",
    "ClaimState",
    "Drift",
    "DriftKind",
    "Explanation",
    "Inventory",
    "NearMiss",
    "Predicate",
    "RunRecord",
    "Verdict",
]
