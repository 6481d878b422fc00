"""What is remembered of a BMC, in a file that its workers share."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from types import SimpleNamespace

import pytest

from mulligan.activities.drivers import orders
from mulligan.activities.drivers.orders import PATIENCE_SECONDS, UNSEEN, Known, Orders

DRIVE, SYSTEM = "/redfish/v1/Managers/1/VirtualMedia/Cd", "/redfish/v1/Systems/1"


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The wall clock: `now` is to be set."""
    clock = SimpleNamespace(now=1_000_000.0)
    clock.time = lambda: clock.now
    monkeypatch.setattr(orders, "time", clock)
    return clock


def files(folder: Path) -> list[Path]:
    """All that is kept."""
    return sorted(folder.iterdir())


def test_what_one_worker_was_told_is_read_by_another(tmp_path: Path, clock: SimpleNamespace) -> None:
    """Of each BMC, and each of its parts, for as long as it may yet show."""
    Orders(tmp_path, "bmc-1").give(SYSTEM, "on", UNSEEN)
    Orders(tmp_path, "bmc-1").give(DRIVE, "http://boot/run-1.iso")
    clock.now += PATIENCE_SECONDS - 1
    there, elsewhere = Orders(tmp_path, "bmc-1"), Orders(tmp_path, "bmc-2")
    assert [there.awaited(part) for part in (SYSTEM, DRIVE)] == ["on", "http://boot/run-1.iso"]
    assert elsewhere.awaited(SYSTEM) is None
    clock.now += 1
    assert [there.awaited(part) for part in (SYSTEM, DRIVE)] == [None, None]


@pytest.mark.parametrize("step", [-1e6, 1e6], ids=["back", "forth"])
def test_a_clock_that_is_set_lets_no_order_be_awaited_for_ever(
    tmp_path: Path, clock: SimpleNamespace, step: float
) -> None:
    """At most for as long again, by whoever reads it; what was left on stays so."""
    Orders(tmp_path, "bmc").give(SYSTEM, "on", UNSEEN)
    clock.now += step
    Orders(tmp_path, "bmc").awaited(SYSTEM)
    clock.now += PATIENCE_SECONDS
    assert Orders(tmp_path, "bmc").awaited(SYSTEM) is None
    assert Orders(tmp_path, "bmc").of(SYSTEM).doubts_off("any")


def test_an_order_is_on_the_disk_before_it_is_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file whole, then its name; only its owner may read it, as URLs of media open them."""
    synced: list[bool] = []
    monkeypatch.setattr(os, "fsync", lambda file: synced.append(stat.S_ISDIR(os.fstat(file).st_mode)))
    Orders(tmp_path, "bmc").give(DRIVE, "http://boot/run-1.iso")
    assert synced == [False, True]
    (file,) = files(tmp_path)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_nothing_is_written_where_nothing_changed(tmp_path: Path) -> None:
    """Each reading of a machine that is on notes it."""
    known = Orders(tmp_path, "bmc")
    known.end(SYSTEM, "contact")
    (file,) = files(tmp_path)
    before = file.stat().st_ino
    known.seen_on(SYSTEM, "contact")
    known.silent()
    known.silent()
    assert file.stat().st_ino != before
    before = file.stat().st_ino
    known.silent()
    known.seen_on(DRIVE, "contact")
    assert file.stat().st_ino == before


def test_what_ended_takes_up_no_room(tmp_path: Path, clock: SimpleNamespace) -> None:
    """Nor what can no more show, of parts that are never asked for again."""
    known = Orders(tmp_path, "bmc")
    for number in range(100):
        known.give(f"{DRIVE}-{number}", "http://boot/run-1.iso")
        clock.now += PATIENCE_SECONDS
    known.give(SYSTEM, "off", "contact")
    known.end(SYSTEM)
    (file,) = files(tmp_path)
    assert file.read_bytes() == b"{}"


def test_a_file_that_says_nothing_is_begun_anew(tmp_path: Path) -> None:
    """It was made to be read, or is of another version."""
    known = Orders(tmp_path, "bmc")
    known.of(SYSTEM)
    for said in (b"", b"[1]"):
        files(tmp_path)[0].write_bytes(said)
        assert known.of(SYSTEM) == Known()
    known.end(SYSTEM, "contact")
    assert known.of(SYSTEM) == Known(left_on="contact")


def test_a_full_disk_keeps_no_machine_from_being_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """That it was seen on cannot be noted, so that its "off" is doubted; an order is not given without its note."""
    known = Orders(tmp_path, "bmc")
    known.end(SYSTEM, "earlier")

    def full(path: Path, content: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(orders, "write_whole", full)
    known.seen_on(SYSTEM, "contact")
    assert known.of(SYSTEM).doubts_off("contact")
    with pytest.raises(OSError, match="No space"):
        known.give(SYSTEM, "off", "contact")


def test_a_full_disk_does_not_hide_that_a_bmc_is_silent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asked is told that, and not that nothing can be noted; an order is not sent that cannot be noted."""

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    known = Orders(tmp_path, "bmc")
    known.end(SYSTEM, "contact")
    monkeypatch.setattr(orders, "write_whole", full)
    known.silent()
    with pytest.raises(OSError, match="No space"):
        known.give(SYSTEM, "on")
