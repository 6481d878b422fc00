"""Claiming, giving back, leases, tombstones and quarantine, one caller at a time."""

from __future__ import annotations

import threading
import time
from dataclasses import replace

import pytest

from mulligan.activities.errors import Conflict, InvalidRequest, NeverFits, NotFound, NotNow, StaleFence
from mulligan.activities.inventory import ClaimState, Explanation, Inventory, SuspectKind
from mulligan.activities.values import Kind, MachineState, Placement, Resources
from tests.inventory.parts import SMALL, add, add_server, asking, inspection, machine, used


def test_a_claim_takes_what_was_asked_from_one_provider(inventory: Inventory) -> None:
    """The counters grow by what was asked, and the claim says where it is."""
    add(inventory, "hv-1")
    claim = inventory.claim(asking("c1"))
    assert (claim.target.name, claim.kind, claim.resources, claim.fence) == ("hv-1", Kind.VIRTUAL, SMALL, 1)
    assert claim.capabilities == ("arch.x86_64",)
    assert used(inventory, "hv-1") == {"vcpu": 2, "memory_mib": 2048, "disk_gib": 10}
    assert [(row.id, row.state, row.provider) for row in inventory.claims()] == [("c1", ClaimState.HELD, "hv-1")]


def test_asking_again_gives_the_same_claim(inventory: Inventory) -> None:
    """A repeated claim takes nothing more and keeps its fence, also when nothing more would fit."""
    add(inventory, "hv-1", vcpu=2)
    first = inventory.claim(asking("c1"))
    assert inventory.claim(asking("c1")) == first
    assert used(inventory, "hv-1")["vcpu"] == 2


def test_the_same_id_for_another_request_is_a_conflict(inventory: Inventory) -> None:
    """The error names both fingerprints."""
    add(inventory, "hv-1")
    inventory.claim(asking("c1", fingerprint="sha256:one"))
    with pytest.raises(Conflict, match=r"sha256:one.*sha256:other"):
        inventory.claim(asking("c1", fingerprint="sha256:other"))


def test_fences_grow_with_every_claim_on_a_provider(inventory: Inventory) -> None:
    """Also over a release, so that what acts for the old claim can be told to stop."""
    add(inventory, "hv-1")
    fences = []
    for number in range(3):
        fences.append(inventory.claim(asking(f"c{number}")).fence)
        inventory.release_claim(f"c{number}")
    assert fences == [1, 2, 3]


def test_claims_are_counted_on_from_the_newest_that_acted_on_the_provider(inventory: Inventory) -> None:
    """Its driver would refuse an older one; what was counted here already is not counted again."""
    for fence, expected in ((0, 1), (7, 8), (3, 9)):
        seen = replace(inspection(), fence=fence)
        inventory.put_provider("hv-1", "default", "simulated://hv-1", "", seen, {})
        claim = inventory.claim(asking())
        assert claim.fence == expected
        inventory.release_claim(claim.id)


def test_a_release_gives_back_exactly_once(inventory: Inventory) -> None:
    """A repeated release changes nothing, not even what others hold by then."""
    add(inventory, "hv-1")
    inventory.claim(asking("c1"))
    inventory.claim(asking("c2"))
    for _ in range(3):
        inventory.release_claim("c1")
    assert used(inventory, "hv-1") == {"vcpu": 2, "memory_mib": 2048, "disk_gib": 10}
    assert [row.id for row in inventory.claims()] == ["c2"]
    assert inventory.audit() == []


def test_a_claim_tells_its_machine_where_it_is(inventory: Inventory) -> None:
    """In the same moment, so that it is known whatever becomes of the run; later words keep it."""
    add(inventory, "hv-1")
    inventory.begin_machine(machine("m1", claim_id="c1"))
    inventory.claim(asking("c1", machine_id="m1"))
    assert inventory.machine_by_id("m1").provider == "hv-1"
    inventory.release_claim("c1")
    add(inventory, "hv-2")
    inventory.claim(asking("c2", machine_id="m1", avoid=("hv-1",)))
    quarantined = inventory.update_machine("m1", state=MachineState.QUARANTINED, reason="stuck")
    assert (quarantined.provider, quarantined.claim_id) == ("hv-2", "c2")


def test_the_claim_that_holds_something_for_a_machine_is_found(inventory: Inventory) -> None:
    """The newest one, and none that was given back."""
    add(inventory, "hv-1")
    for claim_id in ("m1.1", "m1.2"):
        inventory.claim(asking(claim_id, machine_id="m1"))
    inventory.claim(asking("m2.1", machine_id="m2"))
    for claim_id in ("m1.2", "m1.1"):
        found = inventory.live_claim_of("m1")
        assert found is not None
        assert found.id == claim_id
        inventory.release_claim(claim_id)
    assert inventory.live_claim_of("m1") is None


def test_a_machine_that_was_given_up_gets_no_claim(inventory: Inventory) -> None:
    """A claim that arrives late takes nothing, under whichever id its run asks."""
    add(inventory, "hv-1")
    inventory.begin_machine(machine("m1"))
    assert inventory.abandon_machine("m1").state is MachineState.FAILED
    for claim_id in ("m1.1", "m1.2"):
        with pytest.raises(StaleFence, match="came late"):
            inventory.claim(asking(claim_id, machine_id="m1"))
    assert inventory.claims() == []
    assert used(inventory, "hv-1")["vcpu"] == 0


def test_a_machine_is_claimed_for_or_given_up_but_never_both(inventory: Inventory) -> None:
    """However the two race."""
    add(inventory, "hv-1", vcpu=100, memory_mib=100_000, disk_gib=1000)
    for number in range(8):
        machine_id = f"m{number}"
        inventory.begin_machine(machine(machine_id, f"web-{number}"))
        refused: list[StaleFence] = []

        def claim(machine_id: str = machine_id, refused: list[StaleFence] = refused) -> None:
            try:
                inventory.claim(asking(f"{machine_id}.1", machine_id=machine_id))
            except StaleFence as error:
                refused.append(error)

        claiming = threading.Thread(target=claim)
        claiming.start()
        given_up = inventory.abandon_machine(machine_id).state is MachineState.FAILED
        claiming.join()
        assert bool(refused) is given_up
        assert (inventory.live_claim_of(machine_id) is None) is given_up
    assert inventory.audit() == []


def test_a_claim_that_comes_after_its_release_is_refused(inventory: Inventory) -> None:
    """Whether it was ever made or not: the tombstone stays."""
    add(inventory, "hv-1")
    inventory.claim(asking("made"))
    for claim_id in ("made", "never-made"):
        inventory.release_claim(claim_id)
        with pytest.raises(StaleFence, match="released"):
            inventory.claim(asking(claim_id))
    assert used(inventory, "hv-1")["vcpu"] == 0
    assert {row.id for row in inventory.claims(state="released")} == {"made", "never-made"}


def test_a_server_is_given_whole_and_the_tightest_fit_first(inventory: Inventory) -> None:
    """The claim holds all that the server has, and the request only says the least that it must have."""
    add_server(inventory, "large", vcpu=64)
    add_server(inventory, "small", vcpu=4)
    add_server(inventory, "tiny", vcpu=1)
    claim = inventory.claim(asking("c1", kind=Kind.BARE_METAL))
    assert (claim.target.name, claim.resources) == ("small", Resources(4, 16384, 100))
    assert inventory.claim(asking("c2", kind=Kind.BARE_METAL)).target.name == "large"
    with pytest.raises(NotNow):
        inventory.claim(asking("c3", kind=Kind.BARE_METAL))
    assert inventory.claim_by_id("c1").resources == Resources(4, 16384, 100)


def test_either_kind_prefers_a_slice_and_falls_back_to_a_server(inventory: Inventory) -> None:
    """A request that does not mind gets a whole server only when no hypervisor has room."""
    add_server(inventory, "a-server")
    add(inventory, "hv-1", vcpu=2)
    got = [inventory.claim(asking()).target.name for _ in range(2)]
    assert got == ["hv-1", "a-server"]


def test_packing_fills_one_hypervisor_before_the_next(inventory: Inventory) -> None:
    """Claims go where the least is left."""
    for name in ("hv-1", "hv-2", "hv-3"):
        add(inventory, name)
    got = {inventory.claim(asking(placement=Placement.PACK)).target.name for _ in range(4)}
    assert len(got) == 1


def test_spreading_evens_the_load_out(inventory: Inventory) -> None:
    """Claims go where the most is left."""
    for name in ("hv-1", "hv-2", "hv-3"):
        add(inventory, name)
    got = {inventory.claim(asking(placement=Placement.SPREAD)).target.name for _ in range(3)}
    assert got == {"hv-1", "hv-2", "hv-3"}


def test_suspects_are_claimed_last(inventory: Inventory) -> None:
    """A provider on which a run failed is used only when no other has room, until it is cleared."""
    add(inventory, "hv-1", vcpu=4)
    add(inventory, "hv-2", vcpu=4)
    assert inventory.mark_suspect("hv-1", "no console").facts["suspect"] == "no console"
    got = [inventory.claim(asking(f"c{n}")).target.name for n in range(3)]
    assert got == ["hv-2", "hv-2", "hv-1"]
    inventory.clear_failures(SuspectKind.PROVIDER, "hv-1")
    assert inventory.provider("hv-1").suspect_count == 0


def test_only_the_named_and_never_an_avoided_provider_is_claimed(inventory: Inventory) -> None:
    """The name wins over policy; what this run tried before is no candidate, and waiting does not change that."""
    for name in ("hv-1", "hv-2"):
        add(inventory, name)
    assert inventory.claim(asking(provider="hv-2")).target.name == "hv-2"
    assert inventory.claim(asking(avoid=("hv-2",))).target.name == "hv-1"
    with pytest.raises(NeverFits, match="not-tried"):
        inventory.claim(asking(avoid=("hv-1", "hv-2")))


def test_capabilities_are_required_and_forbidden(inventory: Inventory) -> None:
    """Every required one must be there, and no forbidden one."""
    add(inventory, "plain")
    add(inventory, "fast", capabilities=("arch.x86_64", "storage.nvme"))
    assert inventory.claim(asking(requires=("storage.nvme", "arch.x86_64"))).target.name == "fast"
    assert inventory.claim(asking(forbids=("storage.nvme",))).target.name == "plain"
    assert inventory.known_capabilities() == ["arch.x86_64", "storage.nvme"]


def test_either_of_two_capabilities_will_do(inventory: Inventory) -> None:
    """Whoever has one of them is a candidate, and whoever has neither is told of both."""
    add(inventory, "mute")
    with pytest.raises(NeverFits, match=r"lacks console\.serial or deploy\.agent"):
        inventory.claim(asking(requires=("console.serial|deploy.agent",)))
    add(inventory, "written", capabilities=("deploy.agent",))
    assert inventory.claim(asking(requires=("console.serial|deploy.agent",))).target.name == "written"
    assert inventory.claim(asking("c2", requires=("deploy.agent|console.serial",))).target.name == "written"


def test_what_is_out_of_service_is_not_claimed(inventory: Inventory) -> None:
    """Disabled, quarantined and dirty providers hold nothing new, and each says so by its own name."""
    for name in ("off", "ill", "used"):
        add_server(inventory, name)
    inventory.edit_provider("off", generation=1, enabled=False)
    inventory.quarantine_provider("ill", "the BMC is dead")
    inventory.claim(asking("c1", provider="used"))
    inventory.release_claim("c1", dirty=True)
    with pytest.raises(NotNow) as caught:
        inventory.claim(asking())
    assert isinstance(caught.value.explanation, Explanation)
    removed = {stage.name: stage.removed for stage in caught.value.explanation.funnel if stage.removed}
    assert removed == {"enabled": 1, "not-quarantined": 1, "clean": 1}
    inventory.edit_provider("used", generation=1, clear_dirty=True)
    assert inventory.claim(asking()).target.name == "used"


def test_a_dirty_release_again_does_not_soil_a_cleaned_server(inventory: Inventory) -> None:
    """The second release of the same claim is late, and must not touch what is somebody else's by then."""
    add_server(inventory, "server")
    inventory.claim(asking("c1"))
    inventory.release_claim("c1", dirty=True)
    inventory.edit_provider("server", generation=1, clear_dirty=True)
    inventory.release_claim("c1", dirty=True)
    assert not inventory.provider("server").dirty


def test_overcommit_and_reserve_decide_the_capacity(inventory: Inventory) -> None:
    """Capacity is (total - reserved) * percent / 100, rounded down."""
    provider = add(inventory, "hv-1", vcpu=3)
    inventory.edit_provider(
        "hv-1", generation=provider.generation, reserved={"vcpu": 1}, overcommit_percent={"vcpu": 250}
    )
    for number in range(2):
        inventory.claim(asking(f"c{number}"))
    with pytest.raises(NotNow, match=r"has 1 of its 5 vcpu free \(asked: 2\)"):
        inventory.claim(asking())


def test_a_claim_for_nothing_or_nowhere_is_refused(inventory: Inventory) -> None:
    """Bad input is told apart from a lack of room, with the nearest names."""
    add(inventory, "hv-1")
    with pytest.raises(InvalidRequest):
        inventory.claim(asking(resources=Resources(0, 0, 0)))
    with pytest.raises(InvalidRequest):
        inventory.claim(asking(lease_seconds=0))
    with pytest.raises(NotFound) as caught:
        inventory.claim(asking(partition="defualt"))
    assert caught.value.nearest == ("default",)
    with pytest.raises(NotFound) as caught:
        inventory.claim(asking(provider="hv1"))
    assert caught.value.nearest == ("hv-1",)


def test_an_expired_lease_is_shown_and_frees_nothing(inventory: Inventory) -> None:
    """Time alone never frees hardware; the claim can still be extended until somebody releases it."""
    add(inventory, "hv-1")
    inventory.claim(asking("short", lease_seconds=1))
    inventory.claim(asking("long", lease_seconds=600))
    pause, deadline = threading.Event(), time.monotonic() + 10
    while not inventory.expired() and time.monotonic() < deadline:
        pause.wait(0.05)
    assert [row.id for row in inventory.expired(limit=10)] == ["short"]
    assert used(inventory, "hv-1")["vcpu"] == 4
    inventory.extend_lease("short", 600)
    assert inventory.expired() == []


def test_extending_never_shortens_a_lease(inventory: Inventory) -> None:
    """The later end counts."""
    add(inventory, "hv-1")
    inventory.claim(asking("c1", lease_seconds=600))
    ends = inventory.claim_by_id("c1").lease_expires_at
    assert inventory.extend_lease("c1", 1).lease_expires_at == ends
    later = inventory.extend_lease("c1", 1200).lease_expires_at
    assert ends is not None and later is not None and later > ends


def test_a_permanent_claim_has_no_lease(inventory: Inventory) -> None:
    """Made permanent once or twice, extended or not, it is somebody's until it is released."""
    add(inventory, "hv-1")
    inventory.claim(asking("c1"))
    for row in (inventory.make_permanent("c1"), inventory.make_permanent("c1"), inventory.extend_lease("c1", 5)):
        assert (row.state, row.lease_expires_at) == (ClaimState.PERMANENT, None)
    inventory.release_claim("c1")
    assert used(inventory, "hv-1")["vcpu"] == 0


def test_a_quarantined_claim_holds_until_it_is_released(inventory: Inventory) -> None:
    """It keeps its resources, shows why and how to mend it, and can neither be claimed again nor made permanent."""
    add(inventory, "hv-1", vcpu=2)
    inventory.claim(asking("c1"))
    row = inventory.quarantine_claim("c1", "the power stayed on", "mulligan machine release demo web-1")
    assert (row.state, row.reason, row.mend) == (
        ClaimState.QUARANTINED,
        "the power stayed on",
        "mulligan machine release demo web-1",
    )
    for late in (lambda: inventory.claim(asking("c1")), lambda: inventory.make_permanent("c1")):
        with pytest.raises(Conflict, match="the power stayed on"):
            late()
    with pytest.raises(NotNow):
        inventory.claim(asking("c2"))
    inventory.release_claim("c1")
    assert inventory.claim(asking("c2")).target.name == "hv-1"


def test_a_machine_is_quarantined_together_with_its_claim(inventory: Inventory) -> None:
    """A run that ends between the two would leave a machine that nobody takes down; one that is gone stays so."""
    add(inventory, "hv-1")
    for claim_id, state in (("c1", MachineState.PROVISIONING), ("c2", MachineState.FAILED)):
        inventory.begin_machine(machine(f"machine-of-{claim_id}", name=claim_id))
        inventory.claim(asking(claim_id, machine=claim_id))
        inventory.update_machine(f"machine-of-{claim_id}", state=state, reason="before")
        inventory.quarantine_claim(claim_id, "the power stayed on", "mend it")
    told = [inventory.machine_by_id(f"machine-of-{claim_id}") for claim_id in ("c1", "c2")]
    assert [(each.state, each.reason) for each in told] == [
        (MachineState.QUARANTINED, "the power stayed on"),
        (MachineState.FAILED, "before"),
    ]


def test_a_released_claim_quarantines_no_machine(inventory: Inventory) -> None:
    """Who comes late with it changes nothing: the machine may have another claim by now."""
    add(inventory, "hv-1")
    inventory.begin_machine(machine("machine-of-c1"))
    inventory.claim(asking("c1"))
    inventory.release_claim("c1")
    with pytest.raises(StaleFence):
        inventory.quarantine_claim("c1", "late", "nothing")
    assert inventory.machine_by_id("machine-of-c1").state is MachineState.PROVISIONING


def test_whoever_acts_for_a_released_claim_is_told_to_stop(inventory: Inventory) -> None:
    """Extending, keeping and quarantining all need a live claim."""
    add(inventory, "hv-1")
    inventory.claim(asking("c1"))
    inventory.release_claim("c1")
    for act in (
        lambda: inventory.extend_lease("c1", 60),
        lambda: inventory.make_permanent("c1"),
        lambda: inventory.quarantine_claim("c1", "late", "nothing"),
    ):
        with pytest.raises(StaleFence):
            act()
    with pytest.raises(NotFound):
        inventory.extend_lease("c0", 60)


def test_claims_are_listed_by_partition_project_and_state(inventory: Inventory) -> None:
    """Without a state, what holds something; oldest first."""
    inventory.add_partition("north")
    add(inventory, "hv-1")
    add(inventory, "hv-north", partition="north")
    inventory.claim(asking("c1"))
    inventory.claim(asking("c2", partition="north", project="other"))
    inventory.make_permanent("c2")
    assert [row.id for row in inventory.claims()] == ["c1", "c2"]
    assert [row.id for row in inventory.claims(partition="north")] == ["c2"]
    assert [row.id for row in inventory.claims(project="demo")] == ["c1"]
    assert [row.id for row in inventory.claims(state="permanent")] == ["c2"]
    with pytest.raises(InvalidRequest, match="held, permanent"):
        inventory.claims(state="eternal")


def test_a_request_without_disk_needs_none(inventory: Inventory) -> None:
    """Only what is asked for is looked at and taken."""
    add(inventory, "hv-1", disk_gib=0)
    claim = inventory.claim(replace(asking(), resources=Resources(1, 512, 0)))
    assert claim.resources == Resources(1, 512, 0)
