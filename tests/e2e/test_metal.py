"""Servers behind BMCs, from power off and an empty disk to a machine that is logged in to, and back: all for real.

The domains are emulated, the BMCs are other people's (`sushy-emulator`, OpenIPMI), the commands are those of
docs/bare-metal.md: the agent is built, booted from virtual media or the network, writes a whole Debian to the disk, and
erases it.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mulligan.activities.agent.on_machine.partitions import Partition
from tests.e2e.metal_lab import GUIDE, Lab, Server, running_lab
from tests.e2e.test_operators_guide import Typed, typed
from tests.services.stack import MULLIGAN

pytestmark = pytest.mark.timeout(3600)

COMMAND_SECONDS = 1700.0
SECTIONS = {"redfish": "A server with Redfish", "ipmi": "A server with IPMI"}


def section(title: str) -> list[Typed]:
    """The commands below a heading of the guide."""
    lines = GUIDE.read_text().splitlines()
    first = lines.index(f"## {title}") + 1
    last = next((n for n, line in enumerate(lines[first:], first) if line.startswith("## ")), len(lines))
    found = [each for each in typed(GUIDE) if first < each.line <= last]
    assert found, title
    return found


class Reader:
    """Somebody who types what the guide says, on the host of a lab."""

    def __init__(self, lab: Lab, home: Path) -> None:
        self.lab = lab
        programs, ssh = home / "bin", home / ".ssh"
        programs.mkdir(parents=True)
        ssh.mkdir()
        shutil.copy(f"{lab.key}.pub", ssh / "id_ed25519.pub")
        mulligan = programs / "mulligan"
        mulligan.write_text(f'#!/bin/sh\nexec {" ".join(MULLIGAN)} "$@"\n')
        mulligan.chmod(0o755)
        path = f"{programs}:{os.environ['PATH']}"
        self._environment = {**lab.deployment.environment, "HOME": str(home), "PATH": path}

    def types(self, each: Typed, instead: dict[str, str], server: Server | None = None) -> None:
        """Type one command, with the lab's own addresses; it must do and say what the guide shows."""
        command = each.command
        for there, here in instead.items():
            command = command.replace(there, here)
        done = subprocess.run(
            ["bash", "-c", command], env=self._environment, capture_output=True, text=True, timeout=COMMAND_SECONDS,
            check=False,
        )  # fmt: skip
        said = done.stdout + done.stderr
        serial = f"\nits serial line: {server.said()[-3000:]}" if server is not None else ""
        assert done.returncode == each.code, f"{command}\nended with {done.returncode} and said\n{said[-6000:]}{serial}"
        assert not (missing := each.missing(said)), f"{command}\ndid not say {missing!r} but\n{said[-6000:]}"


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    """An operator who has done what is to be done once per site."""
    with running_lab(tmp_path_factory.mktemp("metal")) as lab:
        operator = Reader(lab, tmp_path_factory.mktemp("home"))
        for each in section("Once per site"):
            operator.types(each, {})
        yield operator


@pytest.fixture(params=list(SECTIONS))
def server(request: pytest.FixtureRequest, reader: Reader) -> Iterator[Server]:
    """A server that nobody has registered yet."""
    with getattr(reader.lab.rack, request.param)() as made:
        yield made


def shown(lab: Lab, *words: str) -> dict[str, Any]:
    """What `mulligan NOUN show NAME` says."""
    (told,) = lab.deployment.documents(*words)
    found: dict[str, Any] = told.get(words[0], told)
    return found


def is_up(lab: Lab, server: Server, name: str) -> None:
    """The machine is its user's, every step has its evidence, and the BMC holds nothing of the run."""
    machine = shown(lab, "machine", "show", name)
    assert machine["evidence"][-1]["level"] == "VERIFY_LEVEL_SERVICE"
    (disk,) = [each["observed"] for each in machine["evidence"] if each["source"] == "disk"]
    assert f"serial {server.serial}, " in disk and disk.endswith("which was written by this run")
    login, address = machine["login"], machine["addresses"][0]
    assert lab.ssh(login, address, "hostname").strip() == name
    assert lab.ssh(login, address, "cat", "/etc/debian_version").startswith("12")
    assert lab.ssh(login, address, "cloud-init", "status").split() == ["status:", "done"]
    root = int(lab.ssh(login, address, "df", "--block-size=1", "--output=size", "/").split()[-1])
    assert 0.85 * server.disk.stat().st_size < root < server.disk.stat().st_size
    assert not server.begins_with_zeros()
    assert not lab.rack.has_medium(server)
    told = lab.deployment.mulligan("run", "show", f"provision:default:{name}")
    assert server.serial in told
    if server.name == "redfish":  # IPMI's GUID need not be the SMBIOS's, and here it is not
        assert is_known_by_its_firmware(lab, machine["provider"], machine["id"])
    assert ("the firmware boots partition" in told) == (server.name == "redfish")  # the other one is started by BIOS


def is_known_by_its_firmware(lab: Lab, provider: str, machine: str) -> bool:
    """Whether the agent's firmware told it the UUID that the server's BMC tells: one that differs is given no disk."""
    (jobs,) = (lab.deployment.state_dir / "drivers" / "jobs").glob(f"{machine}-*-deploy.seen.json")
    told = str(json.loads(jobs.read_text())["hardware"]["uuid"])
    return told.lower() == str(shown(lab, "provider", "show", provider)["facts"]["uuid"]).lower()


def is_clean(lab: Lab, server: Server, provider: str, were: tuple[Partition, ...], *, full: bool) -> None:
    """Of the disk is gone what was to be erased, the power is off, and the provider is to be had again."""
    assert server.is_erased(were, full=full) and not server.partitions()
    assert not lab.rack.is_on(server)
    assert not lab.rack.has_medium(server)
    told = shown(lab, "provider", "show", provider)
    assert not [word for word in ("dirty", "quarantine", "claim_count") if told.get(word)]


def test_a_server_goes_from_an_empty_disk_to_ssh_and_back_as_the_guide_says(reader: Reader, server: Server) -> None:
    """Each command of its section, in order; after those that change something the server itself is looked at."""
    lab, added = reader.lab, server.added_by
    assert server.is_zeros() and not lab.rack.is_on(server)
    instead = {"redfish://bmc-7/redfish/v1/Systems/1": added, "ipmi://bmc-8": added}
    instead |= {"http://10.0.0.1:7421": lab.rack.boot_url, "52:54:00:00:00:08": server.mac}
    for each in section(SECTIONS[server.name]):
        words, were = each.command.split(), server.partitions()
        reader.types(each, instead, server)
        if words[1:3] == ["machine", "provision"]:
            is_up(lab, server, words[3])
        if words[1:3] == ["machine", "release"]:
            assert len(were) > 1  # those of the image, and the seed's
            is_clean(lab, server, words[3].replace("db", "srv"), were, full="full" in words)
