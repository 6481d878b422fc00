"""A deployment with this host's libvirt as its hypervisor: a pool, a network and a key of its own."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import libvirt

from mulligan.activities.drivers.libvirt.daemons import ensure_daemons
from tests.e2e.deployment import Deployment, command
from tests.services.temporal import free_port

RUN = uuid.uuid4().hex[:8]
NAME = f"mulligan-e2e-{RUN}"
SUBNET = f"10.{241 + int(RUN[:2], 16) % 10}.{int(RUN[2:4], 16)}"


@dataclass
class Lab:
    """A deployment with this host as its hypervisor, and a key to log in with."""

    deployment: Deployment
    connection: libvirt.virConnect
    key: Path

    def left(self) -> list[str]:
        """Every domain and volume in libvirt that belongs to a machine of this run."""
        pool = self.connection.storagePoolLookupByName(NAME)
        pool.refresh()
        domains = [d.name() for d in self.connection.listAllDomains() if self.is_ours(d)]
        return domains + [v.name() for v in pool.listAllVolumes() if "base" not in v.name()]

    def is_ours(self, domain: libvirt.virDomain) -> bool:
        """Whether a domain uses this run's pool."""
        with contextlib.suppress(libvirt.libvirtError):  # gone since it was listed
            return NAME in domain.XMLDesc()
        return False

    def ssh(self, login: str, address: str, *words: str) -> str:
        """Log in with the key and run a command."""
        options = ("-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "BatchMode=yes")
        return command("ssh", "-i", self.key, *options, "-q", f"{login}@{address}", *words)

    def provision(self, name: str, image: str, *words: str) -> list[str]:
        """The command line that asks for a machine with a service, and tells it as JSON."""
        return ["machine", "provision", name, "--image", image, "--verify", "service", "--ssh-key",
                f"{self.key}.pub", *words, "--output", "json"]  # fmt: skip


@contextmanager
def surroundings(connection: libvirt.virConnect) -> Iterator[None]:
    """A pool and a network of this run's own."""
    folder = Path(tempfile.mkdtemp(prefix=f"{NAME}-"))
    folder.chmod(0o711)
    pool = connection.storagePoolCreateXML(
        f"<pool type='dir'><name>{NAME}</name><target><path>{folder}</path></target></pool>"
    )
    network = connection.networkCreateXML(
        f"<network><name>{NAME}</name><bridge name='me{RUN}'/><ip address='{SUBNET}.1' netmask='255.255.255.0'>"
        f"<dhcp><range start='{SUBNET}.2' end='{SUBNET}.99'/></dhcp></ip></network>"
    )
    try:
        yield
    finally:
        network.destroy()
        pool.destroy()
        shutil.rmtree(folder)


@contextmanager
def running_lab(directory: Path) -> Iterator[Lab]:
    """The embedded stack, with this host registered as a hypervisor and the demo image built."""
    ensure_daemons()
    connection = libvirt.open("qemu:///system")
    key = directory / "id_ed25519"
    command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "lab", "-f", key)
    with surroundings(connection):
        try:
            with Deployment(directory) as deployment:
                deployment.boot = f"127.0.0.1:{(port := free_port())},{SUBNET}.1:{port}"
                deployment.up()
                settings = ["--set", f"pool={NAME}", "--set", f"network={NAME}"]
                deployment.mulligan("provider", "add", "this-host", "qemu:///system", *settings, seconds=180)
                deployment.mulligan("image", "build", "demo", seconds=300)
                yield Lab(deployment, connection, key)
        finally:
            for domain in connection.listAllDomains():
                if NAME in domain.XMLDesc():
                    domain.destroy()
                    domain.undefine()
    connection.close()
