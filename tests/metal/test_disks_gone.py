"""Disks that were written, and that the server has no more: each is told before a release may do without it."""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from mulligan.activities.bootserver.checks import absent, gone, unproved
from mulligan.activities.bootserver.job import JobKind, PermitGiven, job_id
from mulligan.activities.bootserver.job_files import KEEP_SECONDS
from mulligan.activities.errors import HostNotReady
from mulligan.activities.values import Erase
from tests.bootserver.agent_parts import DISK, Caller, a_job
from tests.metal.conftest import MARK, Lab, until
from tests.metal.played import PlayedServer

DEPLOY, ERASE = job_id("srv-1", MARK, JobKind.DEPLOY), job_id("srv-1", MARK, JobKind.ERASE)
OTHER = {**DISK, "path": "/dev/sdb", "serial": "S-2"}
WORN = {**DISK, "path": "/dev/sdc", "serial": "S-3", "read_only": True}
NAMED = r"S-1, .*, which was written: .* release the machine again"


def only_the_other_is_there(lab: Lab, *besides: dict[str, Any]) -> None:
    """The disk that was written is gone."""
    lab.server.hardware, lab.server.disk_said = {"disks": [OTHER, *besides]}, OTHER


def given(disk: dict[str, Any], what: str) -> PermitGiven:
    """The permit for it."""
    now = datetime(2026, 11, 30, tzinfo=UTC)
    return PermitGiven(disk["path"], what, now, disk["path"], disk["serial"], disk["wwn"])


async def test_a_machine_whose_disk_was_replaced_is_released_when_that_is_said_again(lab: Lab) -> None:
    """The first release names the disk that is gone, and the second one does without it: that is in its evidence."""
    await lab.deploy()
    lab.server.hardware, lab.server.disk_said = {"disks": [OTHER]}, OTHER
    with pytest.raises(HostNotReady, match=r"S-1, .*, which was written: .* release the machine again"):
        await lab.erase()
    with pytest.raises(HostNotReady):
        await lab.erase()  # the same execution's next attempt is told the same
    done = await lab.erase(lab.erasing(without_missing=True), release="another")
    assert [each.observed for each in done.evidence][1:] == [
        "ST4000, serial S-1, 4000 GB (/dev/sda): written, and not there to be erased"
    ]


async def test_a_disk_is_not_done_without_before_it_was_told(lab: Lab) -> None:
    """What was told first was something else."""
    await lab.deploy()
    only_the_other_is_there(lab, WORN)
    with pytest.raises(HostNotReady, match=r"it does not tell of .*S-3"):
        await lab.erase()
    only_the_other_is_there(lab)
    again = lab.erasing(without_missing=True)
    with pytest.raises(HostNotReady, match=NAMED):
        await lab.erase(again, release="second")
    await lab.erase(again, release="third")


async def test_nobody_does_without_it_who_was_not_told(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """The release was ended while its agent worked; so was nobody told what came of it."""
    await lab.deploy()
    only_the_other_is_there(lab)
    here, go, real = asyncio.Event(), asyncio.Event(), PlayedServer._erase

    async def slow(self: PlayedServer, caller: Caller, told: dict[str, Any]) -> dict[str, Any]:
        here.set()
        await go.wait()
        return await real(self, caller, told)

    monkeypatch.setattr(PlayedServer, "_erase", slow)
    erasing = asyncio.create_task(lab.erase())
    async with asyncio.timeout(30):
        await here.wait()
    erasing.cancel()
    await asyncio.gather(erasing, return_exceptions=True)
    go.set()
    jobs = lab.site().jobs
    await until(lambda: (job := jobs.find(ERASE)) is not None and bool(job.gone))
    with pytest.raises(HostNotReady, match=NAMED):
        await lab.erase(lab.erasing(without_missing=True), release="another")


async def test_who_did_not_ask_again_does_not_do_without_it(lab: Lab) -> None:
    """A reclaim that begins by itself after a release that failed."""
    await lab.deploy()
    only_the_other_is_there(lab)
    for execution in ("release", "reclaim"):
        with pytest.raises(HostNotReady, match=NAMED):
            await lab.erase(release=execution)


async def test_what_was_written_is_known_for_as_long_as_the_machine_lives(lab: Lab) -> None:
    """Jobs of long ago are removed, but not the only one that knows it."""
    await lab.deploy()
    old = time.time() - KEEP_SECONDS - 60
    os.utime(lab.site().drivers_dir / "jobs" / f"{DEPLOY}.json", (old, old))
    lab.site().jobs.open(a_job())
    only_the_other_is_there(lab)
    with pytest.raises(HostNotReady, match=NAMED):
        await lab.erase()


async def test_what_was_erased_need_not_be_known_for_ever(lab: Lab) -> None:
    """Both jobs of that claim are removed."""
    await lab.deploy()
    await lab.erase()
    old = time.time() - KEEP_SECONDS - 60
    for job in (DEPLOY, ERASE):
        os.utime(lab.site().drivers_dir / "jobs" / f"{job}.json", (old, old))
    for _ in range(2):
        lab.site().jobs.open(a_job())
    assert [lab.site().jobs.find(job) for job in (DEPLOY, ERASE)] == [None, None]


def test_all_that_are_gone_are_named() -> None:
    """Not the first one only."""
    two, three = OTHER, DISK | {"path": "/dev/sdc", "serial": "S-3"}
    missing = absent((given(DISK, "write"), given(two, "write")), {"disks": [{"disk": three}]})
    assert "/dev/sda, /dev/sdb, which were written: put them back" in gone(missing)


def test_namespaces_of_one_drive_are_told_apart() -> None:
    """The serial number is the drive's; the kernel's scheme of naming may be another in a later agent."""
    one = DISK | {"path": "/dev/nvme0n1", "serial": "NV-1", "wwn": "eui.01"}
    two = one | {"path": "/dev/nvme0n2", "wwn": "eui.02"}
    written = (given(one, "write"),)
    assert absent(written, {"disks": [{"disk": two}]}) == written
    assert absent(written, {"disks": [{"disk": two}, {"disk": one}]}) == ()
    assert absent(written, {"disks": [{"disk": one | {"wwn": "uuid.77"}}]}) == ()


def test_an_erase_without_a_word_of_the_servers_disks_is_not_believed() -> None:
    """That every disk is erased says nothing where nobody knows which there are."""
    job = replace(a_job(JobKind.ERASE, erase=Erase.FULL), permits=(given(OTHER, "erase"),))
    named = replace(job, permits=(replace(job.permits[0], disk="ST4000, serial S-2, 4000 GB (/dev/sdb)"),))
    result = {"erase": "full", "disks": [{"disk": OTHER}]}
    assert "did not tell in this boot which disks" in unproved(named, result, {})
    assert unproved(named, result, {"disks": [OTHER]}) == ""
