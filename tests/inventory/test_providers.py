"""Registering, reading and editing providers."""

from __future__ import annotations

import pytest

from mulligan.activities.errors import AlreadyExists, Conflict, InvalidRequest, NotFound
from mulligan.activities.inventory import Inventory
from mulligan.activities.values import Inspection, InventoryRow, Kind
from tests.inventory.parts import add, add_server, asking, inspection, used


def test_a_provider_is_read_back_as_it_was_registered(inventory: Inventory) -> None:
    """Also its settings, of which the inspection's own win, and its facts."""
    seen = Inspection(
        Kind.VIRTUAL, (InventoryRow("vcpu", 8, 1, 200),), ("b", "a"), {"accelerator": "tcg"}, {"model": "x"}
    )
    told = {"accelerator": "auto", "pool": "default"}
    put = inventory.put_provider("hv-1", "default", "qemu:///system", "ref:one", seen, told)
    assert put == inventory.provider("hv-1")
    assert put.target.settings == {"accelerator": "tcg", "pool": "default"}
    assert (put.credential, put.capabilities, put.facts) == ("ref:one", ("a", "b"), {"model": "x"})
    assert put.inventory == (InventoryRow("vcpu", 8, 1, 200, 0),)
    assert put.generation == 1


def test_registering_again_refreshes_and_never_touches_what_is_used(inventory: Inventory) -> None:
    """Nor what the operator decided; an unchanged one keeps its generation."""
    add(inventory, "hv-1")
    inventory.claim(asking("c1"))
    inventory.edit_provider("hv-1", generation=1, reserved={"vcpu": 1})
    assert add(inventory, "hv-1").generation == 2
    bigger = add(inventory, "hv-1", vcpu=16, capabilities=("arch.x86_64", "storage.nvme"))
    assert bigger.generation == 3
    assert bigger.inventory[0] == InventoryRow("vcpu", 16, 1, 100, 2)
    assert bigger.capabilities == ("arch.x86_64", "storage.nvme")
    assert add(inventory, "hv-1", vcpu=16).capabilities == ("arch.x86_64",)


def test_totals_never_go_below_what_is_used(inventory: Inventory) -> None:
    """The refusal gives the numbers, and changes nothing."""
    before = add(inventory, "hv-1")
    inventory.claim(asking("c1"))
    with pytest.raises(Conflict, match="capacity of 1, but 2 are claimed"):
        add(inventory, "hv-1", vcpu=1)
    with pytest.raises(Conflict, match="capacity of 0, but 10 are claimed"):
        kept = tuple(row for row in inspection().inventory if row.resource != "disk_gib")
        inventory.put_provider("hv-1", "default", before.url, "", Inspection(Kind.VIRTUAL, kept, ()), {})
    assert inventory.provider("hv-1").capabilities == before.capabilities
    inventory.release_claim("c1")
    assert add(inventory, "hv-1", vcpu=1).inventory[0].total == 1


def test_a_name_is_not_reused_for_something_else(inventory: Inventory) -> None:
    """Another address, partition or kind under the same name is refused by the fields that differ."""
    inventory.add_partition("north")
    add(inventory, "hv-1")
    with pytest.raises(AlreadyExists) as caught:
        inventory.put_provider("hv-1", "north", "qemu+ssh://other/system", "", inspection(Kind.BARE_METAL), {})
    assert caught.value.differing == ("partition", "url", "kind")


def test_an_edit_on_an_old_reading_is_refused(inventory: Inventory) -> None:
    """The error says the current generation; claims do not change it."""
    add(inventory, "hv-1")
    inventory.claim(asking())
    assert inventory.edit_provider("hv-1", generation=1, enabled=False).generation == 2
    with pytest.raises(Conflict, match="its generation is 2") as caught:
        inventory.edit_provider("hv-1", generation=1, enabled=True)
    assert caught.value.metadata["generation"] == "2"
    assert not inventory.provider("hv-1").enabled


def test_an_edit_changes_only_what_it_names(inventory: Inventory) -> None:
    """Everything else stays as it was."""
    add(inventory, "hv-1")
    inventory.quarantine_provider("hv-1", "smoke")
    inventory.mark_suspect("hv-1", "heat")
    edited = inventory.edit_provider(
        "hv-1", generation=1, overcommit_percent={"vcpu": 300}, settings={"network": "fast"}
    )
    assert (edited.enabled, edited.quarantined, edited.suspect_count) == (True, "smoke", 1)
    assert [row.capacity for row in edited.inventory] == [24, 16384, 100]
    assert edited.settings == {"network": "fast"}
    cleared = inventory.edit_provider("hv-1", generation=2, clear_quarantine=True, clear_suspect=True)
    assert (cleared.quarantined, cleared.suspect_count, cleared.facts) == ("", 0, {})
    assert cleared.settings == {"network": "fast"}


def test_where_a_provider_keeps_what_is_made_stays(inventory: Inventory) -> None:
    """Disks of machines, and images, are in its pool: from another one they would never be removed."""
    add(inventory, "hv-1")
    with pytest.raises(InvalidRequest, match=r"settings\.pool") as caught:
        inventory.edit_provider("hv-1", generation=1, settings={"pool": "fast"})
    assert "mulligan provider remove hv-1" in str(caught.value.violations)
    found = inspection()
    put = inventory.put_provider("hv-2", "default", "qemu:///system", "", found, {"pool": "fast"})
    with pytest.raises(AlreadyExists, match="pool is fast, asked was the default"):
        inventory.put_provider("hv-2", "default", "qemu:///system", "", found, {})
    assert inventory.provider("hv-2") == put


def test_an_edit_leaves_room_for_what_is_used(inventory: Inventory) -> None:
    """A reserve that would eat into claims is refused as a whole."""
    add(inventory, "hv-1")
    inventory.claim(asking())
    with pytest.raises(Conflict, match=r"vcpu.*capacity of 1, but 2 are claimed"):
        inventory.edit_provider("hv-1", generation=1, enabled=False, reserved={"memory_mib": 1, "vcpu": 7})
    untouched = inventory.provider("hv-1")
    assert (untouched.generation, untouched.enabled, untouched.inventory[1].reserved) == (1, True, 0)


@pytest.mark.parametrize(
    ("edit", "field"),
    [
        ({"reserved": {"gpu": 1}}, "reserved.gpu"),
        ({"reserved": {"vcpu": 9}}, "reserved.vcpu"),
        ({"reserved": {"vcpu": -1}}, "reserved.vcpu"),
        ({"overcommit_percent": {"vcpu": 0}}, "overcommit_percent.vcpu"),
        ({"overcommit_percent": {"vcpu": 200}}, "overcommit_percent.vcpu"),
    ],
)
def test_an_edit_that_makes_no_sense_names_its_field(
    inventory: Inventory, edit: dict[str, dict[str, int]], field: str
) -> None:
    """Unknown resources, reserves beyond the total, and overcommitted bare metal."""
    add_server(inventory, "server")
    with pytest.raises(InvalidRequest) as caught:
        inventory.edit_provider("server", generation=1, **edit)  # type: ignore[arg-type]
    assert [violation[0] for violation in caught.value.violations] == [field]


def test_an_inspection_that_makes_no_sense_is_refused(inventory: Inventory) -> None:
    """All its faults are named at once."""
    rows = (InventoryRow("gpu", 1), InventoryRow("vcpu", 1, 2), InventoryRow("disk_gib", 1, 0, 0))
    with pytest.raises(InvalidRequest) as caught:
        inventory.put_provider("odd", "default", "x:", "", Inspection(Kind.ANY, rows, ()), {})
    assert len(caught.value.violations) == 4
    assert inventory.providers() == []


def test_unknown_names_are_answered_with_the_nearest(inventory: Inventory) -> None:
    """For providers and partitions, wherever they are named."""
    add(inventory, "rack-1-node-1")
    for act in (
        lambda: inventory.provider("rack-1-nod-1"),
        lambda: inventory.edit_provider("rack-1-nod-1", generation=1),
        lambda: inventory.mark_suspect("rack-1-nod-1", ""),
        lambda: inventory.quarantine_provider("rack-1-nod-1", ""),
    ):
        with pytest.raises(NotFound) as caught:
            act()
        assert caught.value.nearest == ("rack-1-node-1",)
    with pytest.raises(NotFound) as caught:
        add(inventory, "hv-1", partition="defaul")
    assert caught.value.nearest == ("default",)
    with pytest.raises(NotFound):
        inventory.providers(partition="defaul")


def test_providers_are_paged_by_name(inventory: Inventory) -> None:
    """Every one comes once."""
    inventory.add_partition("north")
    inventory.add_partition("north")
    for number in range(5):
        add(inventory, f"hv-{number}", partition="north" if number == 2 else "default")
    assert inventory.partitions() == ["default", "north"]
    seen, after = [], ""
    while page := inventory.providers(after=after, limit=2):
        seen += [provider.name for provider in page]
        after = page[-1].name
    assert seen == [f"hv-{number}" for number in range(5)]
    assert [provider.name for provider in inventory.providers(partition="north")] == ["hv-2"]


def test_a_server_that_grew_while_it_was_held_is_given_back_whole(inventory: Inventory) -> None:
    """What was taken is what comes back; the next claim takes the new size."""
    add_server(inventory, "server", vcpu=4)
    inventory.claim(asking("c1"))
    add_server(inventory, "server", vcpu=8)
    inventory.release_claim("c1")
    assert used(inventory, "server")["vcpu"] == 0
    assert inventory.claim(asking("c2")).resources.vcpu == 8
    assert inventory.audit() == []
