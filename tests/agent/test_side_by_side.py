"""Many disks are erased at once: as long as one takes, told in one report, and none keeps another from it."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest

from mulligan.activities.agent.on_machine.hardware import Disk
from mulligan.activities.agent.on_machine.side_by_side import Erasing, at_once
from mulligan.activities.agent.on_machine.tools import Failed
from tests.agent.machine import MIB, Machine, erasing

MEETING = """#!/bin/sh
case "$*" in *--secure*) exit 1;; esac
for disk; do :; done
case $disk in */{bad}) exit 1;; esac
touch $disk.here
waited=0
while [ $(ls {dev}/*.here | wc -l) -lt {all} ]; do sleep 0.1; waited=$((waited+1)); [ $waited -lt 300 ] || exit 1; done
sleep 2
size=$(stat -c %s $disk); truncate -s 0 $disk; truncate -s $size $disk
"""
"""A discard that ends only once as many disks are at it as there are."""


def meeting(machine: Machine, folder: Path, monkeypatch: pytest.MonkeyPatch, names: str, bad: str = "none") -> None:
    """Plug disks in that can only be erased at once."""
    (folder / "bin").mkdir()
    (folder / "bin/blkdiscard").write_text(MEETING.format(bad=bad, dev=machine.dev, all=len(names) - (bad != "none")))
    (folder / "bin/blkdiscard").chmod(0o755)
    monkeypatch.setenv("PATH", str(folder / "bin"), prepend=":")
    for name in names:
        machine.disk(f"sd{name}", 4)


def test_all_disks_are_erased_at_once(machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every permit is asked for before the first is touched; then none waits for another."""
    meeting(machine, tmp_path, monkeypatch, "abcd")
    with erasing("full") as server:
        done = machine.boot(server.url)
    assert server.last["phase"] == "waiting", done.stdout + done.stderr
    result = server.last["result"]
    assert [each["disk"]["serial"] for each in result["disks"]] == [f"serial-sd{name}" for name in "abcd"]
    assert all(each["how"].startswith("discard; ") for each in result["disks"])
    assert [each["disk"]["serial"] for each in server.permits] == [f"serial-sd{name}" for name in "abcd"]
    told = [each["said"] for each in server.reports if each["phase"] == "erasing"]
    assert any("4 disks: " in said and "discard of sda, sdb, sdc, sdd" in said for said in told), told


def test_a_refused_permit_leaves_every_disk_as_it_was(machine: Machine) -> None:
    """Also those that were permitted before."""
    disks = [machine.disk(f"sd{name}", 4) for name in "ab"]
    before = [disk.read_bytes() for disk in disks]
    server = erasing("full")
    answer = server.answer

    def second_is_refused(request: Any, body: bytes) -> None:
        server.refuse = "permits" if server.permits else ""
        answer(request, body)

    server.answer = second_is_refused  # type: ignore[method-assign]
    with server:
        machine.boot(server.url)
    assert len(server.permits) == 1
    assert [disk.read_bytes() for disk in disks] == before


def test_a_disk_that_cannot_be_erased_is_told_once_the_others_are(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that breaks at once, and two that are at it for a while."""
    meeting(machine, tmp_path, monkeypatch, "abc", bad="sda")
    (machine.dev / "sda").unlink()
    with erasing("full") as server:
        machine.boot(server.url)
    said = server.last["error"]["message"]
    assert server.last["error"]["name"] == "NOT_ERASED"
    assert said.startswith("1 disk(s) could not be erased, 2 were.") and "/sda cannot be opened" in said
    assert (machine.dev / "sdb").read_bytes() == (machine.dev / "sdc").read_bytes() == bytes(4 * MIB)


def test_an_order_stops_all(machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many are at it, within seconds."""
    meeting(machine, tmp_path, monkeypatch, "ab")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=":")
    (tmp_path / "bin/blkdiscard").write_text("#!/bin/sh\nexec sleep 60\n")
    server = erasing("full")
    server.order_early = "reboot"
    began = time.monotonic()
    with server:
        done = machine.boot(server.url)
    assert "told to reboot" in done.stdout, done.stdout + done.stderr
    assert time.monotonic() - began < 20


class Heard:
    """A reporter that keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str, int, int]] = []

    def at(self, *told: Any) -> None:
        """As the reporter's."""
        self.told.append(told)

    def check(self) -> None:
        """Nothing stops."""


def test_one_report_tells_of_all() -> None:
    """The bytes of all, each disk gone through twice, and what each is at; of a single disk what was told before."""
    heard: Any = Heard()
    a, b = Disk("/dev/sda", 100 * MIB, "A", model="M"), Disk("/dev/sdb", 300 * MIB, "B")
    both = Erasing(heard, [a, b], passes=2)
    both.at(a, "overwriting {}", 50 * MIB, 100 * MIB)
    assert heard.told[-1] == ("erasing", "2 disks: overwriting sda; sdb waits", 50 * MIB, 800 * MIB)
    both.at(b, "overwriting {}", 30 * MIB, 300 * MIB)
    assert heard.told[-1] == ("erasing", "2 disks: overwriting sda, sdb", 80 * MIB, 800 * MIB)
    both.at(a, "reading {} back", 10 * MIB, 100 * MIB, phase="checking")
    assert heard.told[-1] == ("erasing", "2 disks: reading sda back; overwriting sdb", 140 * MIB, 800 * MIB)
    both.ended(a, "{} erased")
    both.at(b, "reading {} back", 0, 300 * MIB, phase="checking")
    assert heard.told[-1] == ("checking", "2 disks: sda erased; reading sdb back", 500 * MIB, 800 * MIB)
    one = Erasing(heard, [a], passes=2)
    one.at(a, "overwriting {}", 5, 7)
    assert heard.told[-1] == ("erasing", f"overwriting {a.named}", 5, 7)


def test_what_stops_one_is_raised_once_all_have_ended() -> None:
    """A fault that is none of a disk is not lost, and nothing goes on behind it."""
    ended = threading.Event()

    def slow() -> str:
        time.sleep(0.2)
        ended.set()
        return "done"

    def broken() -> str:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        at_once([broken, slow])
    assert ended.is_set()
    assert at_once([slow, lambda: "too"]) == ["done", "too"]


def test_two_paths_to_one_disk_are_gone_one_after_the_other(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At once, each would take the other's marks for what the disk had kept."""
    meeting(machine, tmp_path, monkeypatch, "abc")
    at = "mkdir {dev}/one || exit 1; sleep 2; rmdir {dev}/one; size=$(stat -c %s $disk); truncate -s 0 $disk; "
    script = '#!/bin/sh\ncase "$*" in *--secure*) exit 1;; esac\nfor disk; do :; done\n' + at.format(dev=machine.dev)
    (tmp_path / "bin/blkdiscard").write_text(script + "truncate -s $size $disk\n")
    for name in "abc":
        (machine.sys / f"block/sd{name}/device/wwid").write_text("naa.5000c500a1b2c3d4")
    with erasing("full") as server:
        machine.boot(server.url)
    disks = server.last["result"]["disks"]
    assert [each["disk"]["path"][-1] for each in disks] == ["a", "b", "c"]
    assert all(each["how"].startswith("discard; ") for each in disks), disks


def test_a_thread_that_cannot_be_started_is_a_failure_once_the_others_have_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Not before: what they go on to report would take its place."""
    done: list[int] = []
    start = threading.Thread.start
    starts = iter([True, False])

    def starved(self: threading.Thread) -> None:
        if not next(starts):
            raise RuntimeError("can't start new thread")
        start(self)

    def work() -> None:
        time.sleep(0.2)
        done.append(1)

    monkeypatch.setattr(threading.Thread, "start", starved)
    with pytest.raises(Failed, match="2 disks cannot be worked on at once: can't start new thread"):
        at_once([work, work])
    assert done == [1]
