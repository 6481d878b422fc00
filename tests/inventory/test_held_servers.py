"""A server that is added again while it is held: never as another one, whatever its BMC's address leads to."""

from __future__ import annotations

import pytest

from mulligan.activities.errors import Conflict
from mulligan.activities.inventory import Inventory
from mulligan.activities.values import Inspection, InventoryRow, Kind, Provider
from tests.inventory.parts import asking

URL = "redfish://bmc-7/redfish/v1/Systems/1"
UUID, OTHER = "4c4c4544-0001-4a10-8050-b2c04f000001", "4c4c4544-0002-4a10-8050-b2c04f000002"
SWAPPED = "44454c4c-0100-104a-8050-b2c04f000001"


def put(inventory: Inventory, serial: str = "", uuid: str = "", url: str = URL, **facts: str) -> Provider:
    """Register the server, with what its BMC tells of it."""
    rows = tuple(InventoryRow(*each) for each in (("vcpu", 8), ("memory_mib", 16384), ("disk_gib", 100)))
    told = {name: value for name, value in {"serial": serial, "uuid": uuid, **facts}.items() if value}
    settings = {"serial": serial} if serial else {}
    seen = Inspection(Kind.BARE_METAL, rows, ("arch.x86_64", "boot.disk"), settings, told)
    return inventory.put_provider("srv-7", "default", url, "rack", seen, {})


@pytest.mark.parametrize(
    ("was", "now", "both"),
    [
        (("ABC1234", UUID), ("XYZ9876", OTHER), (UUID, OTHER)),
        (("ABC1234", UUID), ("ABC1234", OTHER), (UUID, OTHER)),
        (("ABC1234", ""), ("XYZ9876", OTHER), ("ABC1234", "XYZ9876")),
        (("ABC1234", UUID), ("XYZ9876", "00000000-0000-0000-0000-000000000000"), ("ABC1234", "XYZ9876")),
    ],
    ids=["both", "uuid", "serial", "serial-and-no-uuid"],
)
def test_a_server_that_is_held_does_not_become_another(
    inventory: Inventory, was: tuple[str, str], now: tuple[str, str], both: tuple[str, str]
) -> None:
    """The refusal names both, who holds it and what to do, and changes nothing. Once it is free it may be replaced."""
    known = put(inventory, *was)
    inventory.claim(asking("c1"))
    with pytest.raises(Conflict, match=r"another server now.*web-1 \(project demo\).*address leads") as refused:
        put(inventory, *now)
    assert all(each in refused.value.message for each in both)
    assert "`mulligan machine release web-1 --project demo`" in refused.value.message
    assert (inventory.provider("srv-7").facts, inventory.provider("srv-7").settings) == (known.facts, known.settings)
    inventory.release_claim("c1")
    assert put(inventory, *now).facts["serial"] == now[0]


@pytest.mark.parametrize(
    ("was", "now"),
    [
        (("ABC1234", UUID), ("abc-1234", UUID.upper())),
        (("ABC1234", UUID), ("ABC1234", SWAPPED)),
        (("ABC1234", UUID), ("XYZ9876", UUID)),
        (("", ""), ("ABC1234", UUID)),
        (("Default string", ""), ("ABC1234", UUID)),
    ],
    ids=["spelling", "swapped", "uuid-decides", "nothing-known", "made-up"],
)
def test_a_server_that_is_held_is_looked_at_again(
    inventory: Inventory, was: tuple[str, str], now: tuple[str, str]
) -> None:
    """What is told now is kept where it is not known to be another server's."""
    put(inventory, *was)
    inventory.claim(asking())
    again = put(inventory, *now, model="R-2")
    assert (again.facts["serial"], again.facts["uuid"], again.facts["model"]) == (*now, "R-2")


@pytest.mark.parametrize("now", [("", ""), ("Not Specified", "ffffffff-ffff-ffff-ffff-ffffffffffff")])
def test_a_server_that_is_held_keeps_what_it_is_known_by(inventory: Inventory, now: tuple[str, str]) -> None:
    """A BMC that restarts may not tell it: then the next look would take any server for this one."""
    known = put(inventory, "ABC1234", UUID)
    inventory.claim(asking())
    again = put(inventory, *now)
    assert (again.target.identity, again.settings["serial"]) == (known.target.identity, "ABC1234")
    with pytest.raises(Conflict, match="another server now"):
        put(inventory, "XYZ9876", OTHER)


def test_of_ipmi_the_guid_counts_where_there_is_no_serial_number(inventory: Inventory) -> None:
    """A BMC's new firmware may tell another one; and one that is not told any more is kept."""
    put(inventory, "", UUID, "ipmi://bmc-7")
    inventory.claim(asking())
    for now in (SWAPPED, ""):
        assert put(inventory, "", now, "ipmi://bmc-7").target.identity.guid in {UUID, SWAPPED}
    with pytest.raises(Conflict, match=f"its BMC's GUID is {OTHER}, and was "):
        put(inventory, "", OTHER, "ipmi://bmc-7")


def test_of_ipmi_the_serial_number_decides(inventory: Inventory) -> None:
    """Where both are known."""
    put(inventory, "ABC1234", UUID, "ipmi://bmc-7")
    inventory.claim(asking())
    put(inventory, "ABC1234", OTHER, "ipmi://bmc-7")
    with pytest.raises(Conflict, match="its serial number is XYZ9876, and was ABC1234"):
        put(inventory, "XYZ9876", OTHER, "ipmi://bmc-7")


@pytest.mark.parametrize("serial", ["XYZ9876", "", "Default string"])
def test_no_other_server_is_chosen_by_hand_while_one_is_held(inventory: Inventory, serial: str) -> None:
    """The setting says which of the systems behind a BMC is meant; once it is free it may be another."""
    known = put(inventory, "ABC1234", UUID)
    inventory.claim(asking("c1"))
    chosen = {"settings": {"serial": serial, "macs": "52:54:00:00:00:07"}}
    with pytest.raises(Conflict, match=r"may choose another server; while web-1 \(project demo\) holds it"):
        inventory.edit_provider("srv-7", generation=known.generation, **chosen)
    assert inventory.provider("srv-7").settings == known.settings
    inventory.release_claim("c1")
    now = inventory.provider("srv-7").generation
    assert inventory.edit_provider("srv-7", generation=now, **chosen).settings["serial"] == serial


def test_a_held_servers_own_number_may_be_spelled_otherwise(inventory: Inventory) -> None:
    """And other settings change as they like."""
    known = put(inventory, "ABC1234", UUID)
    inventory.claim(asking())
    wanted = {"serial": "abc-1234", "transfer": "zstd"}
    edited = inventory.edit_provider("srv-7", generation=known.generation, settings=wanted)
    assert edited.settings == wanted
