"""Live images on servers behind BMCs, for real: booted, heard from, booted again, released; their disks are as before.

The live system is Debian's kernel with a small initrd, made of the deploy agent's: it asks DHCP for an address, fetches
its seed from where its kernel's arguments say, or from a CD, as cloud-init does, and calls home as the seed says.
"""

from __future__ import annotations

from collections.abc import Iterator

import libvirt
import pytest

from mulligan.activities.agent.cpio import newc
from tests.agent.built import Built, built_agent
from tests.e2e.metal_lab import NAME, Lab, Server, running_lab
from tests.services.stack import until

pytestmark = pytest.mark.timeout(900)

BOOT_SECONDS = 300
BOOTED = "mulligan: deploy agent, Linux"
"""What the first process of the agent's ISO says, of which the live kernel's initrd is made too."""
SOMEBODYS = b"somebody's data, which nobody asked to lose\n" * 1000
PROGRAM = """\
import json, os, re, subprocess, time, urllib.error, urllib.request
seed = re.search(r"ds=nocloud-net;s=([^;\\s]+)", open("/proc/cmdline").read())
cards = []
while not cards:
    cards = [name for name in sorted(os.listdir("/sys/class/net")) if name != "lo"]
    time.sleep(0.2)
subprocess.run(["ip", "link", "set", cards[0], "up"], check=True)
subprocess.run(["udhcpc", "-i", cards[0], "-n", "-q", "-t", "30"], check=True)
if seed is not None:
    with urllib.request.urlopen(seed.group(1) + "meta-data", timeout=30) as answer:
        told = answer.read().decode()
else:
    os.makedirs("/seed")
    while subprocess.run(["mount", "-t", "iso9660", "-o", "ro", "/dev/sr0", "/seed"]).returncode:
        time.sleep(0.5)
    told = open("/seed/meta-data").read()
said = dict(re.findall(r"^([a-z_-]+): '?([^'\\n]+)", told, re.M))
print("live system of", said["local-hostname"], "disks:", sorted(set(os.listdir("/sys/block")) & {"vda"}))
addresses = subprocess.check_output(["ip", "-o", "-4", "address", "show", cards[0]], text=True)
address = re.search(r"inet ([0-9.]+)", addresses).group(1)
call = {"hostname": said["local-hostname"], "status": "done", "addresses": [address]}
token = {"Authorization": "Bearer " + said["mulligan_call_home_token"]}
request = urllib.request.Request(said["mulligan_call_home_url"], json.dumps(call).encode(), token)
try:
    with urllib.request.urlopen(request, timeout=30) as answer:
        print("live system called home:", answer.status)
except urllib.error.HTTPError as error:
    print("live system was heard before:", error.code)
while True:
    time.sleep(60)
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """The deploy agent, whose kernel and initrd are lent."""
    return built_agent(tmp_path_factory)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory, built: Built) -> Iterator[Lab]:
    """A deployment that knows two live images: a kernel `diskless`, and an ISO `rescue`."""
    scratch = tmp_path_factory.mktemp("live")
    program = scratch / "more" / "agent" / "main.py"
    program.parent.mkdir(parents=True)
    program.write_text(PROGRAM)
    packed, initrd = built.image.initrd.read_bytes(), scratch / "initrd.img"
    initrd.write_bytes(packed + bytes(-len(packed) % 4) + b"".join(newc(scratch / "more")))
    with running_lab(tmp_path_factory.mktemp("metal")) as lab:
        built.lend(lab.deployment.state_dir)
        arguments = "console=tty0 console=ttyS0,115200 loglevel=4 printk.devkmsg=on"
        booted_with = ("--initrd", str(initrd), "--kernel-arguments", arguments)
        lab.deployment.mulligan("image", "add", "diskless", str(built.image.kernel), *booted_with)
        lab.deployment.mulligan("image", "add", "rescue", str(built.image.iso))
        yield lab


@pytest.fixture(scope="module", params=["redfish", "ipmi"])
def server(request: pytest.FixtureRequest, lab: Lab) -> Iterator[Server]:
    """A server that is registered, and on whose disk is what must stay there."""
    with getattr(lab.rack, request.param)() as made:
        with made.disk.open("r+b") as disk:
            disk.write(SOMEBODYS)
        told = {"boot_url": lab.rack.boot_url}
        if made.name == "ipmi":
            told |= {"macs": made.mac, "vcpu": "2", "memory_mib": "1536", "disk_gib": "2", "firmware": "bios"}
        settings = [word for name, value in told.items() for word in ("--set", f"{name}={value}")]
        lab.deployment.mulligan("provider", "add", f"srv-{made.name}", made.added_by, "--credential", "rack", *settings)
        yield made
        lab.deployment.mulligan("provider", "remove", f"srv-{made.name}")


def is_untouched(server: Server) -> bool:
    """Whether the disk holds what it held, and not a block more."""
    with server.disk.open("rb") as disk:
        same = disk.read(len(SOMEBODYS)) == SOMEBODYS
    return same and server.disk.stat().st_blocks * 512 <= len(SOMEBODYS) + (1 << 20)


def boots_from_medium(server: Server) -> bool:
    """Whether it boots from virtual media, all of which `sushy-emulator` fetches when they are inserted."""
    return server.name == "redfish"


def says(server: Server, words: str, times: int = 1) -> None:
    """Wait until its serial line has said so, so many times."""
    until(lambda: server.said().count(words) >= times, BOOT_SECONDS, f"{words!r} of {server.said()[-2000:]}")


def test_a_live_kernel_runs_calls_home_and_leaves_no_trace(lab: Lab, server: Server) -> None:
    """From virtual media by UEFI, and from the network by BIOS; started anew, it is the live system again."""
    deployment, name = lab.deployment, f"live-{server.name}"
    asked = (name, "--image", "diskless", "--provider", f"srv-{server.name}", "--ssh-key", "none")
    plan = deployment.mulligan("machine", "plan", *asked, "--verify", "guest")
    assert "destroys  nothing" in " ".join(plan.split("\n")) and "no disk is touched" in plan
    deployment.mulligan("machine", "provision", *asked, "--verify", "guest", seconds=600)
    says(server, f"live system of {name} disks: ['vda']")
    told = deployment.mulligan("run", "show", f"provision:default:{name}")
    at_once = "of the medium before the server was switched on"
    assert (at_once if boots_from_medium(server) else "were read since it was switched on") in told
    says(server, "live system called home: 204")
    lab.rack.connection.lookupByName(f"{NAME}-{server.name}").reset()
    says(server, "live system was heard before: 409")
    deployment.mulligan("machine", "release", name, seconds=300)
    assert not lab.rack.is_on(server) and not lab.rack.has_medium(server)
    assert is_untouched(server)
    (provider,) = deployment.documents("provider", "show", f"srv-{server.name}")
    assert not [word for word in ("dirty", "quarantined", "claim_count") if provider.get(word)]


def test_an_iso_runs_as_it_is(lab: Lab, server: Server) -> None:
    """Nothing is known of what is in it: that it was read is what is proved, and the server's own screen says more.

    From virtual media by UEFI, and from the network by BIOS, where iPXE is its CD drive."""
    deployment, name = lab.deployment, f"rescue-{server.name}"
    asked = (name, "--image", "rescue", "--provider", f"srv-{server.name}", "--ssh-key", "none")
    refused = deployment.run("machine", "provision", *asked, "--verify", "guest")
    assert refused.returncode != 0 and "nothing can be put" in refused.stderr
    before = server.said().count(BOOTED)
    deployment.mulligan("machine", "provision", *asked, "--verify", "power", seconds=600)
    says(server, BOOTED, before + 1)
    deployment.mulligan("machine", "release", name, seconds=300)
    assert not lab.rack.is_on(server) and not lab.rack.has_medium(server)
    assert is_untouched(server)


@pytest.fixture(scope="module")
def pool(lab: Lab) -> libvirt.virStoragePool:
    """The pool of this host, which is registered as a hypervisor."""
    settings = [word for name in ("pool", "network") for word in ("--set", f"{name}={NAME}")]
    lab.deployment.mulligan("provider", "add", "this-host", "qemu:///system", *settings, seconds=300)
    return lab.rack.connection.storagePoolLookupByName(NAME)


@pytest.mark.parametrize(("image", "level"), [("diskless", "guest"), ("rescue", "console")], ids=["kernel", "iso"])
def test_a_hypervisor_runs_them_too(lab: Lab, pool: libvirt.virStoragePool, image: str, level: str) -> None:
    """Without a disk; a kernel's guest has its seed on a CD there."""
    deployment, name = lab.deployment, f"on-{image}"
    asked = (name, "--image", image, "--provider", "this-host", "--memory", "1G", "--ssh-key", "none")
    deployment.mulligan("machine", "provision", *asked, "--verify", level, seconds=600)
    made = [each for each in pool.listVolumes() if each.startswith("mulligan-") and "-base-" not in each]
    assert made and not [each for each in made if each.endswith("-disk.qcow2")]
    deployment.mulligan("machine", "release", name, seconds=300)
    pool.refresh()
    assert not set(made) & set(pool.listVolumes())
