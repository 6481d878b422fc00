"""Any sequence of claims, releases, extensions, tombstones and late claims, against a model that fits on one page."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from mulligan.activities.errors import Conflict, NotFound, NotNow, StaleFence
from mulligan.activities.inventory import ClaimState, Inventory
from mulligan.activities.values import Resources
from tests.inventory.parts import add, add_server, asking

IDS = st.sampled_from([f"c{number}" for number in range(6)])
HYPERVISOR_VCPU = 4


class Claims(RuleBasedStateMachine):
    """One hypervisor and one server. The model: per claim its state, and what it holds on which provider."""

    inventory: Inventory
    partitions: Iterator[int]

    def __init__(self) -> None:
        super().__init__()
        self.partition = f"p{next(self.partitions)}"
        self.inventory.add_partition(self.partition)
        self.slices, self.server = f"{self.partition}-hv", f"{self.partition}-server"
        add(self.inventory, self.slices, partition=self.partition, vcpu=HYPERVISOR_VCPU)
        add_server(self.inventory, self.server, partition=self.partition, vcpu=2)
        self.states: dict[str, ClaimState] = {}
        self.held: dict[str, tuple[str, int]] = {}
        self.asked: dict[str, int] = {}
        self.fences = {self.slices: 0, self.server: 0}
        self.soiled = False

    def id_of(self, short: str) -> str:
        """Ids are unique in the database, which the examples share."""
        return f"{self.partition}-{short}"

    def expected_provider(self, vcpu: int) -> str | None:
        """Slices first; the server whole, if it is free, clean and large enough."""
        taken = [amount for provider, amount in self.held.values() if provider == self.slices]
        if sum(taken) + vcpu <= HYPERVISOR_VCPU:
            return self.slices
        server_is_free = not any(provider == self.server for provider, _ in self.held.values())
        return self.server if server_is_free and not self.soiled and vcpu <= 2 else None

    @rule(short=IDS, vcpu=st.integers(1, 3))
    def claim(self, short: str, vcpu: int) -> None:
        """A claim, the same again, one in another's place, or one that comes late."""
        request = asking(
            self.id_of(short), partition=self.partition, resources=Resources(vcpu, 1024, 1), fingerprint=f"{vcpu}"
        )
        state, known = self.states.get(short), self.held.get(short)
        if state is ClaimState.RELEASED:
            with pytest.raises(StaleFence):
                self.inventory.claim(request)
        elif state is ClaimState.QUARANTINED or (known is not None and self.asked[short] != vcpu):
            with pytest.raises(Conflict):
                self.inventory.claim(request)
        elif known is not None:
            assert self.inventory.claim(request).target.name == known[0]
        elif (expected := self.expected_provider(vcpu)) is None:
            with pytest.raises(NotNow):
                self.inventory.claim(request)
        else:
            made = self.inventory.claim(request)
            assert made.target.name == expected
            assert made.fence > self.fences[expected]
            self.fences[expected] = made.fence
            self.states[short], self.held[short] = ClaimState.HELD, (expected, made.resources.vcpu)
            self.asked[short] = vcpu

    @rule(short=IDS, dirty=st.booleans())
    def release(self, short: str, dirty: bool) -> None:
        """A release: of a live claim, once more, or before the claim was ever made."""
        self.inventory.release_claim(self.id_of(short), dirty=dirty)
        self.states[short] = ClaimState.RELEASED
        known = self.held.pop(short, None)
        if known is not None and known[0] == self.server:
            self.soiled = self.soiled or dirty
        elif known is not None and dirty:
            self.clean(self.slices)

    @precondition(lambda self: self.soiled)
    @rule()
    def erase(self) -> None:
        """The server was erased."""
        self.clean(self.server)
        self.soiled = False

    def clean(self, name: str) -> None:
        """Clear the mark of a dirty provider."""
        generation = self.inventory.provider(name).generation
        self.inventory.edit_provider(name, generation=generation, clear_dirty=True)

    @rule(short=IDS)
    def extend(self, short: str) -> None:
        """A lease is extended, or its holder told to stop."""
        self.expect(short, lambda: self.inventory.extend_lease(self.id_of(short), 3600), self.states.get(short))

    @rule(short=IDS)
    def keep(self, short: str) -> None:
        """A claim becomes permanent, unless it is quarantined."""
        if self.states.get(short) is ClaimState.QUARANTINED:
            with pytest.raises(Conflict):
                self.inventory.make_permanent(self.id_of(short))
        else:
            self.expect(short, lambda: self.inventory.make_permanent(self.id_of(short)), ClaimState.PERMANENT)

    @rule(short=IDS)
    def quarantine(self, short: str) -> None:
        """A claim is quarantined."""
        claim_id = self.id_of(short)
        self.expect(short, lambda: self.inventory.quarantine_claim(claim_id, "r", "m"), ClaimState.QUARANTINED)

    def expect(self, short: str, act: object, becomes: ClaimState | None) -> None:
        """An act on a claim changes its state, unless it is released or was never made."""
        assert callable(act)
        if self.states.get(short) is None:
            with pytest.raises(NotFound):
                act()
        elif self.states[short] is ClaimState.RELEASED:
            with pytest.raises(StaleFence):
                act()
        else:
            assert becomes is not None
            assert act().state is becomes
            self.states[short] = becomes

    @invariant()
    def counters_are_the_sum_of_live_claims(self) -> None:
        """Nothing is lost, nothing counted twice, nothing overcommitted."""
        for name in (self.slices, self.server):
            expected = sum(amount for provider, amount in self.held.values() if provider == name)
            assert self.inventory.provider(name).inventory[0].used == expected
        rows = {row.id: (row.provider, row.resources.vcpu) for row in self.inventory.claims(self.partition)}
        assert rows == {self.id_of(short): known for short, known in self.held.items()}


def test_any_sequence_of_calls_keeps_to_the_model(url: str) -> None:
    """On both databases."""
    inventory = Inventory.open(url)

    class OnThisDatabase(Claims):
        pass

    OnThisDatabase.inventory = inventory
    OnThisDatabase.partitions = iter(range(10_000))
    try:
        run_state_machine_as_test(
            OnThisDatabase, settings=settings(max_examples=15, stateful_step_count=25, deadline=None)
        )
        assert inventory.audit() == []
    finally:
        inventory.close()
