"""The audit finds what does not add up, and repairs it on command only."""

from __future__ import annotations

from sqlalchemy import update

from mulligan.activities.inventory import Drift, DriftKind, Inventory
from mulligan.activities.inventory.database import Database
from mulligan.activities.inventory.tables import inventories
from mulligan.activities.values import MachineState
from tests.inventory.parts import add, add_server, asking, machine, used


def _set_used(url: str, provider: str, amount: int) -> None:
    database = Database(url)
    mine = (inventories.c.provider == provider) & (inventories.c.resource == "vcpu")
    with database.write() as connection:
        connection.execute(update(inventories).where(mine).values(used=amount))
    database.close()


def test_a_counter_that_drifted_is_found_and_mended_on_command(url: str, inventory: Inventory) -> None:
    """Too high and too low alike; looking alone changes nothing."""
    add(inventory, "hv-1")
    add(inventory, "hv-2")
    inventory.claim(asking("c1", provider="hv-1"))
    assert inventory.audit() == []
    _set_used(url, "hv-1", 0)
    _set_used(url, "hv-2", 5)
    drifts = inventory.audit()
    assert [(d.kind, d.provider, d.resource, d.used, d.claimed) for d in drifts] == [
        (DriftKind.COUNTER, "hv-1", "vcpu", 0, 2),
        (DriftKind.COUNTER, "hv-2", "vcpu", 5, 0),
    ]
    assert inventory.audit() == drifts
    assert inventory.repair(drifts) == drifts
    assert inventory.audit() == []
    assert used(inventory, "hv-1")["vcpu"] == 2


def test_a_claim_that_outlived_its_machine_is_found_and_released_on_command(inventory: Inventory) -> None:
    """A server freed so is dirty, for nobody saw it being cleaned; quarantined claims are held on purpose."""
    add_server(inventory, "server")
    add(inventory, "hv-1")
    for claim_id, provider in (("c1", "server"), ("c2", "hv-1"), ("c3", "hv-1")):
        inventory.claim(asking(claim_id, machine_id=f"m-{claim_id}", provider=provider))
        inventory.begin_machine(machine(f"m-{claim_id}", name=claim_id))
    assert inventory.audit() == []
    inventory.quarantine_claim("c3", "disk left", "mend it")
    for claim_id in ("c1", "c2", "c3"):
        inventory.update_machine(f"m-{claim_id}", state=MachineState.FAILED)
    drifts = inventory.audit()
    assert [(d.kind, d.claim_id, d.machine_id) for d in drifts] == [
        (DriftKind.CLAIM, "c2", "m-c2"),
        (DriftKind.CLAIM, "c1", "m-c1"),
    ]
    assert inventory.repair(drifts) == drifts
    assert [row.id for row in inventory.claims()] == ["c3"]
    assert inventory.provider("server").dirty and not inventory.provider("hv-1").dirty
    assert inventory.audit() == []


def test_a_drift_that_is_gone_is_not_mended_again(url: str, inventory: Inventory) -> None:
    """Repairing looks again under the lock, and so never acts on an old finding."""
    add(inventory, "hv-1")
    inventory.claim(asking("c1"))
    old = Drift(DriftKind.COUNTER, "hv-1", "vcpu", used=2, claimed=0)
    released = Drift(DriftKind.CLAIM, "hv-1", claim_id="c1", machine_id="machine-of-c1")
    assert inventory.repair([old, released]) == []
    assert used(inventory, "hv-1")["vcpu"] == 2
    _set_used(url, "hv-1", 0)
    drifts = inventory.audit()
    inventory.release_claim("c1")
    assert inventory.repair(drifts) == []
    assert inventory.audit() == []


def test_a_release_ends_also_when_the_counter_had_drifted(url: str, inventory: Inventory) -> None:
    """The machine must go all the same; nothing goes below zero."""
    add(inventory, "hv-1")
    inventory.claim(asking("c1"))
    _set_used(url, "hv-1", 1)
    inventory.release_claim("c1")
    assert used(inventory, "hv-1") == {"vcpu": 0, "memory_mib": 0, "disk_gib": 0}
