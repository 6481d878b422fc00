"""Real virtual machines on this host's libvirt, made and released through the installed commands, and logged in to."""

from __future__ import annotations

import shlex
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import libvirt
import pytest

from mulligan.activities.drivers.libvirt.daemons import ensure_daemons
from tests.e2e.deployment import Deployment, command, documents
from tests.services.stack import until
from tests.services.temporal import free_port

RUN = uuid.uuid4().hex[:8]
NAME = f"mulligan-e2e-{RUN}"
SUBNET = f"10.{241 + int(RUN[:2], 16) % 10}.{int(RUN[2:4], 16)}"

pytestmark = pytest.mark.timeout(900)


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
        return NAME in domain.XMLDesc()

    def ssh(self, login: str, address: str, *words: str) -> str:
        """Log in with the key and run a command."""
        options = ("-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "BatchMode=yes")
        return command("ssh", "-i", self.key, *options, "-q", f"{login}@{address}", *words)

    def provision(self, name: str, image: str, *words: str) -> list[str]:
        """The command line that asks for a machine with a service, and tells it as JSON."""
        return ["machine", "provision", name, "--image", image, "--verify", "service", "--ssh-key",
                f"{self.key}.pub", *words, "--output", "json"]  # fmt: skip


@pytest.fixture(scope="module")
def connection() -> Iterator[libvirt.virConnect]:
    """To look behind the driver's back."""
    ensure_daemons()
    found = libvirt.open("qemu:///system")
    yield found
    found.close()


@pytest.fixture(scope="module")
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
    yield
    network.destroy()
    pool.destroy()
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def lab(connection: libvirt.virConnect, surroundings: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """The embedded stack, with this host registered as a hypervisor and the demo image built."""
    directory = tmp_path_factory.mktemp("lab")
    key = directory / "id_ed25519"
    command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key)
    with Deployment(directory) as deployment:
        deployment.boot = f"127.0.0.1:{(port := free_port())},{SUBNET}.1:{port}"
        deployment.up()
        settings = ["--set", f"pool={NAME}", "--set", f"network={NAME}"]
        deployment.mulligan("provider", "add", "this-host", "qemu:///system", *settings, seconds=180)
        deployment.mulligan("image", "build", "demo", seconds=300)
        lab = Lab(deployment, connection, key)
        yield lab
    for domain in connection.listAllDomains():
        if lab.is_ours(domain):
            domain.destroy()
            domain.undefine()


def test_registering_a_hypervisor_reads_what_it_has_and_proves_its_accelerator(lab: Lab) -> None:
    """The inventory is libvirt's own, and the accelerator is one with which a guest really ran."""
    (shown,) = lab.deployment.documents("provider", "show", "this-host")
    provider = shown.get("provider", shown)
    vcpu = next(row for row in provider["inventory"] if row["resource"] == "vcpu")
    assert int(vcpu["total"]) == lab.connection.getInfo()[2]
    assert provider["settings"]["accelerator"] in ("kvm", "tcg")
    assert f"accel.{provider['settings']['accelerator']}" in provider["capabilities"]


@pytest.mark.parametrize("firmware", ["bios", "uefi"])
def test_a_demo_machine_can_be_logged_in_to_and_leaves_nothing(lab: Lab, firmware: str) -> None:
    """It has the name and the key that were asked for; after release libvirt has nothing of it."""
    name = f"demo-{firmware}"
    size = ("--vcpu", "1", "--memory", "512", "--disk", "2", "--firmware", firmware)
    told = lab.deployment.documents(*lab.provision(name, "demo", *size), seconds=300)
    machine = told[-1]["machine"]
    assert [e["level"] for e in machine["evidence"]][-1] == "VERIFY_LEVEL_SERVICE"
    assert lab.ssh(machine["login"], machine["addresses"][0], "hostname").strip() == name
    assert lab.left()
    lab.deployment.mulligan("machine", "release", name)
    assert lab.left() == []


def test_kills_do_not_lose_a_real_boot(lab: Lab) -> None:
    """`kill -9` of worker, API server and Temporal, all during one boot: the run goes on and ends ready."""
    size = ("--vcpu", "1", "--memory", "512", "--disk", "2")
    watcher = lab.deployment.background(*lab.provision("killed", "demo", *size))

    def is_booting() -> bool:
        shown = lab.deployment.run("run", "show", "provision:default:killed", "--output", "json").stdout
        return any(p.get("step") in ("boot", "verify") for d in documents(shown) for p in d.get("progress", []))

    until(is_booting, 60, "a run that boots")
    for victim in ("worker", "server", "temporal"):
        lab.deployment.kill_child(victim)
    out, err = watcher.communicate(timeout=240)
    assert watcher.returncode == 0, err
    machine = documents(out)[-1]["machine"]
    assert lab.ssh(machine["login"], machine["addresses"][0], "hostname").strip() == "killed"
    lab.deployment.mulligan("machine", "release", "killed")
    assert lab.left() == []


def test_a_cancelled_run_leaves_nothing_on_the_hypervisor(lab: Lab) -> None:
    """Cancelled while it boots: domain, volumes, seed and console are gone when the run has ended."""
    size = ("--vcpu", "1", "--memory", "512", "--disk", "2")
    watcher = lab.deployment.background(*lab.provision("cancelled", "demo", *size))
    until(lambda: any(lab.is_ours(d) for d in lab.connection.listAllDomains()), 120, "a domain")
    lab.deployment.run("run", "cancel", "provision:default:cancelled")
    watcher.communicate(timeout=120)
    assert watcher.returncode == 7
    assert lab.left() == []


def test_a_guest_that_could_not_do_what_was_asked_is_not_ready(lab: Lab, tmp_path: Path) -> None:
    """The demo image has no `runcmd`: the guest says so itself, the run fails with it, and no host is blamed."""
    user_data = tmp_path / "user-data"
    user_data.write_text("#cloud-config\nruncmd: [touch /done]\n")
    size = ("--vcpu", "1", "--memory", "512", "--disk", "2", "--user-data", str(user_data))
    done = lab.deployment.run(*lab.provision("unable", "demo", *size), seconds=300)
    assert done.returncode == 6
    assert "does not know these words of user-data: runcmd" in done.stderr
    (shown,) = lab.deployment.documents("provider", "show", "this-host")
    assert not shown.get("provider", shown).get("suspect_count", 0)
    assert lab.left() == []


def test_the_readmes_next_steps_work_as_written(lab: Lab) -> None:
    """Each line of that block, in order, on the machine that it describes."""
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    block = readme.split("## Next steps", 1)[1].split("```console\n", 1)[1].split("```", 1)[0]
    lines = [shlex.split(line) for line in block.splitlines()]
    assert len(lines) > 5
    expected = {"explain": 5}
    for program, *words in lines:
        assert program == "mulligan"
        if words != ["down"]:
            done = lab.deployment.run(*words, seconds=300)
            assert done.returncode == expected.get(words[1] if len(words) > 1 else "", 0), f"{words}: {done.stderr}"
    assert lab.left() == []


def test_a_full_debian_is_set_up_by_cloud_init(lab: Lab, tmp_path: Path) -> None:
    """Hostname, user and key are cloud-init's work, its own user data too; then it is released without a trace."""
    lab.deployment.mulligan("image", "build", "debian-12", seconds=600)
    user_data = tmp_path / "user-data"
    secret = f"canary-{uuid.uuid4().hex}"
    user_data.write_text(
        "#cloud-config\nusers:\n  - default\n  - name: carol\n    sudo: ALL=(ALL) NOPASSWD:ALL\n"
        f"    ssh_authorized_keys: ['{Path(f'{lab.key}.pub').read_text().strip()}']\n"
        f"write_files:\n  - path: /etc/motd\n    content: {secret}\n"
    )
    size = ("--vcpu", "2", "--memory", "1024", "--disk", "4", "--user-data", str(user_data))
    told = lab.deployment.documents(
        *lab.provision("full", "debian-12", *size, "--deadline", "verify=800s"), seconds=900
    )
    machine = told[-1]["machine"]
    address = machine["addresses"][0]
    assert machine["evidence"][-1]["level"] == "VERIFY_LEVEL_SERVICE"
    assert lab.ssh(machine["login"], address, "hostname").strip() == "full"
    assert lab.ssh("carol", address, "sudo", "cat", "/etc/motd").strip() == secret
    assert "12" in lab.ssh(machine["login"], address, "cat", "/etc/debian_version")
    assert secret not in lab.deployment.mulligan("run", "show", "provision:default:full", "--output", "json")
    kept = [p for p in lab.deployment.state_dir.rglob("*") if p.is_file() and secret.encode() in p.read_bytes()]
    assert kept == []
    lab.deployment.mulligan("machine", "release", "full", seconds=180)
    assert lab.left() == []
