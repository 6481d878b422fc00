"""Why a claim found what it found."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mulligan.activities.errors import NeverFits, NotNow
from mulligan.activities.inventory import ClaimRequest, Inventory, Verdict
from mulligan.activities.values import Kind, Resources
from tests.inventory.parts import add, add_server, asking


def test_the_funnel_counts_every_provider_once(inventory: Inventory) -> None:
    """Each stage says how many it removed of those that were left, in the order of the search."""
    inventory.add_partition("north")
    add(inventory, "elsewhere", partition="north")
    add(inventory, "small", vcpu=2)
    add(inventory, "plain")
    add(inventory, "full", capabilities=("storage.nvme",), vcpu=4)
    inventory.claim(asking(provider="full", resources=Resources(3, 1024, 1)))
    why = inventory.explain(asking(requires=("storage.nvme",), resources=Resources(4, 1024, 1)))
    assert [(stage.name, stage.remaining, stage.removed) for stage in why.funnel if stage.removed] == [
        ("partition", 3, 1),
        ("requires.storage.nvme", 1, 2),
        ("free.vcpu", 0, 1),
    ]
    assert (why.verdict, why.never_count, why.not_now_count, why.fits_count) == (Verdict.NOT_NOW, 3, 1, 0)


def test_never_is_told_apart_from_not_now(inventory: Inventory) -> None:
    """What no provider could hold even empty is a never; what a release could make room for is a not now."""
    add(inventory, "hv-1", vcpu=4)
    inventory.claim(asking(resources=Resources(3, 1024, 1)))
    with pytest.raises(NotNow) as later:
        inventory.claim(asking(resources=Resources(4, 1024, 1)))
    assert "has 1 of its 4 vcpu free (asked: 4)" in later.value.message
    with pytest.raises(NeverFits) as never:
        inventory.claim(asking(resources=Resources(5, 1024, 1)))
    assert "nearest: hv-1 has 4 vcpu in all (asked: 5); change" in never.value.message
    assert never.value.metadata["never"] == "1"


def test_near_misses_fail_the_fewest_conditions_and_give_numbers(inventory: Inventory) -> None:
    """The nearest come first, with what they have of what was asked."""
    add(inventory, "far", vcpu=1, memory_mib=512, disk_gib=1)
    add(inventory, "near")
    inventory.claim(asking(provider="near", resources=Resources(6, 1024, 1)))
    for number in range(6):
        add(inventory, f"middle-{number}", vcpu=1, memory_mib=512)
    why = inventory.explain(asking(resources=Resources(4, 1024, 10)))
    assert len(why.near_misses) == 5
    first = why.near_misses[0]
    assert (first.provider, first.failing, first.detail) == (
        "near",
        ("free.vcpu",),
        "has 2 of its 8 vcpu free (asked: 4)",
    )
    assert "far" not in {miss.provider for miss in why.near_misses}


def test_nothing_of_other_projects_shows_in_an_explanation(inventory: Inventory) -> None:
    """Neither names of projects and machines nor reasons that people wrote about them."""
    add_server(inventory, "held")
    add_server(inventory, "ill")
    inventory.claim(
        asking("c1", provider="held", project="secret-project", machine="secret-machine", run_id="secret-run")
    )
    inventory.quarantine_provider("ill", "left over from secret-machine")
    inventory.mark_suspect("ill", "secret-machine did not boot")
    why = inventory.explain(asking())
    assert why.verdict is Verdict.NOT_NOW
    assert "secret" not in json.dumps(asdict(why))


def test_without_providers_the_summary_says_to_register_one(inventory: Inventory) -> None:
    """An empty inventory is a never, said plainly."""
    why = inventory.explain(asking())
    assert why.verdict is Verdict.NEVER
    assert "register one" in why.summary


def test_an_explanation_claims_nothing(inventory: Inventory) -> None:
    """However often it is asked."""
    add(inventory, "hv-1", vcpu=2)
    assert [inventory.explain(asking("c1")).verdict for _ in range(3)] == [Verdict.FITS] * 3
    assert inventory.claims(state="") == []


_NAMES = ("a", "b", "c", "d")
_PROVIDERS = st.fixed_dictionaries(
    {
        "kind": st.sampled_from((Kind.VIRTUAL, Kind.BARE_METAL)),
        "vcpu": st.integers(0, 4),
        "memory_mib": st.sampled_from((0, 1024, 4096)),
        "capabilities": st.sets(st.sampled_from(("x", "y"))).map(lambda names: tuple(sorted(names))),
    }
)
_REQUESTS = st.fixed_dictionaries(
    {
        "resources": st.builds(Resources, st.integers(1, 4), st.sampled_from((0, 1024, 4096)), st.just(0)),
        "kind": st.sampled_from(Kind),
        "requires": st.sets(st.sampled_from(("x", "y")), max_size=1).map(tuple),
        "forbids": st.sets(st.sampled_from(("x", "y")), max_size=1).map(tuple),
        "provider": st.sampled_from(("", "", "", "a")),
        "avoid": st.sets(st.sampled_from(_NAMES), max_size=2).map(tuple),
    }
)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    fleet=st.lists(_PROVIDERS, min_size=1, max_size=4),
    asked=st.lists(_REQUESTS, min_size=1, max_size=6),
    data=st.data(),
)
def test_a_claim_succeeds_exactly_when_its_explanation_says_so(
    inventory: Inventory, fleet: list[dict[str, object]], asked: list[dict[str, object]], data: st.DataObject
) -> None:
    """For any fleet in any state, the verdict, the counts and the outcome of the claim are the same decision."""
    partition = f"p{len(inventory.partitions())}"
    inventory.add_partition(partition)
    for name, seen in zip(_NAMES, fleet, strict=False):
        provider = add(inventory, f"{partition}-{name}", partition=partition, disk_gib=0, **seen)
        enabled = data.draw(st.sampled_from((True, True, True, False)))
        inventory.edit_provider(provider.name, generation=provider.generation, enabled=enabled)
    for values in asked:
        named = f"{partition}-a" if values["provider"] else ""
        avoid = tuple(f"{partition}-{name}" for name in values["avoid"])  # type: ignore[attr-defined]
        _agrees(inventory, asking(**{**values, "partition": partition, "provider": named, "avoid": avoid}))


def _agrees(inventory: Inventory, request: ClaimRequest) -> None:
    why = inventory.explain(request)
    total = why.funnel[0].remaining + why.funnel[0].removed
    assert why.fits_count + why.not_now_count + why.never_count == total
    assert len(why.near_misses) == min(5, total - why.fits_count)
    try:
        inventory.claim(request)
    except NotNow as error:
        assert why == error.explanation and why.verdict is Verdict.NOT_NOW
    except NeverFits as error:
        assert why == error.explanation and why.verdict is Verdict.NEVER
    else:
        assert why.verdict is Verdict.FITS


def test_the_provider_that_was_asked_for_is_always_among_the_nearest(inventory: Inventory) -> None:
    """First, with all that it lacks, however many others fail nothing but to be it."""
    for number in range(7):
        add(inventory, f"hv-{number}", vcpu=4, memory_mib=4096)
    inventory.claim(asking(provider="hv-6", resources=Resources(4, 4096, 1)))
    why = inventory.explain(asking(provider="hv-6", resources=Resources(1, 1024, 1)))
    first = why.near_misses[0]
    assert (first.provider, first.detail) == (
        "hv-6",
        "has 0 of its 4 vcpu free (asked: 1), has 0 of its 4096 memory_mib free (asked: 1024)",
    )
    assert "asked for on hv-6 only, which could hold it, but not now: hv-6 has 0 of its 4 vcpu free" in why.summary


def test_a_run_that_may_use_one_provider_only_is_told_so(inventory: Inventory) -> None:
    """When that one was tried, it is not the sizes that are wrong."""
    add(inventory, "h-1")
    add(inventory, "h-2")
    told = inventory.explain(asking(provider="h-1", avoid=("h-1",)))
    assert told.summary.endswith("it was asked for on h-1 only, and that was tried already")


def test_what_helps_a_request_for_one_provider_is_never_another_provider(inventory: Inventory) -> None:
    """What holds it, if that is the project's own; that others have room; and what it lacks for good."""
    add(inventory, "hv-1", vcpu=2)
    for name, project in (("web-1", "mine"), ("web-2", "theirs")):
        inventory.claim(asking(name, project=project, machine=name, provider="hv-1", resources=Resources(1, 512, 1)))
    asked = asking("new", project="mine", provider="hv-1", resources=Resources(1, 512, 1))
    full = inventory.explain(asked).summary
    assert full.endswith(
        "hv-1 has 0 of its 2 vcpu free (asked: 1); wait, release a machine there (of this project: web-1), "
        "or ask without naming a provider"
    )
    add(inventory, "hv-2")
    assert inventory.explain(asked).summary.endswith("without naming a provider, for another one has room now")
    never = inventory.explain(asking("new", provider="hv-1", resources=Resources(3, 512, 1)))
    assert never.verdict is Verdict.NEVER
    assert "on hv-1 only, which has 2 vcpu in all (asked: 3); change the request, or ask without" in never.summary
    assert "register" not in full + never.summary


def test_one_provider_that_is_out_of_service_is_to_be_brought_back(inventory: Inventory) -> None:
    """To release a machine there, or to wait for one, would not help."""
    off = add(inventory, "hv-1")
    inventory.edit_provider("hv-1", generation=off.generation, enabled=False)
    told = inventory.explain(asking(provider="hv-1")).summary
    assert "hv-1 is disabled; bring hv-1 back into service, or ask without naming a provider" in told


def test_many_machines_of_the_project_are_counted_after_the_first(inventory: Inventory) -> None:
    """On the one provider that was asked for."""
    add(inventory, "hv-1", vcpu=5)
    for number in range(5):
        inventory.claim(asking(f"c{number}", machine=f"web-{number}", resources=Resources(1, 1, 1)))
    told = inventory.explain(asking("new", provider="hv-1", resources=Resources(1, 1, 1))).summary
    assert "(of this project: web-0, web-1, web-2 and 2 more)" in told
