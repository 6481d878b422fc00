"""The agent's way to the boot server, in namespaces: with the programs of its image, a DHCP server, and routers."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mulligan.activities.agent.on_machine.network import CLIENT
from tests.agent.built import Built
from tests.agent.test_agent_image import unpacked

LEFT_OUT = ("lib/modules", "lib/firmware")
HELD = (
    "mount -t proc proc {0}/proc && mount -t sysfs sysfs {0}/sys && ip link set lo up && echo up && exec sleep infinity"
)
PROGRAM = """\
import os, pathlib, signal, subprocess, time
from agent import home, network
from agent.arguments import Arguments
for card in os.environ["CARDS"].split():
    found = pathlib.Path("/root/class/net") / card
    (found / "device").mkdir(parents=True)
    (found / "carrier").write_text("1")
    (found / "address").write_text(pathlib.Path(f"/sys/class/net/{card}/address").read_text())
arguments = Arguments(os.environ["URL"], vlan=os.environ.get("VLAN", ""))
way = network.reach(arguments, pathlib.Path("/root"))
print("reached:", way, flush=True)
time.sleep(float(os.environ.get("WAIT", "0")))
subprocess.run(os.environ.get("THEN", "true").split(), check=True)
home.TIMEOUT_SECONDS = 5
door = home.Home(arguments.url, print, way.card)
try:
    print("told:", door._json("GET", "configuration"), flush=True)
except home.Away as away:
    print("away:", away, flush=True)
for words in ("ip route", "ip -6 route", "ip -o link"):
    print(subprocess.run(words.split(), capture_output=True, text=True).stdout, flush=True)
for children in pathlib.Path("/proc/self/task").glob("*/children"):
    for child in children.read_text().split():
        os.kill(int(child), signal.SIGKILL)
"""
ROUTER = """\
import ipaddress, socket, struct, sys, time
card, prefix, preference = sys.argv[1], sys.argv[2], int(sys.argv[3])
line = socket.socket(socket.AF_INET6, socket.SOCK_RAW, 58)
index, kind = socket.if_nametoindex(card), socket.IPPROTO_IPV6
line.setsockopt(kind, socket.IPV6_MULTICAST_HOPS, 255)
line.setsockopt(kind, socket.IPV6_MULTICAST_IF, index)
head = struct.pack("!BBHBBHII", 134, 0, 0, 64, preference, 1800, 0, 0)
told = struct.pack("!BBBBIII", 3, 4, 64, 0xC0, 86400, 14400, 0) + ipaddress.ip_address(prefix).packed
while True:
    line.sendto(head + told, ("ff02::1", 0, 0, index))
    time.sleep(1)
"""
"""Tells all that it is their router, as RFC 4861 says, with a preference (RFC 4191: 8 is high)."""


class Lab:
    """Namespaces by their names; what runs in them ends with the test."""

    def __init__(self, folder: Path, root: Path) -> None:
        self._folder, self._root = folder, root
        self._held: dict[str, subprocess.Popen[str]] = {}
        self._first: dict[str, str] = {}
        """The process of each with which all others of it end."""
        self._started: list[subprocess.Popen[bytes]] = []

    def add(self, *names: str) -> None:
        """Make namespaces, each without any card."""
        for name in names:
            words = ["unshare", "--net", "--mount", "--pid", "--fork", "sh", "-c", HELD.format(self._root)]
            holder = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, start_new_session=True)
            self._held[name] = holder
            assert holder.stdout is not None and holder.stdout.readline() == "up\n"
            self._first[name] = Path(f"/proc/{holder.pid}/task/{holder.pid}/children").read_text().strip()

    def wire(self, name: str, card: str, other: str, other_card: str) -> None:
        """A cable from one to another."""
        ends = ("veth", "peer", "name", other_card, "netns", self._first[other])
        words = ["ip", "link", "add", card, "type", *ends]
        subprocess.run(["nsenter", "-t", self._first[name], "-n", *words], check=True)
        self.run(other, "ip", "link", "set", other_card, "up")

    def run(self, name: str, *words: str | Path, **environment: str) -> str:
        """What a program says there."""
        command, variables = self._within(name, *words), os.environ | environment
        done = subprocess.run(command, capture_output=True, text=True, env=variables, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def start(self, name: str, *words: str | Path) -> None:
        """Have a program run there."""
        quiet = subprocess.DEVNULL
        self._started.append(
            subprocess.Popen(self._within(name, *words), stdout=quiet, stderr=quiet, start_new_session=True)
        )

    def serve(self, name: str, address: str) -> None:
        """A boot server, as far as it takes."""
        files = self._folder / "www"
        (files / "v1/agent/t").mkdir(parents=True, exist_ok=True)
        (files / "healthz").write_text("ok\n")
        (files / "v1/agent/t/configuration").write_text('{"kind": "found"}')
        self.start(name, sys.executable, "-m", "http.server", "--bind", address, "--directory", files, "7421")

    def dhcp(self, name: str, card: str, *options: str) -> None:
        """A DHCP server by that card."""
        leases = self._folder / f"leases-{card}"
        fixed = (
            "--no-daemon",
            "--no-ping",
            "--port=0",
            "--user=root",
            f"--interface={card}",
            f"--dhcp-leasefile={leases}",
        )
        self.start(name, "dnsmasq", "--conf-file=/dev/null", "--bind-interfaces", *fixed, *options)

    def agent(self, name: str, cards: str, url: str, **environment: str) -> str:
        """What the agent's program says of its network."""
        words = ("chroot", self._root, "/bin/busybox", "timeout", "50", "python3", "-E", "-s", "-c", PROGRAM)
        return self.run(name, *words, CARDS=cards, URL=url, PATH="/usr/sbin:/usr/bin:/sbin:/bin", **environment)

    def end(self) -> None:
        """End all that was started."""
        for process in (*self._started, *self._held.values()):
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def _within(self, name: str, *words: str | Path) -> list[str]:
        return ["nsenter", "-t", self._first[name], "-n", "-m", "-p", *map(str, words)]


@pytest.fixture(scope="module")
def root(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The agent's root file system, without drivers."""
    root = tmp_path_factory.mktemp("root")
    for name, (mode, content) in unpacked(built.image.initrd).items():
        path = root / name
        if name.startswith(LEFT_OUT):
            continue
        if mode & 0o170000 == 0o040000:
            path.mkdir(parents=True, exist_ok=True)
        elif mode & 0o170000 == 0o120000:
            path.symlink_to(content.decode())
        else:
            path.write_bytes(content)
            path.chmod(mode & 0o777)
    (root / "dev/null").touch()
    return root


@pytest.fixture
def lab(root: Path, tmp_path: Path) -> Iterator[Lab]:
    """Namespaces, which are gone after the test."""
    for left in ("root/class", "run/resolvers"):
        shutil.rmtree(root / left, ignore_errors=True)
    lab = Lab(tmp_path, root)
    try:
        yield lab
    finally:
        lab.end()


@pytest.mark.parametrize("option", ["121", "249"])
def test_the_routes_and_the_mtu_that_dhcp_tells_are_used(lab: Lab, option: str) -> None:
    """Only a classless static route leads to the boot server; the router that is told besides counts no more."""
    lab.add("agent", "router")
    lab.wire("agent", "eth0", "router", "r0")
    lab.run("router", "ip", "address", "add", "10.5.0.1/24", "dev", "r0")
    lab.run("router", "ip", "address", "add", "10.7.0.1/32", "dev", "lo")
    lab.serve("router", "10.7.0.1")
    route = f"{option},10.7.0.0/16,10.5.0.1,10.8.0.0/16,0.0.0.0"
    options = ("--dhcp-option-force=option:router,10.5.0.9", "--dhcp-option=option:mtu,1400")
    lab.dhcp("router", "r0", "--dhcp-range=10.5.0.20,10.5.0.30", f"--dhcp-option={route}", *options)
    said = lab.agent("agent", "eth0", "http://10.7.0.1:7421/v1/agent/t")
    assert "told: {'kind': 'found'}" in said
    assert "10.7.0.0/16 via 10.5.0.1 dev eth0" in said and "10.8.0.0/16 dev eth0" in said
    assert "default" not in said
    assert " mtu 1400 " in said


def test_a_router_beyond_an_address_that_is_alone_is_used(lab: Lab) -> None:
    """As hosters give them: a netmask of all ones, and a gateway that is in no network of the card."""
    lab.add("agent", "router")
    lab.wire("agent", "eth0", "router", "r0")
    for words in ("address add 10.5.0.1/24 dev r0", "address add 10.9.9.1/32 dev lo", "address add 10.7.0.1/32 dev lo"):
        lab.run("router", "ip", *words.split())
    lab.serve("router", "10.7.0.1")
    options = ("--dhcp-option-force=option:router,10.9.9.1", "--dhcp-option-force=option:netmask,255.255.255.255")
    lab.dhcp("router", "r0", "--dhcp-range=10.5.0.20,10.5.0.30", *options)
    said = lab.agent("agent", "eth0", "http://10.7.0.1:7421/v1/agent/t")
    assert "told: {'kind': 'found'}" in said
    assert "default via 10.9.9.1 dev eth0" in said


def test_dhcp_is_asked_for_all_that_is_used() -> None:
    """What a client does not ask for, many servers do not tell."""
    assert [word for word in CLIENT if "routes" in word or word == "mtu"] == ["mtu", "staticroutes", "msstaticroutes"]


def test_a_router_of_another_card_that_is_preferred_is_not_used(lab: Lab, tmp_path: Path) -> None:
    """It goes on telling, by IPv6, that it leads everywhere."""
    lab.add("agent", "nowhere", "leads")
    lab.wire("agent", "eth0", "nowhere", "r0")
    lab.wire("agent", "eth1", "leads", "r1")
    router = tmp_path / "router.py"
    router.write_text(ROUTER)
    for name, card, prefix, preference in (
        ("nowhere", "r0", "2001:db8:a::", "8"),
        ("leads", "r1", "2001:db8:b::", "0"),
    ):
        lab.run(name, "ip", "address", "add", f"{prefix}1/64", "dev", card, "nodad")
        lab.run(name, "sysctl", "-qw", "net.ipv6.conf.all.forwarding=1")
        lab.start(name, sys.executable, router, card, prefix, preference)
    lab.run("leads", "ip", "address", "add", "2001:db8:f::2/128", "dev", "lo")
    lab.serve("leads", "2001:db8:f::2")
    said = lab.agent("agent", "eth0 eth1", "http://[2001:db8:f::2]:7421/v1/agent/t", WAIT="3")
    assert "by eth1" in said and "told: {'kind': 'found'}" in said
    assert "default via" in said and "dev eth0" not in said


def test_all_is_asked_by_the_card_that_was_found(lab: Lab) -> None:
    """Whatever route another one comes to."""
    lab.add("agent", "nowhere", "leads")
    lab.wire("agent", "eth0", "nowhere", "r0")
    lab.wire("agent", "eth1", "leads", "r1")
    lab.run("leads", "ip", "address", "add", "10.5.0.1/24", "dev", "r1")
    lab.serve("leads", "10.5.0.1")
    lab.dhcp("leads", "r1", "--dhcp-range=10.5.0.20,10.5.0.30")
    said = lab.agent("agent", "eth0 eth1", "http://10.5.0.1:7421/v1/agent/t", THEN="ip route add 10.5.0.1 dev eth0")
    assert "10.5.0.1 dev eth0" in said
    assert "by eth1" in said and "told: {'kind': 'found'}" in said
