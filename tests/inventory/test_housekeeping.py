"""What is removed: providers with nothing claimed, and what ended long ago. What is live stays."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from alembic import command
from sqlalchemy import func, select, text, update

from mulligan.activities.errors import Conflict, NeverFits, NotFound
from mulligan.activities.inventory import Inventory, RunRecord, SuspectKind, claiming
from mulligan.activities.inventory.database import Database
from mulligan.activities.inventory.migrate import configuration
from mulligan.activities.inventory.tables import (
    claim_items,
    claims,
    failures,
    inventories,
    machines,
    metadata,
    provider_capabilities,
    runs,
)
from mulligan.activities.values import MachineState, Outcome
from tests.inventory.parts import DEBIAN, add, add_server, asking, machine
from tests.inventory.test_failures import BAD, GOOD, blame, held

LONG_AGO = datetime.now(UTC) - timedelta(days=100)
OLD = (machines.c.created_at, claims.c.released_at, failures.c.at, runs.c.started_at, runs.c.ended_at)


def rows(url: str) -> dict[str, int]:
    """How many rows each table has."""
    database = Database(url)
    with database.read() as connection:
        counts = {
            table.name: connection.execute(select(func.count()).select_from(table)).scalar_one()
            for table in metadata.sorted_tables
        }
    database.close()
    return counts


def age(url: str) -> None:
    """Let everything that there is be of long ago."""
    database = Database(url)
    with database.write() as connection:
        for column in OLD:
            aged = update(column.table).where(column.is_not(None))
            connection.execute(aged.values({column.name: LONG_AGO}))
    database.close()


def kept_run(run_id: str, machine_id: str) -> RunRecord:
    """A run that has ended."""
    now = datetime.now(UTC)
    return RunRecord(
        f"provision:demo:{run_id}", run_id, "provision", "demo", run_id, machine_id, Outcome.READY, "", now, now, "[]"
    )


def test_a_provider_that_holds_nothing_is_forgotten(inventory: Inventory, url: str) -> None:
    """With its inventory, its capabilities and its failures; the tombstones of its claims stay, and may still be given
    back once more."""
    add(inventory, "h1")
    add_server(inventory, "h2")
    inventory.claim(asking("c1", provider="h1"))
    inventory.release_claim("c1")
    inventory.record_failure(blame("h1"))
    inventory.retire_provider("h1")
    inventory.remove_provider("h1")
    with pytest.raises(NotFound):
        inventory.provider("h1")
    inventory.release_claim("c1")
    (tombstone,) = inventory.claims(state="released")
    assert (tombstone.id, tombstone.provider, tombstone.resources.vcpu) == ("c1", "", 2)
    assert inventory.suspects() == []
    assert (inventory.audit(), inventory.remove_provider("h1")) == ([], None)
    left = {name: count for name, count in rows(url).items() if name in ("inventories", "provider_capabilities")}
    assert left == {inventories.name: 3, provider_capabilities.name: 1}
    assert add(inventory, "h1").generation == 1


def test_a_provider_that_is_held_is_not_forgotten(inventory: Inventory) -> None:
    """The machines are named, with the command that releases the first; nothing has changed."""
    before = add(inventory, "h1", vcpu=64, memory_mib=65536, disk_gib=1000)
    for number in range(12):
        inventory.claim(asking(f"c{number:02}", machine=f"web-{number:02}"))
    for refused in (inventory.retire_provider, inventory.remove_provider):
        with pytest.raises(
            Conflict, match=r"12 machine\(s\) hold something of it: web-00 \(project demo\).* and 2 more"
        ):
            refused("h1")
    assert inventory.provider("h1").enabled
    assert inventory.provider("h1").generation == before.generation
    for number in range(12):
        inventory.release_claim(f"c{number:02}")
    assert not inventory.retire_provider("h1").enabled
    assert inventory.retire_provider("h1").generation == before.generation + 1
    with pytest.raises(NotFound, match="h1"):
        inventory.retire_provider("h11")


def test_nobody_claims_of_a_provider_that_is_being_removed(inventory: Inventory) -> None:
    """It is no candidate from the moment at which its removal begins."""
    add(inventory, "h1")
    add(inventory, "h2")
    inventory.retire_provider("h1")
    assert inventory.claim(asking()).target.name == "h2"


def test_a_claim_that_loses_the_race_against_a_removal_looks_again(
    inventory: Inventory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The provider was there when it was looked for, and is gone when it is claimed; no other is there."""
    add(inventory, "h1")
    look = claiming.candidates

    def looked_too_early(*words: object) -> object:
        found = look(*words)  # type: ignore[arg-type]
        monkeypatch.setattr(claiming, "candidates", look)
        inventory.remove_provider("h1")
        return found

    monkeypatch.setattr(claiming, "candidates", looked_too_early)
    with pytest.raises(NeverFits, match="no provider is registered there"):
        inventory.claim(asking("late"))
    with pytest.raises(NotFound):
        inventory.claim_by_id("late")


def test_what_ended_long_ago_is_pruned(inventory: Inventory, url: str) -> None:
    """Failures, kept runs, tombstones with their items, and machines that are gone; and nothing that is younger."""
    add(inventory, "h1", vcpu=64)
    for number in range(5):
        inventory.begin_machine(machine(f"m{number}", f"web-{number}"))
        inventory.claim(asking(f"c{number}", machine_id=f"m{number}"))
        inventory.release_claim(f"c{number}")
        inventory.update_machine(f"m{number}", state=MachineState.FAILED)
        inventory.keep_run(kept_run(f"r{number}", f"m{number}"))
        inventory.record_failure(blame("h1"))
    assert inventory.prune(90) == 0
    age(url)
    inventory.record_failure(blame("h1", GOOD))
    before = rows(url)
    assert inventory.prune(101) == 0
    assert rows(url) == before
    assert inventory.prune(90, limit=2) == 6, "machines go after their tombstones"
    while inventory.prune(90, limit=2):
        pass
    left = rows(url)
    assert [left[table.name] for table in (claims, claim_items, runs, machines)] == [0, 0, 0, 0]
    assert held(inventory) == {"h1": 1, "good": 1}
    assert inventory.provider("h1").suspect_count == 1
    assert inventory.audit() == []


def test_what_is_live_is_never_pruned(inventory: Inventory, url: str) -> None:
    """However old: a machine in service, its claim, how it was made, and the tombstones of its first tries."""
    add(inventory, "h1")
    inventory.begin_machine(machine("m1"))
    inventory.claim(asking("m1.1", machine_id="m1"))
    inventory.release_claim("m1.1")
    inventory.claim(asking("m1.2", machine_id="m1"))
    inventory.make_permanent("m1.2")
    inventory.update_machine("m1", state=MachineState.READY, claim_id="m1.2")
    inventory.keep_run(kept_run("r1", "m1"))
    inventory.keep_run(replace(kept_run("r2", "gone"), outcome=Outcome.OPEN, ended_at=None))
    age(url)
    before = rows(url)
    assert inventory.prune(1) == 0
    assert rows(url) == before


def test_what_images_are_wanted(inventory: Inventory) -> None:
    """Those that are registered, and those of machines that live."""
    inventory.add_image(GOOD)
    inventory.begin_machine(machine("m1", "web-1", image=DEBIAN))
    inventory.begin_machine(machine("m2", "web-2", image=BAD))
    inventory.update_machine("m2", state=MachineState.FAILED)
    assert inventory.wanted_digests() == {GOOD.digest, DEBIAN.digest}


@pytest.mark.parametrize(("ready", "ends_as"), [(True, MachineState.RELEASED), (False, MachineState.FAILED)])
def test_a_machine_left_releasing_with_nothing_claimed_is_gone(
    inventory: Inventory, ready: bool, ends_as: MachineState
) -> None:
    """Released when its user had it; failed when nobody ever did."""
    at = datetime.now(UTC) if ready else None
    inventory.begin_machine(machine("m1", state=MachineState.RELEASING, ready_at=at, created_at=LONG_AGO))
    assert [each.id for each in inventory.unsettled(60)] == ["m1"]
    assert inventory.abandon_machine("m1").state is ends_as
    assert inventory.unsettled(60) == []


def test_the_schema_of_an_older_version_is_brought_forward_with_its_rows(empty_url: str) -> None:
    """Providers that were counted as suspects have no evidence there: they start in the clear."""
    database = Database(empty_url)
    with database.write() as connection:
        command.upgrade(configuration(connection), "0002")
        connection.execute(
            text(
                "INSERT INTO providers (name, partition, kind, url, credential, settings, facts, generation, enabled, "
                "dirty, suspect_count, suspect_reason, quarantined, claim_seq) VALUES ('h1', 'default', 'virtual', "
                "'simulated://h1', '', '{}', '{}', 1, TRUE, FALSE, 3, 'heat', '', 0)"
            )
        )
    database.close()
    inventory = Inventory.open(empty_url)
    assert (inventory.provider("h1").suspect_count, inventory.suspects(SuspectKind.PROVIDER)) == (0, [])
    inventory.close()
