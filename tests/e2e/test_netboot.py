"""What the guide says of DHCP is true: by each of its examples and each firmware, servers really boot from the network.

Two servers go the whole way, from an empty disk to a machine and back: one by UEFI's PXE with dnsmasq, one by UEFI's
HTTP boot in a libvirt network. Both try the network first at every boot: the machine comes up because the boot server
has sent them on to the local disk. The other pairs are shown by servers that nobody has registered, with a system on
their disk.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import partial

import pytest

from tests.agent.built import built_agent
from tests.e2e.deployment import command
from tests.e2e.metal_lab import BY_HABIT, DISK_GIB, MEMORY_MIB, NAME, Lab, Network, Server, guide_blocks, running_lab
from tests.e2e.netboot_lab import BIOS_PXE, UEFI_CARD, UEFI_HTTP, UEFI_PXE, Way, by_dnsmasq, by_libvirt, kind_of
from tests.services.stack import until

pytestmark = pytest.mark.timeout(1800)

RUN_SECONDS = 900
BOOT_SECONDS = 400
SENT_ON = "nothing to do here, booting the local disk"
AGENT = "mulligan: deploy agent, Linux"
BOOTP, DNSMASQ, LIBVIRT = 0, 1, 2
"""The networks' numbers."""

OTHERS = {
    "bootp": (BOOTP, [UEFI_CARD]),
    "dnsmasq": (DNSMASQ, [BIOS_PXE, UEFI_HTTP]),
    "libvirt": (LIBVIRT, [BIOS_PXE, UEFI_PXE]),
}
"""What neither goes the whole way here, nor as the BIOS server of `test_metal`."""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A deployment that is reached from all of the guide's networks, and has the agent and the demo image."""
    built = built_agent(tmp_path_factory)
    with running_lab(tmp_path_factory.mktemp("netboot"), by_dnsmasq, by_libvirt) as lab:
        built.lend(lab.deployment.state_dir)
        lab.deployment.mulligan("image", "build", "demo", seconds=RUN_SECONDS)
        yield lab


def plain(server: Server) -> str:
    """What came over its serial line, without what only moves the cursor."""
    return re.sub(r"\x1b\[[0-9;=?]*[A-Za-z]|[\r\n]", "", server.said())


def came_by(server: Server, way: Way, *then: str) -> bool:
    """Whether its firmware booted that way, and said all this after it, in this order."""
    return re.search(".*".join(map(re.escape, (*way.says, *then))), plain(server)) is not None


def goes_on_to_its_disk(server: Server, way: Way) -> None:
    """Wait until the boot server has sent it on, and what is on its disk has begun."""
    try:
        until(partial(came_by, server, way, SENT_ON, way.goes_on), BOOT_SECONDS, "its way to its disk")
    except AssertionError as late:
        raise AssertionError(f"{server.name}: {late}; its serial line: {plain(server)[-6000:]}") from None


@pytest.fixture
def server(request: pytest.FixtureRequest, lab: Lab) -> Iterator[tuple[Server, Network, Way]]:
    """A server behind an IPMI BMC that always tries the network first; registered by the name `srv-` and its way."""
    number, way = request.param
    network = Network(number, lab.rack.network.boot_port)
    made, _ = lab.rack.define(way.name, kind_of(way, lab.rack), BY_HABIT["default"], 10 + number, network)
    told = {"boot_url": network.boot_url, "macs": made.mac, "vcpu": "2", "memory_mib": str(MEMORY_MIB)}
    told |= {"disk_gib": str(DISK_GIB), "firmware": "uefi", "transfer": "zstd" if way is UEFI_HTTP else "raw"}
    settings = [word for name, value in told.items() for word in ("--set", f"{name}={value}")]
    with lab.rack.behind_ipmi(made, BY_HABIT) as managed:
        lab.deployment.mulligan(
            "provider", "add", f"srv-{way.name}", managed.added_by, "--credential", "rack", *settings
        )
        yield managed, network, way


def provisioned(lab: Lab, server: Server, way: Way, level: str) -> str:
    """Make a machine on the server, see that it came up by the network and its disk; its address."""
    name = f"web-{way.name}"
    asked = (name, "--image", "demo", "--provider", f"srv-{way.name}", "--ssh-key", f"{lab.key}.pub", "--disk", "2")
    lab.deployment.mulligan("machine", "provision", *asked, "--verify", level, seconds=RUN_SECONDS)
    assert came_by(server, way, AGENT, *way.says, SENT_ON, way.goes_on), plain(server)[-6000:]
    (told,) = lab.deployment.documents("machine", "show", name)
    machine = told.get("machine", told)
    assert machine["evidence"][-1]["level"] == f"VERIFY_LEVEL_{level.upper()}"
    assert not server.begins_with_zeros()
    return str(machine["addresses"][0])


def is_given_back(lab: Lab, way: Way, server: Server) -> None:
    """The power is off, and the provider can be had again."""
    assert not lab.rack.is_on(server)
    (told,) = lab.deployment.documents("provider", "show", f"srv-{way.name}")
    provider = told.get("provider", told)
    assert not [word for word in ("dirty", "quarantined", "claim_count") if provider.get(word)]


@pytest.mark.parametrize("server", [(DNSMASQ, UEFI_PXE)], indirect=True, ids=["dnsmasq-uefi"])
def test_by_uefi_and_pxe_from_an_empty_disk_to_ssh_and_back(lab: Lab, server: tuple[Server, Network, Way]) -> None:
    """The agent comes by TFTP and iPXE twice, to write and to erase; the machine answers in between."""
    made, network, way = server
    address = provisioned(lab, made, way, "service")
    assert address.startswith(f"{network.subnet}.")
    assert lab.ssh("root", address, "hostname").strip() == f"web-{way.name}"
    lab.deployment.mulligan("machine", "release", f"web-{way.name}", "--erase", "metadata", seconds=RUN_SECONDS)
    assert made.begins_with_zeros()
    is_given_back(lab, way, made)


@pytest.mark.parametrize("server", [(LIBVIRT, UEFI_HTTP)], indirect=True, ids=["libvirt-http"])
def test_by_uefi_http_boot_from_an_empty_disk_to_the_guest(lab: Lab, server: tuple[Server, Network, Way]) -> None:
    """The image goes to it compressed. Released without erasing, what was written stays."""
    made, network, way = server
    assert provisioned(lab, made, way, "guest").startswith(f"{network.subnet}.")
    assert "the image was sent compressed" in lab.deployment.mulligan(
        "run", "show", f"provision:default:web-{way.name}"
    )
    lab.deployment.mulligan("machine", "release", f"web-{way.name}", "--erase", "none", seconds=RUN_SECONDS)
    assert not made.begins_with_zeros()
    is_given_back(lab, way, made)


@pytest.mark.parametrize(("number", "ways"), OTHERS.values(), ids=list(OTHERS))
def test_servers_that_nobody_knows_go_on_to_their_disks(lab: Lab, number: int, ways: Sequence[Way]) -> None:
    """Their firmware loads iPXE, iPXE asks the boot server, and what then runs is the system on the disk."""
    (image,) = lab.deployment.documents("image", "list")
    network, servers = Network(number, lab.rack.network.boot_port), {}
    for position, way in enumerate(ways):
        name = f"other-{number}-{way.name}"
        made, _ = lab.rack.define(
            name, kind_of(way, lab.rack), BY_HABIT["default"], 20 + 10 * number + position, network
        )
        source = image["source"].removeprefix("file://")
        command("qemu-img", "convert", "-n", "-f", "qcow2", "-O", "raw", source, made.disk)
        servers[way] = made
    domains = [lab.rack.connection.lookupByName(f"{NAME}-{made.name}") for made in servers.values()]
    for domain in domains:
        domain.create()
    for way, made in servers.items():
        goes_on_to_its_disk(made, way)
    for domain in domains:
        domain.destroy()


def test_the_network_for_libvirt_says_what_dnsmasq_is_told() -> None:
    """Line for line, but for what libvirt has elements of its own for."""
    lines = [line for block in guide_blocks("ini") for line in block.splitlines() if not line.startswith("#")]
    own = ("dhcp-range=", "enable-tftp", "tftp-root=")
    told = re.findall("<dnsmasq:option value='(.*)'/>", guide_blocks("xml")[1])
    assert told == [line for line in lines if not line.startswith(own)]
