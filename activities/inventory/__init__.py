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
from mulligan.activities.inventory.edits import By, Edit, EditKind
from mulligan.activities.inventory.explanation import Choice, Explanation, NearMiss, Predicate, Verdict
from mulligan.activities.inventory.inventory import Inventory
from mulligan.activities.inventory.suspects import Blame, Suspect, SuspectKind
from mulligan.activities.inventory.timings import Lesson, driver_of, model_of

__all__ = [
    "Blame",
    "By",
    "Choice",
    "ClaimRequest",
    "ClaimRow",
    "ClaimState",
    "Drift",
    "DriftKind",
    "Edit",
    "EditKind",
    "Explanation",
    "Inventory",
    "Lesson",
    "NearMiss",
    "Predicate",
    "RunRecord",
    "Suspect",
    "SuspectKind",
    "Verdict",
    "driver_of",
    "model_of",
]
