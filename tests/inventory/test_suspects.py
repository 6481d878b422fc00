"""Who is to blame: the judgement by itself, on examples and on random histories."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mulligan.activities.inventory.suspects import QUARANTINE_AFTER, Case, Judgement, judge

_machines = itertools.count()


def failed(provider: str, image: str, machine: str = "", **cleared: bool) -> Case:
    """A failure; of a machine of its own unless one is named."""
    return Case(provider, image, machine or f"m{next(_machines)}", **cleared)


def counts(judgement: Judgement) -> dict[str, int]:
    """How many failures are held against whom."""
    charges = {**judgement.providers, **judgement.images}
    return {name: len(charge.cases) for name, charge in charges.items()}


def to_blame(judgement: Judgement) -> set[str]:
    """Who is to blame."""
    charges = {**judgement.providers, **judgement.images}
    return {name for name, charge in charges.items() if charge.to_blame}


def test_one_failure_makes_both_suspects() -> None:
    """Nobody can know yet."""
    judgement = judge([failed("h1", "bad")])
    assert (counts(judgement), to_blame(judgement)) == ({"h1": 1, "bad": 1}, set())


def test_an_image_that_fails_on_several_providers_is_to_blame() -> None:
    """And takes the blame off them."""
    judgement = judge([failed(f"h{n}", "bad") for n in range(10)])
    assert (counts(judgement), to_blame(judgement)) == ({"bad": 10}, {"bad"})


def test_a_provider_that_fails_with_several_images_is_to_blame() -> None:
    """And takes the blame off them."""
    judgement = judge([failed("bad", f"i{n}") for n in range(3)])
    assert (counts(judgement), to_blame(judgement)) == ({"bad": 3}, {"bad"})


def test_an_image_that_came_up_elsewhere_since_leaves_the_blame_to_the_provider() -> None:
    """One success tells."""
    judgement = judge([failed("bad", "i1", image_cleared=True), failed("bad", "i2")])
    assert (counts(judgement), to_blame(judgement)) == ({"bad": 2}, {"bad"})


def test_a_provider_that_works_with_another_image_since_leaves_it_to_the_image() -> None:
    """But a second provider must tell the same before the image is to blame: it may have been a moment's trouble."""
    once = judge([failed("h1", "bad", provider_cleared=True)])
    assert (counts(once), to_blame(once)) == ({"bad": 1}, set())
    twice = judge([failed("h1", "bad", provider_cleared=True), failed("h2", "bad")])
    assert (counts(twice), to_blame(twice)) == ({"bad": 2}, {"bad"})


def test_what_both_were_cleared_of_is_held_against_nobody() -> None:
    """A moment's trouble."""
    assert counts(judge([failed("h1", "i1", provider_cleared=True, image_cleared=True)])) == {}


def test_a_bad_image_and_a_bad_provider_are_told_apart() -> None:
    """What both had part in is held against the image only."""
    cases = [failed(f"h{n}", "bad-image") for n in range(3)]
    cases += [failed("bad-host", image) for image in ("i1", "i2", "bad-image")]
    judgement = judge(cases)
    assert to_blame(judgement) == {"bad-host", "bad-image"}
    assert counts(judgement) == {"bad-image": 4, "bad-host": 2}


def test_two_bad_images_on_some_of_the_same_hosts_are_both_found() -> None:
    """The second is seen when the first is taken off."""
    cases = [failed(f"h{n}", "first") for n in range(4)] + [failed(f"h{n}", "second") for n in range(2)]
    judgement = judge(cases)
    assert (counts(judgement), to_blame(judgement)) == ({"first": 4, "second": 2}, {"first", "second"})


def test_when_everything_fails_nobody_is_to_blame() -> None:
    """Everything on everything: that is the site. All are suspects alike."""
    judgement = judge([failed(f"h{h}", f"i{i}") for h in range(4) for i in range(3)])
    assert to_blame(judgement) == set()
    assert not [each for each in (*judgement.providers.values(), *judgement.images.values()) if each.earns_quarantine]


def test_an_image_that_came_up_before_needs_one_more_provider() -> None:
    """Its bytes have not changed since."""
    cases = [failed("h1", "proved"), failed("h2", "proved")]
    assert to_blame(judge(cases)) == {"proved"}
    assert to_blame(judge(cases, proved=["proved"])) == set()
    assert to_blame(judge([*cases, failed("h3", "proved")], proved=["proved"])) == {"proved"}


def test_one_request_that_cannot_work_earns_no_quarantine() -> None:
    """However often it is repeated; another machine's failure makes it one."""
    cases = [failed(f"h{n}", "good", "impossible") for n in range(5)]
    assert not judge(cases).images["good"].earns_quarantine
    assert judge([*cases, failed("h1", "good", "another")]).images["good"].earns_quarantine
    on_host = [failed("h1", "good", "impossible", image_cleared=True) for _ in range(5)]
    assert not judge(on_host).providers["h1"].earns_quarantine
    assert judge([*on_host, failed("h1", "x")]).providers["h1"].earns_quarantine


def test_quarantine_takes_so_many_failures() -> None:
    """One less is not enough, and neither is what is not clear."""
    cases = [failed("h1", "i", image_cleared=True) for _ in range(QUARANTINE_AFTER)]
    assert judge(cases).providers["h1"].earns_quarantine
    assert not judge(cases[1:]).providers["h1"].earns_quarantine
    unclear = judge([failed("h1", "i") for _ in range(QUARANTINE_AFTER + 2)])
    assert not unclear.providers["h1"].earns_quarantine
    assert not unclear.images["i"].earns_quarantine


CASES = st.lists(
    st.builds(
        Case,
        st.sampled_from(["h0", "h1", "h2", "h3"]),
        st.sampled_from(["", "i0", "i1", "i2"]),
        st.sampled_from(["m0", "m1", "m2"]),
        st.booleans(),
        st.booleans(),
    ),
    max_size=25,
)


@settings(max_examples=300, deadline=None)
@given(CASES, st.sets(st.sampled_from(["i0", "i1", "i2"])), st.randoms(use_true_random=False))
def test_every_judgement_keeps_the_rules(cases: list[Case], proved: set[str], chance: random.Random) -> None:
    """Whatever happened: nothing is lost or counted twice against one, the cleared are left alone, order is nothing."""
    judgement = judge(cases, proved)
    for name, charge in judgement.providers.items():
        assert all(case.provider == name and case.against_provider for case in charge.cases)
    for digest, charge in judgement.images.items():
        assert all(case.digest == digest and case.against_image for case in charge.cases)
    charges = [*judgement.providers.values(), *judgement.images.values()]
    held = Counter(place for charge in charges for place in charge.places)
    blamed = to_blame(judgement)
    for place, case in enumerate(cases):
        may = case.against_provider + case.against_image
        decided = may == 2 and {case.provider, case.digest} & blamed
        assert held[place] == (1 if decided else may)
        if decided and case.digest in blamed:
            assert place in judgement.images[case.digest].places
    shuffled = [*cases]
    chance.shuffle(shuffled)
    again = judge(shuffled, proved)
    assert (counts(again), to_blame(again)) == (counts(judgement), blamed)


class World:
    """Hosts and images of which one is bad, machines that are made one after the other, and what is known of it."""

    def __init__(self, bad: str) -> None:
        self.bad, self.cases, self.proved, self.out = bad, list[Case](), set[str](), set[str]()

    def make(self, host: str, image: str) -> None:
        """Make a machine; it comes up unless something bad had part in it."""
        if self.bad in (host, image):
            self.cases.append(failed(host, image))
        else:
            self.proved.add(image)
            self.cases = [
                replace(
                    case,
                    provider_cleared=case.provider_cleared or case.provider == host,
                    image_cleared=case.image_cleared or case.digest == image,
                )
                for case in self.cases
            ]
        judgement = judge(self.cases, self.proved)
        charges = {**judgement.providers, **judgement.images}
        self.out |= {name for name, charge in charges.items() if charge.earns_quarantine}


HOSTS, IMAGES = [f"h{n}" for n in range(4)], [f"i{n}" for n in range(3)]


@pytest.mark.parametrize("bad", ["h0", "i0"])
@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(HOSTS), st.sampled_from(IMAGES)), max_size=40))
def test_what_is_sound_is_never_taken_out_of_service(bad: str, made: list[tuple[str, str]]) -> None:
    """Whatever is made in which order: only the one that is bad is ever quarantined."""
    world = World(bad)
    for host, image in made:
        world.make(host, image)
    assert world.out <= {bad}


@pytest.mark.parametrize("bad", ["h0", "i0"])
@pytest.mark.parametrize("seed", range(10))
def test_what_is_bad_is_found(bad: str, seed: int) -> None:
    """In a fleet where everything meets everything, it does not take long."""
    world, chance = World(bad), random.Random(seed)
    for _ in range(80):
        world.make(chance.choice(HOSTS), chance.choice(IMAGES))
    assert world.out == {bad}
