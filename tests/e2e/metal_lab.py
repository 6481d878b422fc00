"""A rack of two servers that are libvirt domains under emulation: one behind a Redfish BMC, one behind an IPMI BMC.

Both have an empty disk and one network card, on an isolated network whose DHCP is the guide's example for libvirt. What
the BMCs do to the domains is their own affair: `sushy-emulator` edits and starts them, and OpenIPMI's `ipmi_sim` calls
a chassis script that does so with `virsh`.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import bcrypt
import libvirt

from mulligan.activities.agent.on_machine.partitions import MIB, Partition, table
from mulligan.activities.drivers.libvirt.daemons import ensure_daemons
from tests.drivers.ipmi_parts import PASSWORD, ipmi_sim
from tests.drivers.ipmi_server import USER
from tests.e2e.deployment import Deployment, command
from tests.services.stack import until
from tests.services.temporal import free_port

RUN = uuid.uuid4().hex[:8]
NAME = f"mulligan-metal-{RUN}"
GUIDE = Path(__file__).parents[2] / "docs" / "bare-metal.md"
DISK_GIB = 4
MEMORY_MIB = 1536
EMULATOR = Path(sys.executable).with_name("sushy-emulator")

NETWORK = """
<network>
  <name>{name}</name><bridge name='{bridge}'/>
  <ip address='{subnet}.1' netmask='255.255.255.0'>{dhcp}</ip>{router}
</network>"""
ROUTER = "<ip family='ipv6' address='{prefix}::1' prefix='64'/>"
"""An IPv6 router: where none is advertised, iPXE looks for one for 16 seconds at every boot."""

DOMAIN = """
<domain type='qemu'>
  <name>{name}</name><uuid>{id}</uuid><memory unit='MiB'>{memory}</memory><vcpu>2</vcpu>
  <cpu mode='maximum'><feature policy='disable' name='la57'/></cpu>
  {told}<os {firmware}><type arch='x86_64' machine='q35'>hvm</type>{features}{boots}</os>
  <features><acpi/><apic/></features>
  <devices>
    <controller type='sata' index='0'/>
    <disk type='file' device='disk'>
      <driver name='qemu' type='raw' cache='unsafe' discard='unmap'/><source file='{disk}'/>
      <target dev='vda' bus='virtio'/><serial>{serial}</serial>
    </disk>
    <interface type='network'><source network='{network}'/><mac address='{mac}'/><model type='virtio'/>{rom}</interface>
    <rng model='virtio'><backend model='random'>/dev/urandom</backend></rng>
    <serial type='file'><source path='{console}' append='on'/></serial>
  </devices>
</domain>"""
UEFI = {
    "firmware": "firmware='efi'",
    "features": "<firmware><feature enabled='no' name='secure-boot'/></firmware>",
}
BIOS = {"firmware": "", "features": ""}
AS_ASKED = {"pxe": ("network", "hd"), "default": ("hd", "network")}
"""What a server boots from, by what its BMC's boot flags say; without flags as by default."""
BY_HABIT = dict.fromkeys(AS_ASKED, ("network", "hd"))
"""The same of one that always tries the network first."""

CHASSIS = """#!/bin/sh
# The chassis of a server that is a libvirt domain: what ipmi_sim calls to read and to change it. As with real ones, the
# order is taken at once and the power follows: ipmi_sim answers nobody while it waits for this.
cd "{folder}" || exit 1
domain=@domain@
shift
verb=$1
shift
is_on() { [ "$(virsh -q domstate "$domain")" = running ] && echo 1 || echo 0; }
switch() {
    [ "$(is_on)" = "$1" ] && return
    [ "$1" = 1 ] || { virsh -q destroy "$domain" >&2; return; }
    order=$(cat boot)
    [ -e "$order.xml" ] || order=default
    echo none >boot
    virsh -q define "$order.xml" >&2 && virsh -q start "$domain" >&2
}
case $verb in
get)
    for name in "$@"; do
        case $name in power) echo "power:$(is_on)" ;; *) echo "$name:$(cat "$name")" ;; esac
    done
    ;;
set)
    while [ $# -gt 1 ]; do
        echo "$1 $2" >>changes
        case $1 in
        power) (flock 9 && switch "$2") 9>lock >>errors 2>&1 </dev/null & ;;
        *) echo "$2" >"$1" ;;
        esac
        shift 2
    done
    ;;
esac 2>>errors
"""


def guide_blocks(language: str) -> list[str]:
    """The guide's blocks in a language, in their order."""
    return re.findall(rf"^```{language}\n(.*?)^```", GUIDE.read_text(), re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Network:
    """An isolated network; this host, and Mulligan's boot server on it, is its first address."""

    number: int
    boot_port: int

    @property
    def name(self) -> str:
        """Its name in libvirt."""
        return f"{NAME}-{self.number}" if self.number else NAME

    @property
    def bridge(self) -> str:
        """Its bridge on this host."""
        return f"mm{RUN}{self.number}"

    @property
    def subnet(self) -> str:
        """The first three parts of its addresses."""
        return f"10.{161 + int(RUN[:2], 16) % 40}.{(int(RUN[2:4], 16) + self.number) % 256}"

    @property
    def boot_url(self) -> str:
        """Where servers on it reach the boot server."""
        return f"http://{self.subnet}.1:{self.boot_port}"

    def here(self, told: str) -> str:
        """What the guide tells, with this network's addresses in place of the guide's."""
        return told.replace("10.0.0.", f"{self.subnet}.").replace(":7421", f":{self.boot_port}")

    def definition(self, dhcp: str) -> str:
        """For libvirt, with that DHCP or none."""
        return NETWORK.format(name=self.name, bridge=self.bridge, subnet=self.subnet, dhcp=dhcp, router=self.router)

    @property
    def prefix(self) -> str:
        """Of its IPv6 addresses, whose first is its router; 64 bits, written up to the two colons."""
        return f"fd{RUN[:2]}:{RUN[2:6]}:{self.number}"

    @property
    def router(self) -> str:
        """Its IPv6 router, for libvirt, which advertises it where it serves DHCP."""
        return ROUTER.format(prefix=self.prefix)


@dataclass(frozen=True)
class Server:
    """A server of the rack, as its owner knows it."""

    name: str
    mac: str
    disk: Path
    console: Path
    added_by: str
    """Its BMC's URL, as it is registered by."""

    @property
    def serial(self) -> str:
        """Its disk's serial number."""
        return f"LAB-{self.name}"

    def begins_with_zeros(self) -> bool:
        """Whether nothing is in the disk's first mebibyte."""
        return self.is_zeros(0, MIB)

    def is_zeros(self, start: int = 0, size: int = DISK_GIB << 30) -> bool:
        """Whether nothing is in this part of the disk, or in all of it. What was never written is not read."""
        with self.disk.open("rb") as file:
            at = start
            while at < start + size:
                try:
                    at = os.lseek(file.fileno(), at, os.SEEK_DATA)
                except OSError as error:
                    if error.errno != errno.ENXIO:  # no data follows
                        raise
                    return True
                piece = os.pread(file.fileno(), min(MIB, max(0, start + size - at)), at)
                if piece.count(0) != len(piece):
                    return False
                at += max(len(piece), 1)
        return True

    def partitions(self) -> tuple[Partition, ...]:
        """What its disk is divided into now."""
        return table(str(self.disk)).partitions

    def is_erased(self, were: tuple[Partition, ...], *, full: bool) -> bool:
        """Whether nothing is left of what an erase takes: everything, or the first and last mebibyte of the disk and of
        each of the partitions that there were."""
        if full:
            return self.is_zeros()
        ends = [(0, DISK_GIB << 30), *((each.start, each.size) for each in were)]
        return all(
            self.is_zeros(start, min(MIB, size)) and self.is_zeros(start + max(0, size - MIB), min(MIB, size))
            for start, size in ends
        )

    def said(self) -> str:
        """What came over its serial line since the beginning."""
        return self.console.read_text(errors="replace") if self.console.exists() else ""


class Rack:
    """The two servers, their network, and what gives them power."""

    def __init__(self, connection: libvirt.virConnect, boot_port: int) -> None:
        self.connection = connection
        self.folder = Path(tempfile.mkdtemp(prefix=f"{NAME}-"))
        self.folder.chmod(0o711)
        self.network = Network(0, boot_port)
        self.boot_url = self.network.boot_url

    def is_on(self, server: Server) -> bool:
        """Whether it has power."""
        return bool(self.connection.lookupByName(f"{NAME}-{server.name}").isActive())

    def has_medium(self, server: Server) -> bool:
        """Whether anything is in its virtual drives."""
        return "device='cdrom'" in self.connection.lookupByName(f"{NAME}-{server.name}").XMLDesc()

    def define(
        self, name: str, kind: dict[str, str], boots: tuple[str, ...], number: int, network: Network | None = None
    ) -> tuple[Server, str]:
        """A server with an empty disk, on the rack's network or another; and its definition's id."""
        disk, console = self.folder / f"{name}.raw", self.folder / f"{name}.console"
        with disk.open("wb") as file:
            file.truncate(DISK_GIB << 30)
        self.connection.storagePoolLookupByName(NAME).refresh()
        server = Server(name, f"52:54:00:{RUN[:2]}:{RUN[2:4]}:{number:02x}", disk, console, "")
        order = "".join(f"<boot dev='{each}'/>" for each in boots)
        identity = str(uuid.uuid5(uuid.NAMESPACE_OID, f"{RUN}-{name}"))
        xml = DOMAIN.format(
            name=f"{NAME}-{name}", id=identity, memory=MEMORY_MIB, boots=order, disk=disk, serial=server.serial,
            network=(network or self.network).name, mac=server.mac, console=console, **{"told": "", "rom": "", **kind},
        )  # fmt: skip
        self.connection.defineXML(xml)
        return server, identity

    @contextlib.contextmanager
    def surroundings(self) -> Iterator[None]:
        """The pool and the network; at the end nothing of the rack is left in libvirt."""
        pool = self.connection.storagePoolCreateXML(
            f"<pool type='dir'><name>{NAME}</name><target><path>{self.folder}</path></target></pool>"
        )
        dhcp = guide_blocks("xml")[0]
        network = self.connection.networkCreateXML(self.network.definition(self.network.here(dhcp)))
        try:
            yield
        finally:
            for domain in self.connection.listAllDomains():
                if domain.name().startswith(NAME):
                    if domain.isActive():
                        domain.destroy()
                    domain.undefineFlags(libvirt.VIR_DOMAIN_UNDEFINE_NVRAM)
            network.destroy()
            pool.destroy()
            shutil.rmtree(self.folder)

    @contextlib.contextmanager
    def redfish(self) -> Iterator[Server]:
        """A UEFI server with virtual media, behind `sushy-emulator`."""
        server, identity = self.define("redfish", UEFI, ("hd",), 1)
        folder, port = self.folder / "sushy", free_port()
        folder.mkdir(mode=0o700)
        (folder / "htpasswd").write_text(f"{USER}:{bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)).decode()}\n")
        (folder / "emulator.conf").write_text(
            f"SUSHY_EMULATOR_STORAGE_POOL = {NAME!r}\nSUSHY_EMULATOR_AUTH_FILE = {str(folder / 'htpasswd')!r}\n"
            f"SUSHY_EMULATOR_STATE_DIR = {str(folder)!r}\nSUSHY_EMULATOR_LISTEN_IP = '127.0.0.1'\n"
        )
        asked = [str(EMULATOR), "--config", str(folder / "emulator.conf"), "--port", str(port)]
        log = folder / "log"
        with log.open("wb") as out:
            process = subprocess.Popen(asked, stdout=out, stderr=out, cwd=folder)
        try:
            until(lambda: b"Running on" in log.read_bytes() or process.poll() is not None, what="the BMC's start")
            assert process.poll() is None, log.read_text()
            yield replace(server, added_by=f"redfish+http://127.0.0.1:{port}/redfish/v1/Systems/{identity}")
        finally:
            process.terminate()
            process.wait(20)

    @contextlib.contextmanager
    def ipmi(self) -> Iterator[Server]:
        """A BIOS server that boots from the network when it is asked to, behind `ipmi_sim`."""
        server, _ = self.define("ipmi", BIOS, AS_ASKED["default"], 2)
        with self.behind_ipmi(server, AS_ASKED) as managed:
            yield managed

    @contextlib.contextmanager
    def behind_ipmi(self, server: Server, orders: dict[str, tuple[str, ...]]) -> Iterator[Server]:
        """Give it a BMC: `ipmi_sim`, with the boot order by what the boot flags say."""
        folder = self.folder / f"sim-{server.name}"
        folder.mkdir(mode=0o700)
        domain = f"{NAME}-{server.name}"
        xml = self.connection.lookupByName(domain).XMLDesc()
        for name, order in orders.items():
            (folder / f"{name}.xml").write_text(_ordered(xml, order))
        with ipmi_sim(folder, chassis=CHASSIS.replace("@domain@", domain)) as sim:
            yield replace(server, added_by=f"ipmi://127.0.0.1:{sim.port}")


def _ordered(xml: str, order: tuple[str, ...]) -> str:
    """The definition with another boot order."""
    lines = [line for line in xml.splitlines() if "<boot dev=" not in line]
    end = next(number for number, line in enumerate(lines) if "</os>" in line)
    return "\n".join([*lines[:end], *(f"<boot dev='{each}'/>" for each in order), *lines[end:]])


@dataclass
class Lab:
    """A deployment beside a rack, and a key to log in with."""

    deployment: Deployment
    rack: Rack
    key: Path

    def ssh(self, login: str, address: str, *words: str) -> str:
        """Log in with the key and run a command."""
        options = ("-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "BatchMode=yes")
        return command("ssh", "-i", self.key, *options, "-q", f"{login}@{address}", *words)


Opening = Callable[[Rack], contextlib.AbstractContextManager[Network]]
"""What makes another network beside the rack's."""


@contextlib.contextmanager
def running_lab(directory: Path, *others: Opening) -> Iterator[Lab]:
    """The embedded stack beside a rack whose credential it knows, and reached from these other networks too. Images and
    agent are the test's to build."""
    ensure_daemons()
    connection = libvirt.open("qemu:///system")
    key, port = directory / "id_ed25519", free_port()
    command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "lab", "-f", key)
    rack = Rack(connection, port)
    with contextlib.ExitStack() as stack:
        stack.enter_context(rack.surroundings())
        networks = [rack.network, *(stack.enter_context(other(rack)) for other in others)]
        deployment = stack.enter_context(Deployment(directory))
        deployment.boot = ",".join([f"127.0.0.1:{port}", *(f"{network.subnet}.1:{port}" for network in networks)])
        deployment.state_dir.mkdir(mode=0o700, parents=True)
        credentials = deployment.state_dir / "credentials.yaml"
        credentials.touch(0o600)
        credentials.write_text(f'rack:\n  username: {USER}\n  password: "{PASSWORD}"\n')
        deployment.up()
        yield Lab(deployment, rack, key)
    connection.close()
