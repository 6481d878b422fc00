"""One machine, two servers: what one try left on the first says nothing of the second, and changes nothing there.

Each provider counts its fences by itself, so the claims of a run's two tries may have the same one.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace

import pytest

from mulligan.activities import calls
from mulligan.activities.errors import Conflict, Unreachable
from mulligan.activities.values import Target
from tests.bootserver.agent_parts import DISK
from tests.drivers.bmc.machine import Machine
from tests.drivers.bmc.server import LyingBmc
from tests.metal.conftest import PATIENT, Lab
from tests.metal.played import PlayedServer

SILENT = replace(PATIENT, comes=0.3, silence=0.3)
RUN = "provision:shop:web-1"


@dataclass
class Second:
    """The server of the second try."""

    server: PlayedServer
    target: Target

    def deploying(self, lab: Lab) -> calls.DisksIn:
        """What the workflow asks for there."""
        return replace(lab.deploying(), target=self.target, try_number=2)

    def undoing(self, lab: Lab) -> calls.EraseIn:
        """How the workflow undoes it."""
        return replace(lab.erasing(only_if_written=True), target=self.target, workflow_id=RUN)


@contextlib.asynccontextmanager
async def second(lab: Lab, serial: str) -> AsyncIterator[Second]:
    """Another server, whose disk has this serial number, after the first was written and undone."""
    lab.server.disk_said = {**DISK, "serial": serial and "S-1"}
    lab.server.hardware = {"disks": [lab.server.disk_said]}
    await lab.deploy()
    await lab.erase(replace(lab.erasing(only_if_written=True), workflow_id=RUN))
    assert lab.server.disk == b""
    disk = {**DISK, "serial": serial, "wwn": ""}
    with LyingBmc(Machine("1")).listening() as bmc:
        server = PlayedServer(bmc, disk_said=disk, hardware={"disks": [disk]}, base=lab.server.base)
        playing = asyncio.create_task(server.run())
        try:
            yield Second(server, Target("srv-2", "default", f"{bmc.url}/redfish/v1/Systems/1", {}, "rack"))
        finally:
            playing.cancel()
            await asyncio.gather(playing, return_exceptions=True)


@pytest.mark.parametrize("serial", ["", "S-2"], ids=["no-serial-number", "serial-number"])
async def test_a_server_on_which_nothing_was_written_is_left_as_it_is(lab: Lab, serial: str) -> None:
    """The agent never came up there, so there was no permit: its undo erases nothing."""
    async with second(lab, serial) as there:
        there.server.disk, there.server.dead = b"what it had before", True
        with pytest.raises(Unreachable):
            await lab.deploy(there.deploying(lab), patience=SILENT)
        there.server.dead = False
        done = await lab.erase(there.undoing(lab))
        assert "nothing was written to its disks" in done.said
        assert (there.server.disk, there.server.asked) == (b"what it had before", [])


async def test_the_undo_of_one_server_does_not_tell_of_another(lab: Lab) -> None:
    """A try that ended before its deployment began: nobody knows of that server; it is switched off."""
    async with second(lab, "S-2") as there:
        with there.server.bmc.lock:
            there.server.bmc.machine.power = "On"
        with pytest.raises(Conflict, match="whether a disk of srv-2 was written for web-1 is not known"):
            await lab.erase(there.undoing(lab))
        assert not there.server.on
