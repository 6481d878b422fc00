"""Images, machines and kept runs."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from mulligan.activities.errors import AlreadyExists, Conflict, NotFound
from mulligan.activities.inventory import Inventory, RunRecord
from mulligan.activities.values import Compression, Evidence, MachineState, Outcome, Resources, VerifyLevel
from tests.inventory.parts import DEBIAN, add, asking, machine

NOON = datetime(2026, 6, 1, 12, 0, 0, 123456, tzinfo=UTC)


def test_an_image_is_added_once_and_never_changes(inventory: Inventory) -> None:
    """An equal one is success, a different one of the same name is refused by the fields that differ."""
    assert inventory.add_image(DEBIAN) == inventory.add_image(DEBIAN) == inventory.image("debian-12")
    with pytest.raises(AlreadyExists) as caught:
        inventory.add_image(replace(DEBIAN, digest="sha256:" + "1" * 64, compression=Compression.XZ))
    assert caught.value.differing == ("digest", "compression")
    with pytest.raises(NotFound) as missing:
        inventory.image("debian12")
    assert missing.value.nearest == ("debian-12",)


def test_an_image_in_use_is_not_removed(inventory: Inventory) -> None:
    """It goes once the machines that run it are no more."""
    inventory.add_image(DEBIAN)
    inventory.begin_machine(machine("m1"))
    with pytest.raises(Conflict, match=r"used by 1 machine: web-1 of project demo; release it first") as kept:
        inventory.remove_image("debian-12")
    assert kept.value.metadata["remedy"] == "mulligan machine release web-1 --project demo"
    for number in range(2, 8):
        inventory.begin_machine(machine(f"m{number}", name=f"web-{number}"))
    with pytest.raises(Conflict, match=r"by 7 machines: web-1 of .* web-5 of project demo and 2 more; release them"):
        inventory.remove_image("debian-12")
    for number in range(1, 8):
        inventory.update_machine(f"m{number}", state=MachineState.FAILED)
    inventory.remove_image("debian-12")
    assert inventory.images() == []
    with pytest.raises(NotFound):
        inventory.remove_image("debian-12")


def test_a_machine_is_read_back_as_it_was_written(inventory: Inventory) -> None:
    """Also its evidence and its times, to the microsecond."""
    begun = inventory.begin_machine(machine("m1", created_at=NOON))
    assert begun == replace(machine("m1"), created_at=NOON)
    seen = (Evidence(VerifyLevel.ADDRESS, "dhcp-lease", "192.0.2.7", NOON),)
    changes = {"state": MachineState.READY, "provider": "hv-1", "claim_id": "c1", "addresses": ("192.0.2.7",)}
    changes |= {"login": "debian", "evidence": seen, "ready_at": NOON + timedelta(seconds=42)}
    assert inventory.update_machine("m1", **changes) == replace(begun, **changes)
    assert inventory.machine_by_id("m1") == inventory.machine("demo", "web-1") == replace(begun, **changes)
    assert inventory.update_machine("m1", login="root").evidence == seen


def test_beginning_a_machine_again_gives_it_as_it_is(inventory: Inventory) -> None:
    """An activity that is repeated changes nothing."""
    first = inventory.begin_machine(machine("m1"))
    assert first.created_at is not None
    inventory.update_machine("m1", provider="hv-1")
    assert inventory.begin_machine(machine("m1")) == replace(first, provider="hv-1")


def test_a_name_belongs_to_one_live_machine(inventory: Inventory) -> None:
    """Until it is released or has failed; held and quarantined machines still have their name."""
    inventory.begin_machine(machine("m1"))
    bigger = Resources(8, 2048, 10)
    for state in (MachineState.HELD, MachineState.READY, MachineState.QUARANTINED, MachineState.RELEASING):
        inventory.update_machine("m1", state=state)
        with pytest.raises(AlreadyExists, match=state) as caught:
            inventory.begin_machine(machine("m2", resources=bigger))
        assert caught.value.differing == ("resources",)
    assert inventory.begin_machine(machine("m3", project="other")).id == "m3"
    inventory.update_machine("m1", state=MachineState.RELEASED)
    assert inventory.begin_machine(machine("m2")).id == "m2"
    assert inventory.machine("demo", "web-1").id == "m2"


def test_a_machine_that_is_no_more_does_not_come_back(inventory: Inventory) -> None:
    """A late report of success is refused, and how it ended first stays said."""
    inventory.begin_machine(machine("m1"))
    inventory.update_machine("m1", state=MachineState.FAILED, reason="no console")
    with pytest.raises(Conflict, match="failed and cannot become ready"):
        inventory.update_machine("m1", state=MachineState.READY)
    again = inventory.update_machine("m1", state=MachineState.RELEASED, reason="released")
    assert (again.state, again.reason) == (MachineState.FAILED, "no console")
    with pytest.raises(NotFound):
        inventory.update_machine("m0", state=MachineState.READY)


def test_only_what_is_neither_claimed_for_nor_handed_over_is_given_up(inventory: Inventory) -> None:
    """A machine that is in use, or that a claim holds something for, is given as it is."""
    add(inventory, "hv-1")
    for name, state in (("waits", MachineState.PROVISIONING), ("held", MachineState.HELD)):
        inventory.begin_machine(machine(name, name, state=state))
        given_up = inventory.abandon_machine(name)
        assert given_up.state is MachineState.FAILED
        assert "nothing of it is left" in given_up.reason
        assert inventory.abandon_machine(name) == given_up
    inventory.begin_machine(machine("in-use", "in-use", state=MachineState.READY))
    inventory.begin_machine(machine("claimed", "claimed"))
    inventory.claim(asking("c1", machine_id="claimed"))
    assert inventory.abandon_machine("in-use").state is MachineState.READY
    assert inventory.abandon_machine("claimed").state is MachineState.PROVISIONING
    with pytest.raises(NotFound):
        inventory.abandon_machine("nobody")


def test_machines_that_are_made_for_long_are_paged(inventory: Inventory) -> None:
    """By id, those that were begun long enough ago and are not handed over."""
    for number, state in enumerate((*MachineState, *MachineState)):
        inventory.begin_machine(machine(f"m{number:02}", f"web-{number}", state=state, created_at=NOON))
    inventory.begin_machine(machine("new", "new"))
    unfinished = [each for each in inventory.machines(limit=100) if each.state in ("provisioning", "held", "releasing")]
    seen, after = [], ""
    while page := inventory.unsettled(3600, after=after, limit=3):
        seen += [each.id for each in page]
        after = page[-1].id
    assert seen == sorted(each.id for each in unfinished if each.id != "new")
    assert "new" in [each.id for each in inventory.unsettled(0)]


def test_the_newest_machine_of_a_name_is_shown_when_none_lives(inventory: Inventory) -> None:
    """So that one can read why the last one failed."""
    for number in range(3):
        inventory.begin_machine(machine(f"m{number}", created_at=NOON + timedelta(seconds=number)))
        inventory.update_machine(f"m{number}", state=MachineState.FAILED)
    assert inventory.machine("demo", "web-1").id == "m2"
    with pytest.raises(NotFound) as caught:
        inventory.machine("demo", "web-2")
    assert caught.value.nearest == ("web-1",)
    with pytest.raises(NotFound) as elsewhere:
        inventory.machine("other", "web-1")
    assert elsewhere.value.nearest == ()


def test_machines_are_paged_one_per_name(inventory: Inventory) -> None:
    """Every name comes once, with its live machine, filtered by what is asked."""
    for project, name in (("a", "one"), ("a", "two"), ("b", "one"), ("b", "three")):
        inventory.begin_machine(machine(f"old-{project}-{name}", name, project=project))
        inventory.update_machine(f"old-{project}-{name}", state=MachineState.RELEASED)
        inventory.begin_machine(machine(f"{project}-{name}", name, project=project))
    inventory.update_machine("b-one", state=MachineState.READY)
    seen, after = [], ("", "")
    while page := inventory.machines(after=after, limit=3):
        seen += [each.id for each in page]
        after = (page[-1].project, page[-1].name)
    assert seen == ["a-one", "a-two", "b-one", "b-three"]
    assert [each.id for each in inventory.machines(project="a")] == ["a-one", "a-two"]
    assert [each.id for each in inventory.machines(states=(MachineState.READY,))] == ["b-one"]
    assert inventory.machines(partition="north") == []


def _run(run_id: str, seconds: int, **changes: object) -> RunRecord:
    started = NOON + timedelta(seconds=seconds)
    story = json.dumps([{"event": "claimed", "text": "„it“ is 'quoted'"}])
    run = RunRecord(
        "provision:demo:web-1", run_id, "provision", "demo", "web-1", "m1", Outcome.READY, "", started, started, story
    )
    return replace(run, **changes)  # type: ignore[arg-type]


def test_a_kept_run_never_changes_once_it_has_ended(inventory: Inventory) -> None:
    """Keeping it again is harmless; an open one is replaced by its end."""
    inventory.keep_run(_run("r1", 0, outcome=Outcome.OPEN, ended_at=None))
    inventory.keep_run(_run("r1", 0))
    inventory.keep_run(_run("r1", 0, outcome=Outcome.FAILED))
    assert inventory.run("provision:demo:web-1", "r1") == _run("r1", 0)


def test_a_kept_run_says_where_its_machine_was(inventory: Inventory) -> None:
    """As the machine has it, whichever run it is, and nothing when there is no such machine any more."""
    inventory.begin_machine(machine("m1"))
    inventory.update_machine("m1", provider="hv-1")
    inventory.keep_run(_run("r1", 0))
    inventory.keep_run(_run("r2", 1, workflow_id="release:demo:web-1", kind="release"))
    inventory.keep_run(_run("r3", 2, machine_id="gone"))
    assert [(run.run_id, run.provider) for run in inventory.runs()] == [("r3", ""), ("r2", "hv-1"), ("r1", "hv-1")]
    assert inventory.run("release:demo:web-1").provider == "hv-1"


def test_the_newest_run_of_a_workflow_is_given(inventory: Inventory) -> None:
    """Unless one is named."""
    inventory.keep_run(_run("r2", 20))
    inventory.keep_run(_run("r1", 10))
    assert inventory.run("provision:demo:web-1").run_id == "r2"
    assert inventory.run("provision:demo:web-1", "r1").run_id == "r1"
    for workflow_id, run_id in (("provision:demo:web-1", "r3"), ("provision:demo:web-2", "")):
        with pytest.raises(NotFound):
            inventory.run(workflow_id, run_id)


def test_runs_are_paged_from_the_newest(inventory: Inventory) -> None:
    """Every one comes once, also those that started at the same moment."""
    for number in range(5):
        inventory.keep_run(_run(f"r{number}", number // 2))
    inventory.keep_run(_run("other", 9, project="other", machine="db-1"))
    seen, before = [], None
    while page := inventory.runs(project="demo", limit=2, before=before):
        seen += [run.run_id for run in page]
        before = (page[-1].started_at, page[-1].run_id)
    assert seen == ["r4", "r3", "r2", "r1", "r0"]
    assert [run.run_id for run in inventory.runs(machine="db-1")] == ["other"]
