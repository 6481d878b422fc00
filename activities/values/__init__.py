"""The words of Mulligan as frozen value types: what is asked for, what is held, what was seen.

Everything that crosses a process boundary (workflow inputs, activity inputs and results) is made of these. They know
nothing of gRPC, SQL or any driver. Sizes are whole numbers in the unit that the field's name ends with; times are aware
UTC datetimes.
"""

from __future__ import annotations

from mulligan.activities.values.choices import (
    Compression,
    DiskKind,
    Erase,
    Firmware,
    ImageFormat,
    Kind,
    MachineState,
    OnFailure,
    Outcome,
    Placement,
    PowerState,
    ServiceKind,
    VerifyLevel,
    WhenNone,
)
from mulligan.activities.values.holdings import (
    Claim,
    Identity,
    Inspection,
    InventoryRow,
    Mark,
    Provider,
    Target,
)
from mulligan.activities.values.observations import (
    CallHome,
    DiskIdentity,
    Evidence,
    StepEstimate,
    Verb,
)
from mulligan.activities.values.requests import (
    RESOURCES,
    Deadlines,
    Image,
    MachineRequest,
    Resources,
    RootDisk,
    Service,
)

__all__ = [
    "RESOURCES",
    "CallHome",
    "Claim",
    "Compression",
    "Deadlines",
    "DiskIdentity",
    "DiskKind",
    "Erase",
    "Evidence",
    "Firmware",
    "Identity",
    "Image",
    "ImageFormat",
    "Inspection",
    "InventoryRow",
    "Kind",
    "MachineRequest",
    "MachineState",
    "Mark",
    "OnFailure",
    "Outcome",
    "Placement",
    "PowerState",
    "Provider",
    "Resources",
    "RootDisk",
    "Service",
    "ServiceKind",
    "StepEstimate",
    "Target",
    "Verb",
    "VerifyLevel",
    "WhenNone",
]
