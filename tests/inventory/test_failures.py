"""Failures in the database: what is counted against whom, what is quarantined, cleared and listed."""

from __future__ import annotations

import itertools
import threading
from dataclasses import replace

import pytest
from sqlalchemy import func, select

from mulligan.activities.errors import NotFound
from mulligan.activities.inventory import Blame, Inventory, SuspectKind
from mulligan.activities.inventory.database import Database
from mulligan.activities.inventory.tables import failures
from mulligan.activities.values import Image
from tests.inventory.parts import DEBIAN, add, asking, machine

_numbers = itertools.count(1)
IMAGE, PROVIDER = SuspectKind.IMAGE, SuspectKind.PROVIDER
BAD, GOOD = (replace(DEBIAN, name=name, digest=f"sha256:{number:064}") for name, number in (("bad", 1), ("good", 2)))


def blame(provider: str, image: Image = BAD, run: str = "") -> Blame:
    """A run that failed: a new one, of a machine of its own, unless it is named."""
    run = run or f"run-{next(_numbers)}"
    return Blame(
        id=f"{run}/1/record/suspect",
        workflow_id=f"provision:default:{run}",
        run_id=run,
        provider=provider,
        image=image.name,
        digest=image.digest,
        step="verify",
        reason=f"verify was not done within 20 s in {run}",
    )


def fleet(inventory: Inventory, count: int) -> list[str]:
    """Hosts h1, h2, ..."""
    return [add(inventory, f"h{number}").name for number in range(1, count + 1)]


def counted(inventory: Inventory) -> dict[str, int]:
    """The suspect counts of all providers, without those in the clear."""
    return {each.name: each.suspect_count for each in inventory.providers() if each.suspect_count}


def held(inventory: Inventory) -> dict[str, int]:
    """What is listed, and how many failures are held against each."""
    return {each.name: each.failures for each in inventory.suspects()}


def test_the_first_failure_makes_both_suspects(inventory: Inventory) -> None:
    """The provider is claimed last, and its facts say why; the list shows both, with the run."""
    fleet(inventory, 2)
    first = blame("h1")
    shown = inventory.record_failure(first)
    assert (shown.suspect_count, shown.facts["suspect"]) == (1, first.reason)
    assert inventory.claim(asking()).target.name == "h2"
    image, provider = sorted(inventory.suspects(), key=lambda each: each.kind)
    assert (image.name, image.digest, provider.name) == ("bad", BAD.digest, "h1")
    for each in (image, provider):
        assert (each.failures, each.quarantined) == (1, "")
        assert replace(each.evidence[0], at=None) == first
        assert each.evidence[0].at is not None
        assert each.verdict.startswith("not clear yet")


def test_a_failure_that_is_told_twice_counts_once(inventory: Inventory) -> None:
    """Activities run at least once."""
    fleet(inventory, 1)
    told = blame("h1")
    inventory.record_failure(told)
    assert inventory.record_failure(told).suspect_count == 1


def test_a_bad_image_is_blamed_rather_than_ten_good_hosts(inventory: Inventory) -> None:
    """The hosts are cleared as soon as the second one tells the same; the image is refused after the third failure."""
    for host in fleet(inventory, 10)[:2]:
        inventory.record_failure(blame(host))
    assert counted(inventory) == {}
    assert inventory.image_quarantine(BAD.digest) == ""
    for number in range(3, 11):
        inventory.record_failure(blame(f"h{number}"))
    assert counted(inventory) == {}
    assert [each.name for each in inventory.providers() if each.quarantined] == []
    assert held(inventory) == {"bad": 10}
    reason = inventory.image_quarantine(BAD.digest)
    assert reason.startswith("3 runs failed with it")
    assert "`mulligan suspect clear image bad`" in reason
    (suspect,) = inventory.suspects(IMAGE)
    assert suspect.quarantined == reason
    assert "it is to blame: it failed on h1, h10, h2 and 7 more" in suspect.verdict
    assert inventory.suspect(IMAGE, BAD.digest) == suspect == inventory.suspect(IMAGE, "bad")


def test_a_bad_host_is_blamed_rather_than_its_images(inventory: Inventory) -> None:
    """What comes up elsewhere is sound. After the third failure the host is taken out of service."""
    fleet(inventory, 3)
    for number in range(3):
        inventory.record_failure(blame("h1", GOOD))
        inventory.came_up("h2", GOOD)
        assert counted(inventory) == {"h1": number + 1}
    assert held(inventory) == {"h1": 3}
    bad = inventory.provider("h1")
    assert "it is to blame: machines from good came up elsewhere since" in bad.quarantined
    assert "`mulligan suspect clear provider h1`" in bad.quarantined
    assert inventory.image_quarantine(GOOD.digest) == ""
    assert inventory.suspect(PROVIDER, "h2") is None


def test_a_machine_that_came_up_clears_its_host_and_its_image(inventory: Inventory) -> None:
    """The record of it is by the machine's id, as runs tell it."""
    fleet(inventory, 2)
    inventory.begin_machine(machine("m1", image=GOOD))
    inventory.record_failure(blame("h1", GOOD))
    inventory.record_failure(blame("h2", BAD))
    inventory.machine_came_up("m1", "h1")
    assert held(inventory) == {"bad": 1, "h2": 1}
    inventory.came_up("h2", GOOD)
    assert held(inventory) == {"bad": 1}
    with pytest.raises(NotFound):
        inventory.machine_came_up("nobody", "h1")


def test_an_image_that_ever_came_up_is_not_refused(inventory: Inventory) -> None:
    """Its bytes did not change: what does not come up any more has other reasons, which its verdict hints at."""
    fleet(inventory, 4)
    inventory.came_up("h1", GOOD)
    for number in range(1, 5):
        inventory.record_failure(blame(f"h{number}", GOOD))
    (suspect,) = inventory.suspects()
    assert (suspect.name, suspect.failures, suspect.quarantined) == ("good", 4, "")
    assert "one came up from it before" in suspect.verdict


def test_a_site_that_is_down_is_not_taken_out_of_service(inventory: Inventory) -> None:
    """Its images come up at another site, so every failure is its hosts'; half of them stay in service all the same."""
    inventory.add_partition("south")
    for number in range(1, 5):
        add(inventory, f"s{number}", "south")
    fleet(inventory, 1)
    for number in [*range(1, 5)] * 4:
        inventory.record_failure(blame(f"s{number}", GOOD))
        inventory.came_up("h1", GOOD)
    out = [each.name for each in inventory.providers("south") if each.quarantined]
    assert out == ["s1", "s2"]
    assert counted(inventory) == {f"s{number}": 4 for number in range(1, 5)}


def test_the_only_host_of_a_site_stays_in_service(inventory: Inventory) -> None:
    """Nobody at three in the morning has use for none; nor does another host that is disabled help."""
    fleet(inventory, 2)
    inventory.edit_provider("h2", generation=1, enabled=False)
    inventory.came_up("h2", GOOD)
    for _ in range(5):
        inventory.record_failure(blame("h1", GOOD))
        inventory.came_up("h2", GOOD)
    assert (inventory.provider("h1").quarantined, inventory.provider("h1").suspect_count) == ("", 5)


def test_clearing_a_host_forgets_its_failures_and_ends_their_quarantine(inventory: Inventory) -> None:
    """Also for its images, for the cause was found; what was quarantined by hand stays so."""
    fleet(inventory, 3)
    for image in (GOOD, BAD, GOOD):
        inventory.record_failure(blame("h1", image))
    assert inventory.provider("h1").quarantined
    inventory.clear_failures(PROVIDER, "h1")
    cleared = inventory.provider("h1")
    assert (cleared.quarantined, cleared.suspect_count, inventory.suspects()) == ("", 0, [])
    inventory.quarantine_provider("h1", "its fan is loud")
    inventory.clear_failures(PROVIDER, "h1")
    assert inventory.provider("h1").quarantined == "its fan is loud"
    assert inventory.suspects() == []


def test_clearing_an_image_does_not_blame_the_hosts(inventory: Inventory) -> None:
    """It may be asked for again; the next failure begins anew."""
    fleet(inventory, 3)
    for number in range(1, 4):
        inventory.record_failure(blame(f"h{number}"))
    assert inventory.image_quarantine(BAD.digest)
    inventory.clear_failures(IMAGE, "bad")
    assert inventory.image_quarantine(BAD.digest) == ""
    assert (inventory.suspects(), counted(inventory)) == ([], {})
    inventory.record_failure(blame("h1"))
    assert held(inventory) == {"bad": 1, "h1": 1}


def test_who_is_cleared_with_another_is_told(inventory: Inventory) -> None:
    """As it was; what is held against it for other failures stays."""
    fleet(inventory, 2)
    inventory.record_failure(blame("h1", GOOD))
    inventory.record_failure(blame("h2", BAD))
    inventory.record_failure(blame("h2", BAD))
    (other,) = inventory.clear_failures(PROVIDER, "h1")
    assert (other.kind, other.name, other.failures) == (IMAGE, GOOD.name, 1)
    assert held(inventory) == {"h2": 2, "bad": 2}
    (edit,) = inventory.edits()
    assert edit.what == f"1 failure(s) forgotten, for image {GOOD.name} too"


def test_a_quarantine_whose_grounds_became_unclear_says_that_it_stays(inventory: Inventory) -> None:
    """Beside a verdict that would contradict it."""
    fleet(inventory, 3)
    for image in (GOOD, BAD, GOOD):
        inventory.record_failure(blame("h1", image))
    inventory.record_failure(blame("h2", GOOD))
    inventory.record_failure(blame("h2", BAD))
    (h1,) = [each for each in inventory.suspects() if each.name == "h1"]
    assert h1.quarantined
    assert "not clear yet" in h1.verdict
    assert h1.verdict.endswith("it stays quarantined for what was found against it then, until it is cleared")


def test_what_is_not_there_cannot_be_cleared_or_suspected(inventory: Inventory) -> None:
    """The nearest name is told."""
    fleet(inventory, 1)
    inventory.add_image(GOOD)
    assert inventory.clear_failures(IMAGE, "good") == ()
    with pytest.raises(NotFound, match="did you mean good"):
        inventory.clear_failures(IMAGE, "goood")
    with pytest.raises(NotFound, match="h1"):
        inventory.clear_failures(PROVIDER, "h11")
    with pytest.raises(NotFound, match="h1"):
        inventory.record_failure(blame("h11"))


def test_putting_a_host_back_by_hand_forgets_its_failures(inventory: Inventory) -> None:
    """Or the next judgement would take it out again."""
    fleet(inventory, 3)
    for _ in range(3):
        inventory.record_failure(blame("h1", GOOD))
        inventory.came_up("h2", GOOD)
    known = inventory.provider("h1")
    assert known.quarantined
    inventory.edit_provider("h1", generation=known.generation, clear_quarantine=True)
    inventory.record_failure(blame("h2", BAD))
    assert (inventory.provider("h1").quarantined, counted(inventory)) == ("", {"h2": 1})


def test_a_failure_without_an_image_is_the_hosts(inventory: Inventory) -> None:
    """And one of no run takes nothing out of service."""
    fleet(inventory, 3)
    for _ in range(4):
        inventory.mark_suspect("h1", "no console")
    (suspect,) = inventory.suspects()
    assert (suspect.name, suspect.failures, suspect.quarantined) == ("h1", 4, "")
    assert suspect.verdict == "it is to blame: no image had part in it"


def test_failures_that_come_at_once_are_all_judged(url: str, inventory: Inventory) -> None:
    """No judgement misses what another one is just writing."""
    fleet(inventory, 4)
    others = [Inventory.open(url) for _ in range(4)]
    begin = threading.Barrier(4)

    def fail(number: int) -> None:
        begin.wait()
        for _ in range(5):
            others[number].record_failure(blame(f"h{number + 1}"))

    threads = [threading.Thread(target=fail, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for other in others:
        other.close()
    assert (held(inventory), counted(inventory)) == ({"bad": 20}, {})
    assert inventory.image_quarantine(BAD.digest)


def test_evidence_is_the_newest_twenty(inventory: Inventory, url: str) -> None:
    """The count is of all."""
    fleet(inventory, 2)
    told = [blame(f"h{1 + number % 2}") for number in range(25)]
    for each in told:
        inventory.record_failure(each)
    (suspect,) = inventory.suspects()
    assert suspect.failures == 25
    assert [each.run_id for each in suspect.evidence] == [each.run_id for each in reversed(told)][:20]
    database = Database(url)
    with database.read() as connection:
        assert connection.execute(select(func.count()).select_from(failures)).scalar_one() == 25
    database.close()
