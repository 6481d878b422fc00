"""What would be claimed, and plans that are kept for a day, on both databases."""

from __future__ import annotations

from dataclasses import replace

import pytest
from sqlalchemy import func, select, update

from mulligan.activities.errors import NotFound
from mulligan.activities.inventory import Inventory, Verdict
from mulligan.activities.inventory.database import Database, now
from mulligan.activities.inventory.plans import KEPT_SECONDS
from mulligan.activities.inventory.tables import plans
from mulligan.activities.planning import FITS, Plan
from mulligan.activities.values import MachineRequest, Resources, StepEstimate
from tests.inventory.parts import SMALL, add, asking, used

PLAN = Plan(
    request=MachineRequest("demo", "web-1", "debian-12", SMALL),
    fingerprint="f",
    image_digest="sha256:0",
    verdict=FITS,
    explanation={"summary": "it fits"},
    provider="hv-1",
    kind="virtual",
    generation=3,
    estimates=(StepEstimate("boot", 1.0, 2.0, 3, "all runs"),),
    download_bytes=412,
    destroys=("everything",),
)


def test_what_is_chosen_is_what_would_be_claimed(inventory: Inventory) -> None:
    """By the same order: suspects last, and with PACK the fullest first; nothing is held by asking."""
    for name in ("hv-1", "hv-2", "hv-3"):
        add(inventory, name)
    inventory.claim(asking(provider="hv-2"))
    before = [used(inventory, name) for name in ("hv-1", "hv-2", "hv-3")]
    choice = inventory.choose(asking("c1"))
    assert choice.provider is not None
    assert choice.explanation.verdict is Verdict.FITS == FITS
    assert [used(inventory, name) for name in ("hv-1", "hv-2", "hv-3")] == before
    assert inventory.claim(asking("c1")).target.name == choice.provider.name == "hv-2"


def test_when_nothing_fits_the_explanation_is_all_there_is(inventory: Inventory) -> None:
    """With the near misses, as the claim itself would say."""
    add(inventory, "hv-1")
    choice = inventory.choose(asking(resources=Resources(9999, 1, 1)))
    assert choice.provider is None
    assert choice.explanation.verdict is Verdict.NEVER
    assert choice.explanation.near_misses[0].provider == "hv-1"


def test_a_plan_is_kept_under_its_hash(inventory: Inventory) -> None:
    """As it was made; keeping it again is harmless."""
    inventory.keep_plan(PLAN)
    inventory.keep_plan(PLAN)
    assert inventory.plan(PLAN.hash) == PLAN


def test_the_hash_says_what_matters() -> None:
    """Everything that a run would do differently changes it; how long it usually takes does not."""
    changes = [
        {"fingerprint": "g"}, {"image_digest": "sha256:1"}, {"provider": "hv-2"}, {"generation": 4},
        {"kind": "bare-metal"}, {"destroys": ()}, {"download_bytes": 0}, {"place_bytes": 1},
    ]  # fmt: skip
    hashes = {PLAN.hash, *(replace(PLAN, **change).hash for change in changes)}  # type: ignore[arg-type]
    assert len(hashes) == 1 + len(changes)
    assert replace(PLAN, estimates=(), why="another reason", cached_bytes=7).hash == PLAN.hash
    assert PLAN.hash.startswith("plan-")
    assert len(PLAN.hash) == len("plan-") + 16


def test_what_cannot_be_applied_has_no_hash() -> None:
    """Nothing fits, or something lacks."""
    assert replace(PLAN, lacks=("the driver cannot",)).hash == ""
    assert replace(PLAN, provider="").hash == ""
    assert replace(PLAN, verdict=Verdict.NOT_NOW).hash == ""


def test_an_unknown_plan_is_not_found(inventory: Inventory) -> None:
    """With what to do."""
    with pytest.raises(NotFound, match="mulligan machine plan"):
        inventory.plan("plan-0123456789abcdef")


def test_a_plan_of_yesterday_is_forgotten(url: str, inventory: Inventory) -> None:
    """It cannot be applied, and goes when the next one is kept; one that is made again lives on."""
    other = replace(PLAN, provider="hv-2")
    inventory.keep_plan(PLAN)
    inventory.keep_plan(other)
    database = Database(url)
    with database.write() as connection:
        connection.execute(update(plans).values(made_at=now(-KEPT_SECONDS - 1)))
    with pytest.raises(NotFound):
        inventory.plan(PLAN.hash)
    inventory.keep_plan(PLAN)
    assert inventory.plan(PLAN.hash) == PLAN
    with database.read() as connection:
        assert connection.execute(select(func.count()).select_from(plans)).scalar_one() == 1
    database.close()


def test_how_many_are_as_good_is_told(inventory: Inventory) -> None:
    """Among equals lots are drawn; the fuller one has none like it."""
    for name in ("hv-1", "hv-2", "hv-3"):
        add(inventory, name)
    assert inventory.choose(asking()).alike == 3
    inventory.claim(asking(provider="hv-2"))
    assert inventory.choose(asking()).alike == 1
