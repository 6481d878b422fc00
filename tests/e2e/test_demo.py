"""`make demo`, as the README has it: a real machine on this host, twice, and nothing left after its release."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from pathlib import Path

import libvirt
import pytest

from mulligan.activities.drivers.libvirt.bases import base_prefix
from mulligan.activities.drivers.libvirt.daemons import ensure_daemons
from tests.e2e.deployment import Deployment, command
from tests.services.temporal import free_port

TOP = Path(__file__).parents[2]

pytestmark = pytest.mark.timeout(600)


def make_demo(deployment: Deployment) -> str:
    """Run it in this checkout, against a state directory of the test's own; what it printed."""
    environment = {**os.environ, **deployment.environment}
    done = subprocess.run(
        ["make", "demo"], cwd=TOP, env=environment, capture_output=True, text=True, timeout=500, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def domains() -> list[str]:
    """The names of all domains of this host's libvirt."""
    connection = libvirt.open("qemu:///system")
    try:
        return [domain.name() for domain in connection.listAllDomains()]
    finally:
        connection.close()


def forget_base(digest: str) -> None:
    """Remove the image's base from the default pool: every build has a digest of its own, and bases are kept."""
    connection = libvirt.open("qemu:///system")
    try:
        pool = connection.storagePoolLookupByName("default")
        for volume in pool.listAllVolumes():
            if volume.name().startswith(base_prefix(digest)):
                volume.delete()
    finally:
        connection.close()


def gateway() -> str:
    """This host's address on libvirt's default network, which is started if it is not active."""
    ensure_daemons()
    connection = libvirt.open("qemu:///system")
    try:
        network = connection.networkLookupByName("default")
        if not network.isActive():
            network.create()
        found = re.search(r"<ip address='([0-9.]+)'", network.XMLDesc())
    finally:
        connection.close()
    assert found
    return found[1]


def test_make_demo_ends_with_a_machine_that_one_can_log_in_to(tmp_path: Path) -> None:
    """The printed ssh command works; a second run finds the machine; release leaves nothing of it."""
    with Deployment(tmp_path) as deployment:
        port = free_port()
        deployment.boot = f"127.0.0.1:{port},{gateway()}:{port}"
        said = make_demo(deployment)
        login = re.search(r"^ +(ssh -i .*)$", said, re.MULTILINE)
        assert login, said
        assert command(*shlex.split(login[1]), "hostname").strip() == "demo-1"
        again = make_demo(deployment)
        assert "joining its run, or finding it there" in again
        before = domains()
        digest = deployment.json("image", "show", "demo")["digest"]
        deployment.mulligan("machine", "release", "demo-1")
        forget_base(digest)
        assert len([name for name in domains() if "demo-1" in name]) < len(
            [name for name in before if "demo-1" in name]
        )
