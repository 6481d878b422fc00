"""Deploying: a server behind a BMC boots the agent, which writes the image; and all that may go wrong on the way."""

from __future__ import annotations

import asyncio
import hashlib
import subprocess
from dataclasses import replace
from typing import Any

import pytest

from mulligan.activities.bmc import SITE
from mulligan.activities.bootserver.job import Job, JobKind, Seen, job_id
from mulligan.activities.deploy import DeployActivities, evidence_of
from mulligan.activities.errors import Busy, HostNotReady, ImageRejected, Unreachable
from mulligan.activities.threads import run_blocking
from mulligan.activities.values import Identity, ImageFormat, RootDisk
from tests.bootserver.agent_parts import DISK, written
from tests.metal.conftest import CONTENT, IMAGE, MARK, PATIENT, Lab, an_environment, until
from tests.metal.played import MAC

JOB = job_id("srv-1", MARK, JobKind.DEPLOY)


@pytest.mark.parametrize(
    "settings",
    [{}, {"boot_from": "network", "macs": MAC}],
    ids=["virtual-media", "network"],
)
async def test_an_image_comes_onto_the_disk(lab: Lab, settings: dict[str, str]) -> None:
    """By either way of booting; it is said which disk, and the server is left off with nothing in its BMC."""
    done = await lab.deploy(lab.deploying(settings=settings))
    assert lab.server.disk == CONTENT
    assert b"cidata" in lab.server.seed
    assert lab.server.boots == ["agent"]
    assert done.disk == "ST4000, serial S-1, 4000 GB (/dev/sda)"
    told = " ".join(each.observed for each in done.evidence)
    assert IMAGE.digest in told and "Boot0007" in told
    assert ("of the initrd" if settings else "of the medium") in told or "of the script" in told
    assert lab.is_at_rest()
    job = lab.site().jobs.find(JOB)
    assert job is not None and job.closed
    assert list(lab.directory.rglob("*.seed")) == []


async def test_an_image_is_sent_compressed_where_its_server_is_far(lab: Lab) -> None:
    """By the provider's setting: the bytes that went are told, and those that were written are the image's."""
    done = await lab.deploy(lab.deploying(settings={"transfer": "zstd"}))
    assert lab.server.disk == CONTENT
    (asked,) = lab.server.asked
    assert (asked["image"]["compression"], asked["image"]["disk_bytes"]) == ("zstd", len(CONTENT))
    told = " ".join(each.observed for each in done.evidence)
    assert f"sent compressed: {asked['image']['bytes']} bytes in place of {len(CONTENT)}" in told


async def test_it_is_done_once(lab: Lab) -> None:
    """An attempt whose answer was lost is made again: nothing is booted, and the answer is the same."""
    first = await lab.deploy()
    acts = len(lab.bmc.acts())
    again = await lab.deploy()
    assert (again.said, again.disk) == (first.said, first.disk)
    assert lab.server.boots == ["agent"]
    assert len(lab.bmc.acts()) == acts


async def test_what_is_written_is_told(lab: Lab) -> None:
    """With bytes, so that people see percent."""
    lab.server.go_on.clear()
    said: list[dict[str, Any]] = []
    site = lab.site()
    environment = an_environment(said.append)
    running = asyncio.create_task(environment.run(DeployActivities(site, PATIENT).deploy, lab.deploying()))
    await until(lambda: any(each["done"] == len(CONTENT) // 2 for each in said))
    lab.server.go_on.set()
    await running
    await site.kept.close()
    assert {each["total"] for each in said if each["done"] == len(CONTENT) // 2} == {len(CONTENT)}


async def test_a_converted_image_is_written_raw(lab: Lab) -> None:
    """The agent gets the disk that a qcow2 image describes."""
    path = lab.directory / "demo.qcow2"
    command = ["qemu-img", "convert", "-f", "raw", "-O", "qcow2", "-c", lab.directory / "demo.img", path]
    await run_blocking(subprocess.run, command, check=True, timeout=60)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    image = replace(IMAGE, source=path.as_uri(), digest=f"sha256:{digest}", format=ImageFormat.QCOW2)
    await lab.deploy(lab.deploying(image=image))
    assert lab.server.disk == CONTENT


async def test_a_worker_that_was_killed_goes_on_where_it_was(lab: Lab) -> None:
    """The agent works on meanwhile, and is not booted again: the next worker finds its job, on the same port."""
    lab.server.go_on.clear()
    first = asyncio.create_task(lab.deploy())
    async with asyncio.timeout(30):
        await lab.server.half.wait()
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    await lab.stop_listening()
    await lab.listen()
    lab.server.go_on.set()
    done = await lab.deploy()
    assert (lab.server.boots, lab.server.disk == CONTENT) == (["agent"], True)
    assert done.disk.startswith("ST4000")


async def test_an_agent_that_never_comes_is_named_and_booted_again(lab: Lab) -> None:
    """It is said what was awaited and what was seen; the next attempt boots anew, with another token."""
    lab.server.dead = True
    with pytest.raises(Unreachable, match=r"did not report in the time given for it; switched on .* nothing was fet"):
        await lab.deploy(patience=replace(PATIENT, comes=0.3, silence=0.3))
    lab.server.dead = False
    await lab.deploy()
    assert lab.server.boots == ["nothing", "agent"]
    job = lab.site().jobs.find(JOB)
    assert job is not None and job.attempt == 2


async def test_an_agent_that_falls_silent_is_booted_again(lab: Lab) -> None:
    """It is said how far it was; the disk counts as changed."""
    lab.server.silent_after = "writing"
    with pytest.raises(Unreachable, match=r"fell silent .* it last reported writing 50 %"):
        await lab.deploy(patience=replace(PATIENT, silence=0.5))
    assert written(lab.site().jobs, JOB)
    lab.server.silent_after = ""
    await lab.deploy()
    assert lab.server.disk == CONTENT


@pytest.mark.parametrize(
    ("name", "error", "blame"),
    [("NO_DISK", HostNotReady, None), ("IMAGE_MISMATCH", ImageRejected, "image")],
    ids=["the-server", "the-image"],
)
async def test_an_agent_that_fails_says_why(
    lab: Lab, name: str, error: type[HostNotReady | ImageRejected], blame: str | None
) -> None:
    """The server is to blame, unless the image is; another attempt begins anew."""
    lab.server.fails = {"name": name, "message": "no disk can take the image"}
    with pytest.raises(error, match="srv-1, and says: no disk can take the image") as raised:
        await lab.deploy()
    assert raised.value.metadata.get("blame") == blame
    lab.server.fails = None
    await lab.deploy()


async def test_a_disk_that_was_not_asked_for_is_not_written(lab: Lab) -> None:
    """Even when the agent chose it: the permit is refused, and nothing is written."""
    with pytest.raises(HostNotReady, match="its serial is S-1, and OTHER was asked for"):
        await lab.deploy(lab.deploying(root_disk=RootDisk(serial="OTHER")))
    assert lab.server.disk == b""
    assert not written(lab.site().jobs, JOB)


async def test_another_server_that_answers_is_left_as_it_is(lab: Lab) -> None:
    """One that boots by this one's network card, say: the step ends at once, and names both; neither is written, and
    an operator who knows better has the last word."""
    lab.server.hardware = {"serial": "XYZ9876", "board_serial": "", "disks": []}
    lab.bmc.machine.serial = "ABC1234"
    asked = lab.deploying()
    known = replace(asked, target=replace(asked.target, identity=Identity("ABC1234")))
    with pytest.raises(HostNotReady, match=r"XYZ9876, and the BMC says .* has ABC1234.*check_identity=off"):
        await lab.deploy(known)
    assert lab.server.disk == b""
    assert not written(lab.site().jobs, JOB)
    job = lab.site().jobs.find(JOB)
    assert job is not None and (job.boot, job.provider) == (None, "srv-1")
    await until(lambda: not lab.server.on)
    settings = {**asked.target.settings, "check_identity": "off"}
    await lab.deploy(replace(known, target=replace(known.target, settings=settings)))
    assert lab.server.disk == CONTENT


async def test_another_server_that_answers_is_not_erased(lab: Lab) -> None:
    """Its release is told why, and can be asked for again."""
    await lab.deploy()
    lab.server.hardware = {"serial": "XYZ9876", "board_serial": "", "disks": []}
    lab.bmc.machine.serial = "ABC1234"
    asked = lab.erasing()
    known = replace(asked, target=replace(asked.target, identity=Identity("ABC1234")))
    with pytest.raises(HostNotReady, match="XYZ9876, and the BMC says that the server has ABC1234"):
        await lab.erase(known)
    assert lab.server.disk == CONTENT
    lab.server.hardware = {"serial": "ABC1234", "disks": [DISK]}
    await lab.erase(known)
    assert lab.server.disk == b""


async def test_a_bmc_that_forgets_the_override_boots_nothing(lab: Lab) -> None:
    """What it says it will boot is not what it was asked for: the server stays off, and it is asked again."""
    lab.bmc.lies.forgets_override = 1
    with pytest.raises(Busy, match="srv-1: the BMC was asked for one boot from virtual-media"):
        await lab.deploy()
    assert lab.server.boots == []
    await lab.deploy()
    assert lab.server.boots == ["agent"]


async def test_an_agent_that_hears_no_orders_is_cut_off(lab: Lab) -> None:
    """After the seconds that it has for it."""
    lab.server.hears_orders = False
    await lab.deploy(patience=replace(PATIENT, order_seconds=0.3))
    assert lab.is_at_rest()


async def test_without_an_agent_nothing_is_asked_of_the_bmc(lab: Lab) -> None:
    """It is said how to build it, and no server is blamed."""
    (lab.directory / "agent" / "manifest.json").unlink()
    with pytest.raises(HostNotReady, match="mulligan agent build") as raised:
        await lab.deploy()
    assert raised.value.metadata["blame"] == SITE
    assert lab.bmc.acts() == []
    assert not written(lab.site().jobs, JOB)


async def test_without_network_cards_there_is_no_network_boot(lab: Lab) -> None:
    """It is said which setting is missing."""
    with pytest.raises(HostNotReady, match="macs=MAC"):
        await lab.deploy(lab.deploying(settings={"boot_from": "network"}))
    assert lab.bmc.acts() == []


def test_what_a_bios_starts_first_is_told_in_full() -> None:
    """The evidence names the disk, and what to do."""
    told = "the firmware keeps no boot entries that can be set from here; its BIOS starts /dev/sdb (ATA MODEL, "
    told += "SERIAL-NUMBER-20, 18000207937536 bytes) first: put the written disk first in its boot order"
    job = Job("j", JobKind.DEPLOY, "m", "w", "r", "x", result={"boot_entry": told})
    assert told in evidence_of(job, Seen())[-1].observed
