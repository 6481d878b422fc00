"""Changes by hand: who, why and what, kept in the transaction that makes them, and only when it does."""

from __future__ import annotations

import pytest
from alembic import command
from sqlalchemy import text, update

from mulligan.activities.errors import Conflict, NotFound
from mulligan.activities.inventory import By, EditKind, Inventory
from mulligan.activities.inventory.database import Database
from mulligan.activities.inventory.migrate import configuration
from mulligan.activities.inventory.tables import inventories
from mulligan.activities.values import MachineState
from tests.inventory.parts import DEBIAN, add, asking, machine

ANN = By("ann@ops", "it burnt")


def test_a_machine_that_is_forgotten_is_kept_once(inventory: Inventory) -> None:
    """With what was let go of where; not again when it is told again, nor when a claim is given back as usual."""
    add(inventory, "hv-1")
    inventory.claim(asking("c1", project="shop"))
    inventory.claim(asking("c2"))
    inventory.release_claim("c2")
    inventory.release_claim("c2", forgotten=ANN)
    for _ in range(2):
        inventory.release_claim("c1", forgotten=ANN)
    (edit,) = inventory.edits(EditKind.MACHINE)
    assert (edit.name, edit.project, edit.actor, edit.reason) == ("web-1", "shop", "ann@ops", "it burnt")
    assert "let go of 2 vcpu, 2048 MiB memory, 10 GiB disk of hv-1 (claim c1); nothing was asked of hv-1" in edit.what
    assert inventory.edits(project="shop", name="web-1") == [edit]
    assert inventory.edits(project="demo") == inventory.edits(EditKind.PROVIDER, "web-1") == []


def test_a_claim_that_never_was_leaves_no_change(inventory: Inventory) -> None:
    """Its tombstone holds nothing that could be let go of."""
    inventory.release_claim("never-made", forgotten=ANN)
    assert inventory.edits() == []


def test_a_machine_that_is_given_up_without_a_claim_is_kept(inventory: Inventory) -> None:
    """When a person asked, and once; not when it was swept."""
    for name in ("m1", "m2"):
        inventory.begin_machine(machine(name, name=name, state=MachineState.RELEASING))
    inventory.abandon_machine("m1")
    for _ in range(2):
        inventory.abandon_machine("m2", ANN)
    (edit,) = inventory.edits()
    assert (edit.kind, edit.name, edit.actor) == (EditKind.MACHINE, "m2", "ann@ops")
    assert "nothing was claimed" in edit.what


def test_an_image_that_is_removed_is_kept(inventory: Inventory) -> None:
    """Not one that could not be: a machine runs it, or there is none."""
    inventory.add_image(DEBIAN)
    inventory.begin_machine(machine("m1", state=MachineState.RELEASING))
    with pytest.raises(Conflict):
        inventory.remove_image(DEBIAN.name, ANN)
    inventory.abandon_machine("m1")
    assert inventory.edits() == []
    inventory.remove_image(DEBIAN.name, ANN)
    with pytest.raises(NotFound):
        inventory.remove_image(DEBIAN.name, ANN)
    (edit,) = inventory.edits(EditKind.IMAGE, DEBIAN.name)
    assert (edit.actor, edit.reason, edit.project) == ("ann@ops", "it burnt", "")


def test_a_repair_is_kept_for_what_it_mended(inventory: Inventory) -> None:
    """With its provider; not a second time, when there was nothing left to mend."""
    add(inventory, "hv-1")
    with inventory._database.write() as connection:
        drifted = update(inventories).where(inventories.c.provider == "hv-1", inventories.c.resource == "vcpu")
        connection.execute(drifted.values(used=1))
    drifts = inventory.audit()
    assert inventory.edits() == []
    assert inventory.repair(drifts, ANN) == drifts
    assert inventory.repair(drifts, ANN) == []
    (edit,) = inventory.edits(EditKind.PROVIDER, "hv-1")
    assert (edit.actor, edit.reason, edit.what) == ("ann@ops", "it burnt", f"repaired: {drifts[0].detail}")


def test_changes_of_a_provider_stay_when_it_is_gone(inventory: Inventory) -> None:
    """Found by its name, newest first."""
    generation = add(inventory, "hv-1").generation
    inventory.edit_provider("hv-1", generation=generation, enabled=False, by=ANN)
    inventory.retire_provider("hv-1", By("bob"), forget=True)
    inventory.remove_provider("hv-1")
    assert [edit.actor for edit in inventory.edits(EditKind.PROVIDER, "hv-1")] == ["bob", "ann@ops"]
    assert len(inventory.edits(limit=1)) == 1


def test_a_removal_that_is_done_is_told(inventory: Inventory) -> None:
    """By whoever asked for it, and once; one that asks nothing of the provider is told as that already."""
    add(inventory, "hv-1")
    inventory.retire_provider("hv-1", ANN)
    inventory.remove_provider("hv-1")
    inventory.remove_provider("hv-1")
    done, asked = inventory.edits(EditKind.PROVIDER, "hv-1")
    assert asked.what.startswith("removal asked for")
    assert (done.what, done.actor, done.reason) == (
        "removed: what was kept there is removed, and it is forgotten",
        "ann@ops",
        "it burnt",
    )


def test_changes_kept_by_an_older_version_are_still_listed(empty_url: str) -> None:
    """They were of providers and images, and belong to no project."""
    database = Database(empty_url)
    with database.write() as connection:
        command.upgrade(configuration(connection), "0005")
        connection.execute(
            text(
                "INSERT INTO edits (id, kind, name, what, actor, reason, at) "
                "VALUES ('e1', 'provider', 'h1', 'taken as erased', 'ann', 'by DBAN', 1)"
            )
        )
    database.close()
    inventory = Inventory.open(empty_url)
    assert [(edit.kind, edit.name, edit.project) for edit in inventory.edits()] == [(EditKind.PROVIDER, "h1", "")]
    inventory.close()
