"""The copy of each provider's room, in the order of which a search walks: it follows the inventory rows always."""

from __future__ import annotations

from itertools import pairwise

from alembic import command
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import insert, select, text, update

from mulligan.activities.inventory import DriftKind, Inventory
from mulligan.activities.inventory.claims import ClaimRequest
from mulligan.activities.inventory.database import Database
from mulligan.activities.inventory.migrate import configuration, migrate
from mulligan.activities.inventory.room import note
from mulligan.activities.inventory.search import conditions, parameters, shape
from mulligan.activities.inventory.tables import providers
from mulligan.activities.values import Inspection, Kind, Placement, Resources
from tests.inventory.parts import add, add_server, asking

_ROOM = [column for column in providers.c if column.name.startswith(("capacity_", "free_", "fill_rank"))]


def _room(url: str) -> dict[str, tuple[int, ...]]:
    database = Database(url)
    with database.read() as connection:
        rows = {row.name: tuple(row)[1:] for row in connection.execute(select(providers.c.name, *_ROOM))}
    database.close()
    return rows


def _noted_anew(url: str) -> dict[str, tuple[int, ...]]:
    database = Database(url)
    with database.write() as connection:
        for name in connection.execute(select(providers.c.name)).scalars().all():
            note(connection, name)
    database.close()
    return _room(url)


def test_claims_releases_and_edits_keep_the_copy(url: str, inventory: Inventory) -> None:
    """After each of them it is what the inventory rows give, ranks included."""
    add(inventory, "hv-1", vcpu=7)
    add_server(inventory, "server", disk_gib=0)
    inventory.put_provider("bare", "default", "simulated://bare", "", Inspection(Kind.VIRTUAL, (), ()), {})
    copies = [_room(url)]
    for act in (
        lambda: inventory.claim(asking("c1", kind=Kind.VIRTUAL, resources=Resources(3, 100, 0))),
        lambda: inventory.claim(asking("c2", kind=Kind.BARE_METAL, resources=Resources(1, 1, 0))),
        lambda: inventory.edit_provider("hv-1", generation=1, overcommit_percent={"vcpu": 250}, reserved={"vcpu": 1}),
        lambda: add(inventory, "hv-1", vcpu=9),
        lambda: inventory.release_claim("c1"),
        lambda: inventory.release_claim("c2", dirty=True),
    ):
        act()
        copies.append(_room(url))
        assert _noted_anew(url) == copies[-1]
        assert inventory.audit() == []
    assert all(before != after for before, after in pairwise(copies))


def test_a_copy_that_drifted_is_found_and_mended_on_command(url: str, inventory: Inventory) -> None:
    """Though the counters themselves add up."""
    add(inventory, "hv-1", vcpu=8)
    inventory.claim(asking("c1"))
    good, database = _room(url), Database(url)
    with database.write() as connection:
        connection.execute(update(providers).values(free_vcpu=8))
    database.close()
    drifts = inventory.audit()
    assert [(d.kind, d.provider, d.resource, d.used, d.claimed) for d in drifts] == [
        (DriftKind.COUNTER, "hv-1", "vcpu", 0, 2)
    ]
    assert inventory.repair(drifts) == drifts
    assert inventory.audit() == []
    assert _room(url) == good


def test_a_search_that_believes_too_much_claims_nothing_more(url: str, inventory: Inventory) -> None:
    """The counters have the last word, whatever the copy says."""
    add(inventory, "full", vcpu=2)
    add(inventory, "hv-1", vcpu=8)
    inventory.claim(asking("c1", provider="full"))
    database = Database(url)
    with database.write() as connection:
        connection.execute(update(providers).where(providers.c.name == "full").values(free_vcpu=2, fill_rank=0))
    database.close()
    assert inventory.claim(asking("c2")).target.name == "hv-1"


def test_those_too_full_and_those_that_lack_something_are_passed_over(inventory: Inventory) -> None:
    """However many of them come first by policy."""
    for number in range(40):
        add(inventory, f"full-{number}", vcpu=2)
        inventory.claim(asking(f"c{number}", provider=f"full-{number}"))
        add(inventory, f"plain-{number}", vcpu=6, capabilities=())
    add(inventory, "roomy", vcpu=64)
    for placement in Placement:
        claim = inventory.claim(asking(placement=placement, requires=("arch.x86_64",)))
        assert claim.target.name == "roomy"


def test_an_older_database_gets_its_room(empty_url: str) -> None:
    """The migration copies what the inventory rows say, and ranks as the program does."""
    database = Database(empty_url)
    with database.write() as connection:
        command.upgrade(configuration(connection), "0003")
        for name, kind, used in (("hv", Kind.VIRTUAL, 3), ("server", Kind.BARE_METAL, 0)):
            old = {"name": name, "partition": "default", "kind": kind, "url": "", "credential": "", "settings": {}}
            old |= {"facts": {}, "generation": 1, "enabled": True, "dirty": False, "suspect_count": 0}
            old |= {"suspect_reason": "", "quarantined": "", "claim_seq": 0}
            connection.execute(insert(providers).values(old))
            row = {"provider": name, "resource": "vcpu", "total": 9, "reserved": 1, "percent": 150, "used": used}
            connection.execute(text(_OLD_ROW), row)
    migrate(database)
    database.close()
    room = _room(empty_url)
    assert (room["hv"][0], room["hv"][3], room["hv"][6]) == (12, 9, 750)
    assert _noted_anew(empty_url) == room


_OLD_ROW = "INSERT INTO inventories VALUES (:provider, :resource, :total, :reserved, :percent, :used)"


_REQUESTS = st.builds(
    asking,
    resources=st.builds(Resources, st.integers(0, 3), st.integers(0, 3), st.integers(0, 3)),
    kind=st.sampled_from(Kind),
    placement=st.sampled_from(Placement),
    requires=st.lists(st.sampled_from("xyz"), max_size=2).map(tuple),
    forbids=st.lists(st.sampled_from("xyz"), max_size=2).map(tuple),
    provider=st.sampled_from(("", "a")),
    avoid=st.lists(st.sampled_from("abc"), max_size=2).map(tuple),
)


@given(request=_REQUESTS)
def test_requests_of_one_shape_have_the_same_conditions(request: ClaimRequest) -> None:
    """So that the statement made for one serves all, and each parameter of it is given."""
    ours, alike = conditions(request), conditions(shape(request))
    assert [str(each.holds) for each in ours] == [str(each.holds) for each in alike]
    assert [each.lasting for each in ours] == [each.lasting for each in alike]
    named = {name for each in ours for name in each.holds.compile().params if name.startswith("asked_")}
    assert named <= parameters(request).keys()
    assert shape(shape(request)) == shape(request)
