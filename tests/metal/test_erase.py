"""Erasing: a server's disks erased by the agent, or left alone where nothing was written; always left at rest."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from mulligan.activities import deploy as deploy_module
from mulligan.activities.bootserver.checks import unproved
from mulligan.activities.bootserver.job import JobKind, PermitGiven, job_id
from mulligan.activities.bootserver.reports import name_disk
from mulligan.activities.errors import Busy, Conflict, HostNotReady, Unreachable
from mulligan.activities.values import Erase
from tests.bootserver.agent_parts import DISK, Caller, a_job
from tests.metal.conftest import CONTENT, MARK, PATIENT, Lab, until
from tests.metal.played import PlayedServer

DEPLOY, ERASE = job_id("srv-1", MARK, JobKind.DEPLOY), job_id("srv-1", MARK, JobKind.ERASE)
NOW = datetime(2026, 11, 30, tzinfo=UTC)
OTHER = {**DISK, "path": "/dev/sdb", "serial": "S-2"}


@pytest.mark.parametrize("mode", [Erase.METADATA, Erase.FULL])
async def test_disks_are_erased(lab: Lab, mode: Erase) -> None:
    """With evidence for each disk; the server is left at rest."""
    await lab.deploy()
    done = await lab.erase(lab.erasing(mode))
    assert lab.server.disk == b""
    (evidence,) = done.evidence
    assert evidence.observed == f"ST4000, serial S-1, 4000 GB (/dev/sda): {mode}: zeros, zeros"
    assert (lab.server.asked[-1]["erase"], "only" in lab.server.asked[-1]) == (mode, False)
    assert lab.is_at_rest()
    job = lab.site().jobs.find(ERASE)
    assert job is not None and job.closed


async def test_a_disk_that_was_left_as_it_is_is_named(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """A removable one is nobody's to erase, and whoever reads the evidence knows that it is there."""
    real = type(lab.server)._erase

    async def beside(server: PlayedServer, caller: Caller, told: dict[str, Any]) -> dict[str, Any]:
        stick = {"path": "/dev/sdz", "serial": "STICK", "size_bytes": 10**9, "removable": True}
        return {**await real(server, caller, told), "skipped": [{"disk": stick, "why": "it is removable"}]}

    monkeypatch.setattr(type(lab.server), "_erase", beside)
    done = await lab.erase()
    assert done.evidence[-1].observed == "a disk, serial STICK, 1 GB (/dev/sdz): left as it is: it is removable"
    assert "1 disk(s)" in done.said


async def test_it_is_done_once(lab: Lab) -> None:
    """An attempt whose answer was lost is made again, and boots nothing."""
    first = await lab.erase()
    again = await lab.erase()
    assert again.said == first.said
    assert lab.server.boots == ["agent"]


async def test_a_stronger_mode_is_done_anew(lab: Lab) -> None:
    """What was wiped is not overwritten yet."""
    await lab.erase()
    await lab.erase(lab.erasing(Erase.FULL))
    assert [told["erase"] for told in lab.server.asked] == ["metadata", "full"]


async def test_a_disk_that_was_not_written_is_left_alone(lab: Lab) -> None:
    """A try that failed before: nothing is booted, and the server is at rest all the same."""
    lab.server.dead = True
    with pytest.raises(Unreachable):
        await lab.deploy(patience=replace(PATIENT, comes=0.2, silence=0.2))
    assert not lab.is_at_rest()
    lab.server.dead = False
    done = await lab.erase(lab.erasing(only_if_written=True))
    assert "nothing was erased" in done.said
    assert (lab.server.boots, lab.is_at_rest()) == (["nothing"], True)
    again = await lab.erase(lab.erasing(only_if_written=True))
    assert again.said == done.said


async def test_a_disk_that_was_half_written_is_erased(lab: Lab) -> None:
    """A run that was cancelled in the middle: the agent that writes is stopped first."""
    lab.server.go_on.clear()
    deploying = asyncio.create_task(lab.deploy())
    async with asyncio.timeout(30):
        await lab.server.half.wait()
    deploying.cancel()
    await asyncio.gather(deploying, return_exceptions=True)
    await lab.erase(lab.erasing(only_if_written=True))
    assert (lab.server.disk, lab.is_at_rest()) == (b"", True)
    assert lab.server.asked[-1]["only"] == [DISK]
    job = lab.site().jobs.find(DEPLOY)
    assert job is not None and job.closed


async def test_what_nobody_knows_is_not_erased_on_a_guess(lab: Lab) -> None:
    """A run that was cancelled before its deployment began, or that another host worked on: the server is left at rest
    and the error quarantines it; the release of the machine erases it then."""
    lab.server.disk = b"somebody's"
    with pytest.raises(Conflict, match=r"is not known on this host.*--erase none"):
        await lab.erase(lab.erasing(only_if_written=True))
    assert (lab.server.disk, lab.server.boots, lab.is_at_rest()) == (b"somebody's", [], True)
    await lab.erase()
    assert lab.server.disk == b""


async def test_what_cannot_be_read_is_not_erased_on_a_guess(lab: Lab) -> None:
    """A record that was damaged says as little as none."""
    await lab.deploy()
    (lab.site().drivers_dir / "jobs" / f"{DEPLOY}.json").write_text("{")
    with pytest.raises(Conflict, match="is not known on this host"):
        await lab.erase(lab.erasing(only_if_written=True))
    assert lab.server.disk == CONTENT


async def test_what_was_erased_is_deployed_anew(lab: Lab) -> None:
    """A run that goes back to its image step: what was done before counts no more, and can be undone again."""
    await lab.deploy()
    await lab.erase(lab.erasing(only_if_written=True))
    await lab.deploy()
    assert lab.server.disk == CONTENT
    await lab.erase(lab.erasing(only_if_written=True))
    assert (lab.server.disk, lab.server.boots) == (b"", ["agent"] * 4)


async def test_an_erase_that_fails_says_why(lab: Lab) -> None:
    """The run quarantines the server then."""
    lab.server.fails = {"name": "DISK_FAILED", "message": "/dev/sda: Input/output error"}
    with pytest.raises(HostNotReady, match="was to erase the disks of srv-1, and says: /dev/sda: Input/output error"):
        await lab.erase()


async def test_a_worker_that_was_killed_goes_on_erasing(lab: Lab) -> None:
    """What the agent did meanwhile counts."""
    lab.server.hears_orders = False
    first = asyncio.create_task(lab.erase(patience=replace(PATIENT, order_seconds=600.0)))
    jobs = lab.site().jobs
    await until(lambda: (job := jobs.find(ERASE)) is not None and job.result is not None)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    lab.server.hears_orders = True
    await lab.erase()
    assert (lab.server.boots, lab.is_at_rest()) == (["agent"], True)


@pytest.mark.parametrize(
    ("result", "why"),
    [
        ({"erase": "full", "disks": []}, "it tells of no disk"),
        ({"nothing": True}, "it tells of None; to be done was full"),
        ({"erase": "metadata", "disks": [{"disk": DISK}]}, "it tells of metadata; to be done was full"),
        ({"erase": "full", "disks": [{"disk": DISK | {"path": "/dev/sdb"}}]}, "which it was not permitted to erase"),
    ],
    ids=["no-disk", "nothing", "less", "another-disk"],
)
async def test_an_erase_that_cannot_have_been_done_is_not_believed(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, result: dict[str, object], why: str
) -> None:
    """The server stays out of service, and whoever waits is told why at once: another boot would say the same."""
    await lab.deploy()

    async def told(*_: object) -> dict[str, object]:
        return result

    monkeypatch.setattr(type(lab.server), "_erase", told)
    with pytest.raises(HostNotReady, match=f"it is done; but .*{why}"):
        await lab.erase(lab.erasing(Erase.FULL))
    assert (lab.server.disk, lab.server.boots) == (CONTENT, ["agent", "agent"])


@pytest.mark.parametrize(
    ("fixed", "why"),
    [([DISK, OTHER], "it does not tell of ST4000, serial S-1"), ([OTHER], "S-1.*, which was written")],
    ids=["left-out", "gone"],
)
async def test_the_disk_that_was_written_is_among_those_that_are_erased(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, fixed: list[dict[str, object]], why: str
) -> None:
    """That another one is clean says nothing of it, also when the server does not see it any more."""
    await lab.deploy()
    lab.server.hardware = {"disks": fixed}

    async def another(_: PlayedServer, caller: Caller, told: dict[str, Any]) -> dict[str, Any]:
        assert (await caller.post("permits", {"disk": OTHER, "what": "erase"}))[0] == 204
        return {"erase": told["erase"], "disks": [{"disk": OTHER, "how": "zeros"}]}

    monkeypatch.setattr(type(lab.server), "_erase", another)
    with pytest.raises(HostNotReady, match=why):
        await lab.erase()
    assert lab.server.disk == CONTENT


async def test_a_disk_that_was_erased_before_may_be_pulled(lab: Lab) -> None:
    """A run that went back to its image step wrote another one: only that is to be erased."""
    await lab.deploy()
    await lab.erase(lab.erasing(only_if_written=True))
    lab.server.hardware, lab.server.disk_said = {"disks": [OTHER]}, OTHER
    await lab.deploy()
    done = await lab.erase()
    assert len(done.evidence) == 1 and "S-2" in done.evidence[0].observed


async def test_what_an_erase_that_ended_badly_left_is_written_anew(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that was reset to before its deployment, whose undo could not be done; once no attempt can come."""
    await lab.deploy()
    lab.server.dead = True
    with pytest.raises(Unreachable):
        await lab.erase(patience=replace(PATIENT, comes=0.3, silence=0.3))
    lab.server.dead = False
    with pytest.raises(Busy, match="are being erased"):
        await lab.deploy()
    monkeypatch.setattr(deploy_module, "ASKED_SECONDS", 0.0)
    await lab.deploy()
    assert lab.server.disk == CONTENT
    done = await lab.erase(lab.erasing(only_if_written=True))
    assert (lab.server.disk, len(done.evidence)) == (b"", 1)


def test_what_an_older_agent_lists_is_told_apart() -> None:
    """Parts of a chip are no disks; a disk that it passed over asks for a newer agent."""
    job = replace(a_job(JobKind.ERASE, erase=Erase.FULL), permits=(PermitGiven(name_disk(DISK), "erase", NOW),))
    result = {"erase": "full", "disks": [{"disk": DISK}]}
    part = DISK | {"path": "/dev/mmcblk0boot0", "read_only": True}
    assert unproved(job, result, {"disks": [DISK, part]}) == ""
    worn = OTHER | {"read_only": True}
    assert unproved(job, result, {"disks": [DISK, worn]}).endswith("an older agent: `mulligan agent build`")
