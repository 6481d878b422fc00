"""Attempts whose worker stood still, and goes on after its run has undone what it did: they change nothing any more."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from mulligan.activities import deploy as deploy_module
from mulligan.activities import metal as metal_module
from mulligan.activities.bmc import ready_to_boot_from_disk
from mulligan.activities.bootserver.job import JobKind, job_id
from mulligan.activities.bootserver.jobs import Jobs
from mulligan.activities.errors import Busy, Conflict, HostNotReady, StaleFence
from mulligan.activities.values import Erase, Firmware
from tests.bootserver import agent_parts
from tests.metal.conftest import MARK, Lab, until
from tests.metal.played import MAC

DEPLOY = job_id("srv-1", MARK, JobKind.DEPLOY)


@contextlib.asynccontextmanager
async def standing_still(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[asyncio.Task[object]]:
    """A deployment that stands still once its image is ready; it goes on, and ends, when this is left."""
    real, here, go = deploy_module.prepared, asyncio.Event(), asyncio.Event()

    async def slow(*asked: object) -> object:
        made = await real(*asked)  # type: ignore[arg-type]
        here.set()
        await go.wait()
        return made

    monkeypatch.setattr(deploy_module, "prepared", slow)
    late: asyncio.Task[object] = asyncio.create_task(lab.deploy())
    async with asyncio.timeout(30):
        await here.wait()
    yield late
    go.set()
    await asyncio.gather(late, return_exceptions=True)


async def test_what_was_undone_is_not_switched_on(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """The undo said that the server is off; no request for a change reaches its BMC after that."""
    async with standing_still(lab, monkeypatch) as late:
        await lab.erase(lab.erasing(only_if_written=True))
        assert lab.is_at_rest()
        before = lab.bmc.acts()
    with pytest.raises(Conflict, match="was ended by another action"):
        await late
    assert (lab.is_at_rest(), lab.server.boots, lab.bmc.acts()) == (True, [], before)


async def test_an_erase_is_not_cut_short(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may take hours, and its agent keeps its medium and its power."""
    async with standing_still(lab, monkeypatch) as late:
        lab.server.silent_after = "starting"
        erasing = asyncio.create_task(lab.erase(lab.erasing(Erase.FULL)))
        await until(lambda: len(lab.server.asked) == 1)
        before = lab.bmc.acts()
    with pytest.raises(Conflict):
        await late
    assert lab.bmc.acts() == before
    with pytest.raises(Busy, match="the disks of web-1 are being erased"):
        await lab.deploy()
    assert lab.bmc.acts() == before
    erasing.cancel()
    await asyncio.gather(erasing, return_exceptions=True)


async def test_an_erase_that_is_not_booted_yet_is_not_cut_short(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """A BMC may take minutes for each of its verbs before the agent comes."""
    await lab.deploy()
    real, here, go = metal_module.boot_once, asyncio.Event(), asyncio.Event()

    async def slow(*asked: Any) -> None:
        here.set()
        await go.wait()
        await real(*asked)

    monkeypatch.setattr(metal_module, "boot_once", slow)
    erasing = asyncio.create_task(lab.erase(lab.erasing(only_if_written=True)))
    async with asyncio.timeout(30):
        await here.wait()
    with pytest.raises(Busy, match="the disks of web-1 are being erased"):
        await lab.deploy()
    go.set()
    await erasing
    assert (lab.server.disk, lab.is_at_rest()) == (b"", True)


async def test_an_erase_that_failed_is_not_waited_for(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that was reset: the agent says again and again that it failed, and erases nothing."""
    monkeypatch.setattr(deploy_module, "ASKED_SECONDS", 0.0)
    await lab.deploy()
    lab.server.fails = {"name": "NOT_ERASED", "message": "1 disk(s) could not be erased"}
    with pytest.raises(HostNotReady, match="could not be erased"):
        await lab.erase(lab.erasing(only_if_written=True))
    lab.server.fails = None
    await lab.deploy()


@pytest.mark.parametrize("kind", ["deploy", "erase"])
async def test_what_the_fence_refuses_is_not_served(lab: Lab, kind: str) -> None:
    """The next machine's server restarts, and asks the network first: nothing of the late attempt is there."""
    network, asked = {"boot_from": "network", "macs": MAC}, lab.erasing()
    asked = replace(asked, target=lab.target(**network))
    await lab.deploy(lab.deploying(settings=network))
    await lab.erase(asked, release="second")
    await lab.deploy(lab.deploying(settings=network, mark=replace(MARK, machine="db-1", machine_id="m-2", fence=2)))
    lab.server.disk = b"the next user's"
    with pytest.raises(StaleFence):
        await (lab.deploy(lab.deploying(settings=network)) if kind == "deploy" else lab.erase(asked, release="first"))
    assert await lab.boots_from_network() == "disk"
    assert lab.server.disk == b"the next user's"


async def test_what_was_to_be_erased_is_not_booted(lab: Lab) -> None:
    """An attempt at the boot that comes after the undo leaves the server off."""
    await lab.deploy()
    await lab.erase(lab.erasing(only_if_written=True))
    site = lab.site()
    async with site.driver(lab.target()) as driver:
        with pytest.raises(Conflict, match="were to be erased, so that it is not booted"):
            await ready_to_boot_from_disk(site, driver, lab.target(), MARK, Firmware.ANY)
    await site.kept.close()
    assert lab.is_at_rest()


async def test_a_permit_that_is_given_at_the_last_moment_is_undone(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """The agent asks for its disk just when the undo begins: what it then wrote is erased."""
    at_the_gate, permitted = asyncio.Event(), asyncio.Event()
    let_in, loop = asyncio.Event(), asyncio.get_running_loop()
    post, close = agent_parts.Caller.post, Jobs.close

    async def late_post(self: agent_parts.Caller, name: str, said: object) -> tuple[int, bytes]:
        if name != "permits" or permitted.is_set():
            return await post(self, name, said)
        at_the_gate.set()
        await let_in.wait()
        try:
            return await post(self, name, said)
        finally:
            permitted.set()

    def late_close(self: Jobs, job: str) -> None:
        if job == DEPLOY and not permitted.is_set():
            loop.call_soon_threadsafe(let_in.set)
            asyncio.run_coroutine_threadsafe(asyncio.wait_for(lab.server.half.wait(), 30), loop).result(30)
        close(self, job)

    monkeypatch.setattr(agent_parts.Caller, "post", late_post)
    lab.server.go_on.clear()
    deploying = asyncio.create_task(lab.deploy())
    async with asyncio.timeout(30):
        await at_the_gate.wait()
    deploying.cancel()
    await asyncio.gather(deploying, return_exceptions=True)
    monkeypatch.setattr(Jobs, "close", late_close)
    done = await lab.erase(lab.erasing(only_if_written=True))
    assert (lab.server.disk, len(done.evidence)) == (b"", 1)
