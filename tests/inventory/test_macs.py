"""No two servers have the same network card, however they come by it, and however many are added at once."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import pytest

from mulligan.activities.errors import Conflict
from mulligan.activities.inventory import Inventory
from mulligan.activities.inventory.macs import macs_of
from mulligan.activities.values import Inspection, InventoryRow, Kind, Provider

MAC, OTHER = "0c:c4:7a:00:00:01", "0c:c4:7a:00:00:02"
AT_ONCE, CARDS = 8, 12


def put(
    inventory: Inventory,
    name: str,
    said: Mapping[str, str] | None = None,
    *,
    found: Mapping[str, str] | None = None,
    facts: Mapping[str, str] | None = None,
    partition: str = "default",
) -> Provider:
    """Register a server: what its operator says, what its inspection decided, and what its BMC told."""
    seen = Inspection(Kind.BARE_METAL, (InventoryRow("vcpu", 8),), (), found or {}, facts or {})
    return inventory.put_provider(name, partition, f"ipmi://{name}", "rack", seen, said or {})


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"said": {"macs": MAC}}, {"said": {"macs": f"{OTHER}, 0C-C4-7A-00-00-01"}}),
        ({"said": {"macs": f"{OTHER},0C:C4:7A:00:00:01"}}, {"found": {"macs": MAC}}),
        ({"found": {"macs": MAC}}, {"found": {"macs": MAC}}),
        ({"facts": {"nics": f"NIC.1 {MAC.upper()}, NIC.2 {OTHER}"}}, {"said": {"macs": MAC}}),
        ({"said": {"macs": MAC}}, {"facts": {"nics": f"NIC.1 {MAC}"}}),
        ({"said": {"agent_address": "10.0.0.5/24", "agent_mac": MAC}}, {"said": {"macs": MAC}}),
        ({"said": {"macs": MAC}}, {"said": {"macs": MAC}, "partition": "north"}),
    ],
    ids=["said-twice", "said-and-found", "found-twice", "told-and-said", "said-and-told", "agents", "other-partition"],
)
def test_a_server_with_anothers_network_card_is_not_registered(
    inventory: Inventory, first: dict[str, Mapping[str, str]], second: dict[str, Mapping[str, str]]
) -> None:
    """The refusal names the other one and the card, and nothing of the server is kept."""
    inventory.add_partition("north")
    put(inventory, "srv-1", **first)  # type: ignore[arg-type]
    with pytest.raises(Conflict, match="belongs to provider 'srv-1'") as refused:
        put(inventory, "srv-2", **second)  # type: ignore[arg-type]
    assert (refused.value.metadata["other"], refused.value.metadata["macs"]) == ("srv-1", MAC)
    assert [each.name for each in inventory.providers()] == ["srv-1"]


def test_its_own_network_cards_are_nobody_elses(inventory: Inventory) -> None:
    """Registering it again is no conflict, nor is one of which no card is known."""
    put(inventory, "srv-1", {"macs": MAC}, facts={"nics": f"1 {MAC}"})
    assert put(inventory, "srv-1", {"macs": f"{MAC},{OTHER}"}).generation == 2
    for name in ("srv-2", "srv-3"):
        put(inventory, name, {"macs": "00:00:00:00:00:00"})


def test_a_network_card_is_not_given_to_two_by_an_edit(inventory: Inventory) -> None:
    """What was set before stays; other edits of it go on."""
    put(inventory, "srv-1", {"macs": MAC})
    put(inventory, "srv-2", {"macs": OTHER})
    with pytest.raises(Conflict, match="belongs to provider 'srv-1'"):
        inventory.edit_provider("srv-2", generation=1, settings={"macs": MAC.upper()})
    assert inventory.provider("srv-2").settings == {"macs": OTHER}
    assert inventory.edit_provider("srv-2", generation=1, enabled=False).generation == 2
    inventory.edit_provider("srv-1", generation=1, settings={"macs": "0c:c4:7a:00:00:03"})
    assert inventory.edit_provider("srv-2", generation=2, settings={"macs": MAC}).settings == {"macs": MAC}


def test_a_removed_servers_network_card_is_free(inventory: Inventory) -> None:
    """A card that was moved to another server is registered with that one."""
    put(inventory, "srv-1", {"macs": MAC})
    inventory.remove_provider("srv-1")
    assert put(inventory, "srv-2", {"macs": MAC}).settings == {"macs": MAC}


def test_cards_that_makers_put_into_every_server_count_where_they_are_booted_by() -> None:
    """The BMC's own, whose address is locally administered; other long hexadecimal names are no MACs."""
    same = {"nics": "ToHost be:3a:f2:b6:05:9f, ib0 80:00:02:08:fe:80:00:00:00:00:00:00:0c:c4:7a:00:00:01"}
    assert macs_of({}, same) == frozenset()
    assert macs_of({"macs": "BE-3A-F2-B6-05-9F"}, same) == {"be:3a:f2:b6:05:9f"}


def test_the_bmcs_own_cards_are_in_nobodys_way(inventory: Inventory) -> None:
    """Also where an inspection put them among those that a server boots by."""
    own = "be:3a:f2:b6:05:9f"
    for number in (1, 2):
        put(inventory, f"srv-{number}", found={"macs": f"0c:c4:7a:00:00:0{number},{own}"})
    edited = inventory.edit_provider(
        "srv-2", generation=1, settings={"macs": f"0c:c4:7a:00:00:02,{own}", "transfer": "raw"}
    )
    assert edited.generation == 2


def test_of_servers_that_are_added_at_once_one_gets_the_network_card(url: str) -> None:
    """Each from an inventory of its own, as processes of the control side have them."""
    together = threading.Barrier(AT_ONCE)
    opened = [Inventory.open(url) for _ in range(AT_ONCE)]

    def add(adder: int) -> list[int]:
        """Which of the cards it got."""
        got = []
        for card in range(CARDS):
            together.wait(timeout=120)
            try:
                put(opened[adder], f"srv-{adder}-{card}", {"macs": f"0c:c4:7a:00:01:{card:02x}"})
            except Conflict:
                continue
            got.append(card)
        return got

    try:
        with ThreadPoolExecutor(AT_ONCE) as threads:
            got = [card for cards in threads.map(add, range(AT_ONCE)) for card in cards]
        assert sorted(got) == list(range(CARDS))
        assert len(opened[0].providers()) == CARDS
    finally:
        for inventory in opened:
            inventory.close()
