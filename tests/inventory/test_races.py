"""Many processes at once: no double claim, no overcommit, no drift, and nothing half made by a process that dies."""

from __future__ import annotations

from collections import Counter
from itertools import chain

from mulligan.activities.inventory import ClaimState, Inventory
from mulligan.activities.values import Kind
from tests.inventory.parts import SMALL, add, add_server, asking, used
from tests.inventory.racers import churn, claim_all, context, fight, stop_at

PROCESSES = 4


def test_two_hundred_requests_for_a_hundred_servers_give_a_hundred_and_a_hundred(url: str) -> None:
    """Every server is claimed once, and everybody else gets an explanation that says so."""
    inventory = Inventory.open(url)
    for number in range(100):
        add_server(inventory, f"server-{number:03}")
    requests = [asking(f"c{number}", kind=Kind.BARE_METAL) for number in range(200)]
    with context().Pool(PROCESSES) as pool:
        shares = [(url, requests[process::PROCESSES]) for process in range(PROCESSES)]
        outcomes = list(chain(*pool.starmap(claim_all, shares, chunksize=1)))
    claimed = [name for what, name, _ in outcomes if what == "claimed"]
    refused = [message for what, message, _ in outcomes if what == "not-now"]
    assert (len(claimed), len(set(claimed)), len(refused)) == (100, 100, 100)
    assert all("100 of 100 providers could hold it, but none can now" in message for message in refused)
    assert inventory.audit() == []
    assert len(inventory.claims()) == 100
    inventory.close()


def test_slices_are_claimed_up_to_the_last_and_not_beyond(url: str) -> None:
    """Two hypervisors with room for 15 small machines each, and 60 who ask."""
    inventory = Inventory.open(url)
    for name in ("hv-1", "hv-2"):
        add(inventory, name, vcpu=31, memory_mib=65536, disk_gib=1000)
    requests = [asking(f"c{number}", kind=Kind.VIRTUAL) for number in range(60)]
    with context().Pool(PROCESSES) as pool:
        shares = [(url, requests[process::PROCESSES]) for process in range(PROCESSES)]
        outcomes = list(chain(*pool.starmap(claim_all, shares, chunksize=1)))
    assert Counter(what for what, _, _ in outcomes) == {"claimed": 30, "not-now": 30}
    fences = [(name, fence) for what, name, fence in outcomes if what == "claimed"]
    assert len(set(fences)) == 30
    assert used(inventory, "hv-1")["vcpu"] == used(inventory, "hv-2")["vcpu"] == 30
    assert inventory.audit() == []
    inventory.close()


def test_claims_and_releases_at_random_never_drift(url: str) -> None:
    """While they run every snapshot adds up, and at the end exactly the live claims are left."""
    inventory = Inventory.open(url)
    for number in range(3):
        add(inventory, f"hv-{number}", vcpu=6)
        add_server(inventory, f"server-{number}", vcpu=3)
    snapshots = 0
    with context().Pool(PROCESSES) as pool:
        running = pool.starmap_async(churn, [(url, seed, 60) for seed in range(PROCESSES)], chunksize=1)
        while not running.ready():
            running.wait(0.02)
            assert inventory.audit() == []
            for provider in inventory.providers():
                assert all(0 <= row.used <= row.capacity for row in provider.inventory)
            snapshots += 1
        live = set(chain(*running.get()))
    assert snapshots > 3
    rows = inventory.claims()
    assert {row.id for row in rows} == live
    whole = [row.provider for row in rows if row.provider.startswith("server")]
    assert len(whole) == len(set(whole))
    for row in rows:
        inventory.release_claim(row.id)
    assert all(amount.used == 0 for provider in inventory.providers() for amount in provider.inventory)
    assert inventory.audit() == []
    inventory.close()


def test_the_same_claim_made_by_many_is_made_once(url: str) -> None:
    """All get the same provider and the same fence."""
    inventory = Inventory.open(url)
    for name in ("hv-1", "hv-2"):
        add(inventory, name)
    with context().Pool(PROCESSES) as pool:
        shares = [(url, [asking("the-one")] * 5)] * PROCESSES
        outcomes = set(chain(*pool.starmap(claim_all, shares, chunksize=1)))
    assert len(outcomes) == 1
    assert used(inventory, "hv-1")["vcpu"] + used(inventory, "hv-2")["vcpu"] == SMALL.vcpu
    assert inventory.audit() == []
    inventory.close()


def test_a_release_wins_whoever_comes_first(url: str) -> None:
    """Claim and release of the same id at once: whatever the order, nothing is held afterwards."""
    inventory = Inventory.open(url)
    add(inventory, "hv-1")
    ids = [f"c{number}" for number in range(12)]
    acts = [(url, claim_id, act) for claim_id in ids for act in ("claim", "release", "claim", "release")]
    with context().Pool(PROCESSES) as pool:
        said = pool.starmap(fight, acts, chunksize=1)
    assert set(said) <= {"claim", "claimed", "release", "released"}
    assert inventory.claims() == []
    assert {row.id for row in inventory.claims(state=ClaimState.RELEASED)} == set(ids)
    assert used(inventory, "hv-1")["vcpu"] == 0
    assert inventory.audit() == []
    inventory.close()


def test_a_process_killed_at_any_statement_leaves_all_or_nothing(url: str) -> None:
    """`kill -9` after each statement of a claim and of a release: it never happened, and can be done again at once."""
    inventory = Inventory.open(url)
    add(inventory, "hv-1")
    for act in ("claim", "release"):
        statement = 1
        while _killed_at(inventory, url, act, statement):
            statement += 1
        assert statement > 5
    assert inventory.audit() == []
    inventory.close()


def _killed_at(inventory: Inventory, url: str, act: str, statement: int) -> bool:
    claim_id = f"{act}-{statement}"
    if act == "release":
        inventory.claim(asking(claim_id))
    ours, theirs = context().Pipe()
    process = context().Process(target=stop_at, args=(theirs, url, claim_id, act, statement))
    process.start()
    theirs.close()
    stopped = ours.poll(60) and ours.recv() == "stopped"
    process.kill()
    process.join(timeout=30)
    there = {row.id for row in inventory.claims()}
    assert (claim_id in there) == (stopped == (act == "release"))
    assert used(inventory, "hv-1")["vcpu"] == len(there) * SMALL.vcpu
    assert inventory.audit() == []
    inventory.claim(asking(claim_id)) if claim_id in there or stopped else None
    inventory.release_claim(claim_id)
    assert used(inventory, "hv-1")["vcpu"] == 0
    return bool(stopped)
