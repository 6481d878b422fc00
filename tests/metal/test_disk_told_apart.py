"""Which disk a server came up from: told from what the deploy agent wrote and what the guest says, and how sure."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from mulligan.activities.bootserver.reports import identity
from mulligan.activities.home_evidence import booted_elsewhere, call_home_evidence, call_of, disk_evidence, same_disk
from mulligan.activities.values import CallHome, DiskIdentity, VerifyLevel

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
WRITTEN = DiskIdentity("/dev/sda", "S-1", "5000c500a1b2c3d4", "ST4000", 4 * 10**12)
OLD = DiskIdentity("/dev/sdb", "S-2", "5000c500a1b2c3d5", "ST4000", 4 * 10**12)


def calling(*disks: DiskIdentity) -> CallHome:
    """A guest that says that it came up from these."""
    return CallHome(AT, hostname="web-1", peer="10.0.0.7", disks=disks)


@pytest.mark.parametrize(
    ("seen", "same"),
    [
        ({}, True),
        ({"path": "/dev/nvme0n1", "model": "ST4000NM"}, True),
        ({"serial": "s-1 ", "wwn": ""}, True),
        ({"serial": "", "wwn": "naa.5000C500A1B2C3D4"}, True),
        ({"serial": "", "wwn": "0x5000c500a1b2c3d4", "size_bytes": 0}, True),
        ({"serial": "S-2", "wwn": "5000c500a1b2c3d5"}, False),
        ({"serial": "S-2", "wwn": ""}, False),
        ({"serial": "", "wwn": "", "size_bytes": 10**12}, False),
        ({"serial": "", "wwn": ""}, None),
        ({"serial": "", "wwn": "", "size_bytes": 0}, None),
        ({"wwn": "5000c500a1b2c3d5"}, None),
        ({"serial": "S-2"}, None),
        ({"size_bytes": 10**12}, None),
    ],
    ids=[
        "all-equal", "other-names", "serial", "wwn", "wwn-of-another-form", "both-differ", "serial-differs",
        "size-differs", "size-only", "nothing", "serial-says-yes-wwn-no", "wwn-says-yes-serial-no", "a-part-of-it",
    ],
)  # fmt: skip
def test_disks_are_told_apart_by_what_both_kernels_say(seen: dict[str, Any], same: bool | None) -> None:
    """Either way round; what contradicts itself decides nothing."""
    other = replace(WRITTEN, **seen)
    assert same_disk(WRITTEN, other) is same
    assert same_disk(other, WRITTEN) is same


def test_the_disk_that_was_written_is_evidence() -> None:
    """It is named, of no level; the guest's own level is that it called."""
    call = calling(replace(WRITTEN, path="/dev/sdb", mount="/"))
    (seen,) = disk_evidence(call, WRITTEN)
    assert (seen.level, seen.source, seen.at) == (None, "disk", AT)
    assert seen.observed == "booted from ST4000, serial S-1, 4000 GB (/dev/sdb), which was written by this run"
    assert booted_elsewhere(call, WRITTEN) == ""
    assert call_home_evidence(call).level is VerifyLevel.GUEST


def test_another_disk_is_a_failure_that_names_both() -> None:
    """And says what to do."""
    call = calling(replace(OLD, mount="/"))
    said = booted_elsewhere(call, WRITTEN)
    assert said.startswith(f"web-1 came up from {OLD.named}, and not from the disk that was written, {WRITTEN.named}")
    assert "boot order" in said
    (seen,) = disk_evidence(call, WRITTEN)
    assert "which is not the disk that was written" in seen.observed


def test_a_boot_of_another_disk_is_one_too() -> None:
    """A system whose kernels are installed elsewhere would not be the one that was made."""
    call = calling(replace(WRITTEN, mount="/"), replace(OLD, mount="/boot"))
    assert booted_elsewhere(call, WRITTEN).startswith(f"web-1 has its /boot on {OLD.named}")
    assert [each.observed.partition(" ST")[0] for each in disk_evidence(call, WRITTEN)] == [
        "booted from",
        "its /boot is on",
    ]


def test_of_several_disks_beneath_one_is_enough() -> None:
    """A RAID of the disk that was written and another; of many not all are named."""
    assert booted_elsewhere(calling(OLD, WRITTEN), WRITTEN) == ""
    (seen,) = disk_evidence(calling(*[OLD] * 9, WRITTEN), WRITTEN)
    assert seen.observed.endswith("and 7 more, which was written by this run")


def test_what_cannot_be_told_is_said_and_fails_nothing() -> None:
    """The token proves the seed, which is on the disk that was written."""
    mute, vague = calling(), calling(DiskIdentity("/dev/sda", size_bytes=4 * 10**12))
    assert booted_elsewhere(mute, WRITTEN) == booted_elsewhere(vague, WRITTEN) == ""
    (seen,) = disk_evidence(mute, WRITTEN)
    said = f"which disk it booted from was not told; its seed is on the one that was written, {WRITTEN.named}"
    assert seen.observed == said
    (seen,) = disk_evidence(vague, WRITTEN)
    assert seen.observed.endswith(f"whether that is the disk that was written, {WRITTEN.named}, cannot be told")


def test_where_no_disk_was_written_the_guest_is_taken_by_its_word() -> None:
    """A virtual machine; and one that says nothing."""
    (seen,) = disk_evidence(calling(OLD), None)
    assert seen.observed == f"booted from {OLD.named}"
    assert booted_elsewhere(calling(OLD), None) == ""
    assert disk_evidence(calling(), None) == ()


def test_what_the_agent_says_is_believed_within_limits() -> None:
    """It is compared with what a guest says, and shown to people."""
    said = {"path": "/dev/sda\n", "serial": None, "wwn": "x" * 500, "size_bytes": "4", "model": 7}
    assert identity(said) == DiskIdentity("/dev/sda", "", "x" * 80, "7", 0)
    assert identity({"size_bytes": True, "wwn": "ab"}).named == "a disk, WWN ab (path unknown)"


def test_what_the_history_has_of_a_call_is_read_again() -> None:
    """Also of calls from before disks were told."""
    disk = {"serial": "S-1", "size_bytes": 4096, "mount": "/", "new": "field"}
    call = call_of({"hostname": "web-1", "status": "done", "disks": [disk]}, AT)
    assert call.disks == (DiskIdentity(serial="S-1", size_bytes=4096, mount="/"),)
    assert call_of({"hostname": "web-1", "status": "done", "errors": []}, AT).disks == ()
