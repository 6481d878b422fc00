"""Small builders of what the inventory's tests put in."""

from __future__ import annotations

import itertools
from typing import Any

from mulligan.activities.inventory import ClaimRequest, Inventory
from mulligan.activities.inventory.machine import Machine
from mulligan.activities.values import (
    Image,
    ImageFormat,
    Inspection,
    InventoryRow,
    Kind,
    MachineRequest,
    MachineState,
    Provider,
    Resources,
)

_numbers = itertools.count(1)
SMALL = Resources(vcpu=2, memory_mib=2048, disk_gib=10)


def inspection(
    kind: Kind = Kind.VIRTUAL,
    vcpu: int = 8,
    memory_mib: int = 16384,
    disk_gib: int = 100,
    capabilities: tuple[str, ...] = ("arch.x86_64",),
) -> Inspection:
    """What a driver saw."""
    totals = (("vcpu", vcpu), ("memory_mib", memory_mib), ("disk_gib", disk_gib))
    return Inspection(kind, tuple(InventoryRow(name, total) for name, total in totals), capabilities)


def add(inventory: Inventory, name: str, partition: str = "default", **seen: Any) -> Provider:
    """Register a provider."""
    return inventory.put_provider(name, partition, f"simulated://{name}", "", inspection(**seen), {})


def add_server(inventory: Inventory, name: str, **seen: Any) -> Provider:
    """Register a bare-metal provider."""
    return add(inventory, name, kind=Kind.BARE_METAL, **seen)


def asking(claim_id: str = "", **changes: Any) -> ClaimRequest:
    """A claim of a small machine, with a new id unless one is given."""
    claim_id = claim_id or f"claim-{next(_numbers)}"
    values: dict[str, Any] = {
        "machine_id": f"machine-of-{claim_id}",
        "project": "demo",
        "machine": "web-1",
        "run_id": "run-1",
        "partition": "default",
        "resources": SMALL,
        "fingerprint": "sha256:same",
    }
    return ClaimRequest(claim_id=claim_id, **{**values, **changes})


def used(inventory: Inventory, provider: str) -> dict[str, int]:
    """What the counters say."""
    return {row.resource: row.used for row in inventory.provider(provider).inventory}


DEBIAN = Image("debian-12", "https://example.org/debian.qcow2", "sha256:" + "0" * 64, ImageFormat.QCOW2)


def machine(machine_id: str, name: str = "web-1", **changes: Any) -> Machine:
    """A machine that is being provisioned."""
    project = changes.pop("project", "demo")
    request = MachineRequest(project, name, DEBIAN.name, changes.pop("resources", SMALL))
    values: dict[str, Any] = {"state": MachineState.PROVISIONING, "partition": "default", "provider": ""}
    values |= {"claim_id": "", "run_id": "run-1", "request": request, "image": DEBIAN}
    return Machine(machine_id, project, name, **{**values, **changes})
