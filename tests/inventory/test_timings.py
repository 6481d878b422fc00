"""What finished runs teach about how long steps take, on both databases."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from mulligan.activities.durations import began_at, step_seconds
from mulligan.activities.events import EventKind, RunEvent
from mulligan.activities.inventory import Inventory, Lesson, RunRecord, driver_of, model_of
from mulligan.activities.inventory import timings as timings_module
from mulligan.activities.values import Inspection, InventoryRow, Kind, Outcome, StepEstimate, VerifyLevel
from tests.inventory.parts import DEBIAN, machine

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def put(inventory: Inventory, name: str, model: str = "", driver: str = "libvirt") -> None:
    """Register a provider of this driver and model."""
    seen = Inspection(
        Kind.VIRTUAL, (InventoryRow("vcpu", 8),), ("arch.x86_64", f"driver.{driver}"), facts={"model": model}
    )
    inventory.put_provider(name, "default", f"simulated://{name}", "", seen, {})


class Runs:
    """Runs that end ready, one after the other."""

    def __init__(self, inventory: Inventory) -> None:
        self.inventory, self.count, self.level = inventory, 0, VerifyLevel.GUEST

    def end(self, provider: str, image: str = "debian-12", **seconds: float) -> str:
        """Keep a run that took so long; returns its id."""
        self.count += 1
        run_id = f"run-{self.count:04}"
        made = machine(f"m-{self.count}", f"web-{self.count}", provider=provider, image=replace(DEBIAN, name=image))
        made = replace(made, request=replace(made.request, verify=self.level))
        self.inventory.begin_machine(made)
        self.keep(run_id, made.id, seconds)
        return run_id

    def keep(self, run_id: str, machine_id: str, seconds: Mapping[str, float]) -> None:
        """Keep the story, and what it teaches."""
        at = NOON + timedelta(minutes=self.count)
        kept = RunRecord(f"provision:demo:{run_id}", run_id, "provision", "demo", "m", machine_id, Outcome.READY, "",
                         at, at, "[]")  # fmt: skip
        self.inventory.keep_run(kept, Lesson(run_id, machine_id, at, seconds))


def one(found: tuple[StepEstimate, ...], step: str) -> StepEstimate:
    """The estimate of a step."""
    return next(each for each in found if each.step == step)


def test_an_estimate_gives_the_middle_the_edge_and_what_it_is_based_on(inventory: Inventory) -> None:
    """Half took at most p50, 95 of 100 at most p95; each step for itself."""
    put(inventory, "hv-1")
    runs = Runs(inventory)
    for seconds in range(1, 21):
        runs.end("hv-1", boot=float(seconds), claim=0.5)
    found = inventory.estimates("debian-12", "libvirt")
    assert one(found, "boot") == StepEstimate("boot", 10.0, 19.0, 20, "image debian-12 on libvirt")
    assert one(found, "claim").p95_seconds == 0.5
    assert {each.step for each in found} == {"boot", "claim"}


def test_the_closest_group_that_three_runs_have_taught_is_used(inventory: Inventory) -> None:
    """Image, driver and model; then image and driver; then driver; each step by itself."""
    put(inventory, "hv-1", model="R640")
    put(inventory, "hv-2", model="R750")
    runs = Runs(inventory)
    for _ in range(3):
        runs.end("hv-1", boot=30.0)
        runs.end("hv-2", image="alma", boot=90.0)
    assert one(inventory.estimates("debian-12", "libvirt", "R640"), "boot").basis == (
        "image debian-12 on libvirt, model R640"
    )
    other_model = one(inventory.estimates("debian-12", "libvirt", "R750"), "boot")
    assert (other_model.basis, other_model.p50_seconds) == ("image debian-12 on libvirt", 30.0)
    other_image = one(inventory.estimates("fedora", "libvirt", "R640"), "boot")
    assert (other_image.basis, other_image.runs) == ("any image on libvirt", 6)
    assert inventory.estimates("debian-12", "redfish") == ()


def test_before_a_provider_is_claimed_the_image_alone_decides(inventory: Inventory) -> None:
    """Then all runs."""
    put(inventory, "hv-1")
    runs = Runs(inventory)
    for _ in range(3):
        runs.end("hv-1", claim=2.0)
    assert one(inventory.estimates("debian-12"), "claim").basis == "image debian-12"
    assert one(inventory.estimates("fedora"), "claim").basis == "all runs"


def test_two_runs_teach_nothing(inventory: Inventory) -> None:
    """An estimate of chance would be worse than none."""
    put(inventory, "hv-1")
    runs = Runs(inventory)
    for _ in range(2):
        runs.end("hv-1", boot=1.0)
    assert inventory.estimates("debian-12", "libvirt") == ()


def test_the_same_run_teaches_once(inventory: Inventory) -> None:
    """Keeping the story again, as a second attempt does, changes nothing."""
    put(inventory, "hv-1")
    runs = Runs(inventory)
    ids = [runs.end("hv-1", boot=1.0) for _ in range(2)]
    for run_id in ids:
        runs.keep(run_id, "m-1", {"boot": 99.0})
    assert inventory.estimates("debian-12", "libvirt") == ()


def test_only_the_newest_runs_count_and_old_ones_go(inventory: Inventory, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host that became faster is believed; the table does not grow for ever."""
    monkeypatch.setattr(timings_module, "NEWEST", 4)
    monkeypatch.setattr(timings_module, "KEPT", 6)
    put(inventory, "hv-1")
    put(inventory, "hv-2", model="other")
    runs = Runs(inventory)
    for _ in range(8):
        runs.end("hv-1", boot=100.0)
    for _ in range(4):
        runs.end("hv-1", boot=10.0)
    assert one(inventory.estimates("debian-12", "libvirt"), "boot") == StepEstimate(
        "boot", 10.0, 10.0, 4, "image debian-12 on libvirt"
    )
    monkeypatch.setattr(timings_module, "NEWEST", 1000)
    assert one(inventory.estimates("debian-12", "libvirt"), "boot").runs == 6
    runs.end("hv-2", boot=1.0)
    assert one(inventory.estimates("debian-12", "libvirt"), "boot").runs == 7, (
        "another model is not pruned for this one"
    )


def test_a_proof_is_compared_with_proofs_of_the_same_level(inventory: Inventory) -> None:
    """Power is proved at once, a service after minutes; where a level is not known, any is better than none."""
    put(inventory, "hv-1")
    runs = Runs(inventory)
    for level, seconds in ((VerifyLevel.POWER, 1.0), (VerifyLevel.SERVICE, 90.0)):
        runs.level = level
        for _ in range(3):
            runs.end("hv-1", boot=5.0, verify=seconds)

    def verify(level: VerifyLevel | None, image: str = "debian-12") -> StepEstimate:
        return one(inventory.estimates(image, "libvirt", level=level), "verify")

    assert verify(VerifyLevel.POWER) == StepEstimate("verify", 1.0, 1.0, 3, "image debian-12 on libvirt, level power")
    assert verify(VerifyLevel.SERVICE).p50_seconds == 90.0
    assert verify(VerifyLevel.SERVICE, "alma").basis == "any image on libvirt, level service"
    assert verify(VerifyLevel.GUEST) == StepEstimate("verify", 1.0, 90.0, 6, "image debian-12 on libvirt, any level")
    assert verify(None) == verify(VerifyLevel.GUEST)
    boot = one(inventory.estimates("debian-12", "libvirt", level=VerifyLevel.POWER), "boot")
    assert boot == StepEstimate("boot", 5.0, 5.0, 6, "image debian-12 on libvirt")


def test_what_was_kept_without_a_level_teaches_any(inventory: Inventory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs of older programs are known by their step only."""
    put(inventory, "hv-1")
    runs = Runs(inventory)
    with monkeypatch.context() as older:
        older.setattr(timings_module, "_kept", lambda step, level: step)
        for _ in range(3):
            runs.end("hv-1", verify=7.0)
    found = one(inventory.estimates("debian-12", "libvirt", level=VerifyLevel.GUEST), "verify")
    assert found == StepEstimate("verify", 7.0, 7.0, 3, "image debian-12 on libvirt, any level")


def test_each_level_of_proof_keeps_its_own_runs(inventory: Inventory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many machines that need only power do not make it forget how long a service takes."""
    monkeypatch.setattr(timings_module, "KEPT", 3)
    put(inventory, "hv-1")
    runs = Runs(inventory)
    for level, count in ((VerifyLevel.SERVICE, 3), (VerifyLevel.POWER, 5)):
        runs.level = level
        for _ in range(count):
            runs.end("hv-1", claim=1.0, verify=1.0)
    found = {level: inventory.estimates("debian-12", "libvirt", level=level) for level in VerifyLevel}
    assert one(found[VerifyLevel.SERVICE], "verify").runs == 3
    assert one(found[VerifyLevel.POWER], "verify").runs == 3
    assert one(found[VerifyLevel.POWER], "claim").runs == 3


def test_a_lesson_about_what_is_no_more_is_forgotten(inventory: Inventory) -> None:
    """The story is kept all the same."""
    Runs(inventory).keep("run-x", "no-such-machine", {"boot": 1.0})
    assert inventory.run("provision:demo:run-x").run_id == "run-x"


def test_the_driver_is_what_it_declares_and_the_model_what_it_saw(inventory: Inventory) -> None:
    """The URL's scheme decides where a driver declares nothing."""
    put(inventory, "hv-1", model="R640")
    provider = inventory.provider("hv-1")
    assert (driver_of(provider), model_of(provider)) == ("libvirt", "R640")
    silent = inventory.put_provider(
        "hv-2", "default", "redfish+https://bmc", "", Inspection(Kind.VIRTUAL, (InventoryRow("vcpu", 1),), ()), {}
    )
    assert (driver_of(silent), model_of(silent)) == ("redfish", "")


def at(second: float, kind: EventKind, step: str = "", try_number: int = 1) -> RunEvent:
    """An event so many seconds after the run began."""
    return RunEvent(int(second * 10) + 1, NOON + timedelta(seconds=second), kind, try_number, step, step)


def test_a_step_takes_from_its_first_action_to_its_last_of_the_last_try() -> None:
    """What an earlier try took is not what the step takes."""
    started, finished = EventKind.ACTION_STARTED, EventKind.ACTION_FINISHED
    told = [
        at(0, EventKind.RUN_STARTED),
        at(1, started, "claim"), at(2, finished, "claim"),
        at(2, started, "boot"), at(60, EventKind.ACTION_FAILED, "boot"),
        at(61, started, "claim", 2), at(62, finished, "claim", 2),
        at(63, started, "image", 2), at(65, finished, "image", 2), at(65, started, "image", 2),
        at(70, finished, "image", 2),
        at(70, started, "record", 2), at(71, finished, "record", 2),
    ]  # fmt: skip
    assert step_seconds(told) == {"claim": 1.0, "image": 7.0}
    assert began_at(told)[1, "boot"] == NOON + timedelta(seconds=2)


def test_the_time_for_which_a_run_is_held_does_not_count() -> None:
    """A step that is begun anew after it counts from then; one that was done before keeps its time."""
    started, finished = EventKind.ACTION_STARTED, EventKind.ACTION_FINISHED
    told = [
        at(0, started, "boot"), at(5, finished, "boot"),
        at(5, started, "verify"), at(905, EventKind.ACTION_FAILED, "verify"),
        at(906, EventKind.HELD, "record"), at(5000, EventKind.RESUMED, "record"),
        at(5001, started, "verify"), at(5004, finished, "verify"),
    ]  # fmt: skip
    assert step_seconds(told) == {"boot": 5.0, "verify": 3.0}
