"""What is refused at the edge, field by field, before anything is looked up or done."""

from __future__ import annotations

import base64
import threading
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from mulligan.activities.errors import InvalidRequest
from mulligan.activities.images import seed
from mulligan.activities.inventory import Inventory
from mulligan.activities.seal import Keyring
from mulligan.api import keys
from mulligan.api.requests import Requests
from mulligan.api.validate import Faults, percents_and_reserves, provider_url
from mulligan.api.validate_spec import check_image, check_spec
from mulligan.v1 import images_pb2, inventory_pb2, machine_pb2, provisioning_pb2

ROOT = Path("/srv/images")
GOOD: dict[str, Any] = {
    "project": "shop",
    "name": "web-1",
    "image": "debian-12",
    "resources": {"vcpu": 1, "memory_mib": 64, "disk_gib": 1},
}
IMAGE: dict[str, Any] = {
    "name": "debian-12",
    "source": "https://images.example.org/debian.qcow2",
    "digest": "sha256:" + "a" * 64,
    "format": images_pb2.IMAGE_FORMAT_QCOW2,
}


def public(key: Any) -> str:
    """The key's line in an authorized_keys file."""
    return key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()


ED25519 = public(ed25519.Ed25519PrivateKey.generate())


def faults_of_spec(**changes: Any) -> dict[str, str]:
    """What is wrong with a good request after these changes."""
    message = provisioning_pb2.ProvisionMachineRequest(spec=machine_pb2.MachineSpec(**(GOOD | changes)))
    faults = Faults(message)
    check_spec(faults, message.spec)
    return dict(faults.found)


def faults_of_image(**changes: Any) -> dict[str, str]:
    """What is wrong with a good image after these changes."""
    message = images_pb2.AddImageRequest(image=images_pb2.Image(**(IMAGE | changes)))
    faults = Faults(message)
    check_image(faults, message.image, [ROOT])
    return dict(faults.found)


def faults_of_url(url: str) -> dict[str, str]:
    """What is wrong with a provider's URL."""
    faults = Faults(inventory_pb2.AddProviderRequest())
    provider_url(faults, "url", url)
    return dict(faults.found)


def test_a_good_request_has_no_faults() -> None:
    """The least of everything, and everything at its most."""
    assert faults_of_spec() == {}
    assert (
        faults_of_spec(
            hostname="web-1.Example.org",
            ssh_keys=[ED25519 + " me@host"] * 64,
            user_data="#cloud-config\n" + "# \n" * 1000,
            network_config="version: 2\nethernets: {}\n",
            mulligans=10,
            priority=5,
            root_disk={"serial": "S" * 128, "kind": machine_pb2.DISK_KIND_ROTATIONAL, "min_gib": 2**31 - 1},
            deadlines={"run_seconds": 604_800},
            service={"kind": machine_pb2.SERVICE_KIND_HTTP, "port": 65535, "path": "/health?x=1"},
        )
        == {}
    )


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"project": "Shop"}, "spec.project"),
        ({"name": ""}, "spec.name"),
        ({"name": "1web"}, "spec.name"),
        ({"name": "w" * 64}, "spec.name"),
        ({"name": "web\n"}, "spec.name"),
        ({"image": "Debian"}, "spec.image"),
        ({"partition": "a_b"}, "spec.partition"),
        ({"provider": "-h"}, "spec.provider"),
        ({"resources": {"vcpu": 0, "memory_mib": 64, "disk_gib": 1}}, "spec.resources.vcpu"),
        ({"resources": {"vcpu": 1, "memory_mib": 63, "disk_gib": 1}}, "spec.resources.memory_mib"),
        ({"resources": {"vcpu": 1, "memory_mib": 64, "disk_gib": 2**62}}, "spec.resources.disk_gib"),
        ({"kind": 99}, "spec.kind"),
        ({"service": {"kind": 77}}, "spec.service.kind"),
        ({"requires": [f"x.{n}" for n in range(65)]}, "spec.requires"),
        ({"requires": ["a.b"], "forbids": ["a.b"]}, "spec.forbids"),
        ({"hostname": "-web"}, "spec.hostname"),
        ({"hostname": "a." * 127 + "b"}, "spec.hostname"),
        ({"name": "web-"}, "spec.hostname"),
        ({"ssh_keys": [ED25519] * 65}, "spec.ssh_keys"),
        ({"ssh_keys": [ED25519, "ssh-ed25519 AAAA"]}, "spec.ssh_keys[1]"),
        ({"user_data": "#cloud-config\n" + "x" * 65536}, "spec.user_data"),
        ({"user_data": "hello"}, "spec.user_data"),
        ({"network_config": "version: [2"}, "spec.network_config"),
        ({"network_config": "version: 3"}, "spec.network_config"),
        ({"network_config": "- version: 2"}, "spec.network_config"),
        ({"service": {"port": 65536}}, "spec.service.port"),
        ({"service": {"kind": machine_pb2.SERVICE_KIND_TCP}}, "spec.service.port"),
        ({"service": {"path": "health"}}, "spec.service.path"),
        ({"service": {"path": "/a b"}}, "spec.service.path"),
        ({"service": {"path": "/a\r\nHost: b"}}, "spec.service.path"),
        ({"mulligans": 11}, "spec.mulligans"),
        ({"mulligans": -1}, "spec.mulligans"),
        ({"priority": 6}, "spec.priority"),
        ({"priority": -1}, "spec.priority"),
        ({"root_disk": {"serial": "S" * 129}}, "spec.root_disk.serial"),
        ({"root_disk": {"model": "a\nb"}}, "spec.root_disk.model"),
        ({"root_disk": {"min_gib": -1}}, "spec.root_disk.min_gib"),
        ({"root_disk": {"kind": 9}}, "spec.root_disk.kind"),
        ({"deadlines": {"claim_seconds": -1}}, "spec.deadlines.claim_seconds"),
        ({"deadlines": {"undo_seconds": 604_801}}, "spec.deadlines.undo_seconds"),
    ],
)
def test_a_bad_field_is_named(changes: dict[str, Any], field: str) -> None:
    """That field, and no other."""
    assert list(faults_of_spec(**changes)) == [field]


def test_all_faults_are_told_at_once() -> None:
    """Nobody mends a request one field at a time."""
    message = provisioning_pb2.ProvisionMachineRequest(spec=machine_pb2.MachineSpec(name="X", kind=9, mulligans=50))
    faults = Faults(message)
    check_spec(faults, message.spec)
    with pytest.raises(InvalidRequest) as refused:
        faults.refuse()
    fields = [field for field, _ in refused.value.violations]
    assert {"spec.name", "spec.kind", "spec.mulligans", "spec.image", "spec.resources.vcpu"} <= set(fields)


def test_user_data_is_never_repeated() -> None:
    """It may hold secrets."""
    secret = "hunter2"
    for text in (secret, f"#cloud-config\n[{secret}", f"#cloud-config\npassword: {secret}\n- x"):
        assert secret not in str(faults_of_spec(user_data=text))


@pytest.mark.parametrize(
    "key",
    [
        ED25519,
        f"  {ED25519} a comment with blanks\n",
        public(rsa.generate_private_key(65537, 2048)),
        public(ec.generate_private_key(ec.SECP256R1())),
        public(ec.generate_private_key(ec.SECP384R1())),
        public(ec.generate_private_key(ec.SECP521R1())),
    ],
    ids=["ed25519", "with comment", "rsa", "nistp256", "nistp384", "nistp521"],
)
def test_a_real_public_key_is_accepted(key: str) -> None:
    """Whatever ssh-keygen writes today."""
    assert keys.fault_of(key) == ""


@pytest.mark.parametrize(
    ("key", "says"),
    [
        ("", "one line"),
        ("ssh-dss AAAA", "must begin with one of"),
        ("AAAA", "must begin with one of"),
        ("ssh-ed25519", "cut off"),
        ("ssh-ed25519 !!!", "not base64"),
        (ED25519[:-8], "cut off"),
        (ED25519.replace("ssh-ed25519", "ssh-rsa", 1), "another type"),
        (f"ssh-ed25519 {base64.b64encode(b'xxxxxxxxxxxxx').decode()}", "cut off"),
        (f"{ED25519}\n{ED25519}", "one line"),
        (f'command="reboot" {ED25519}', "must begin with one of"),
        (
            ed25519.Ed25519PrivateKey.generate()
            .private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
            .decode(),
            "private key",
        ),
    ],
    ids=["empty", "dss", "bare", "type", "text", "cut", "renamed", "short", "two", "options", "private"],
)
def test_what_is_no_public_key_is_refused(key: str, says: str) -> None:
    """With what is wrong, and never with the key."""
    fault = keys.fault_of(key)
    assert says in fault
    assert len(key) < 16 or key[12:] not in fault


@pytest.mark.parametrize("source", ["https://h/x", "http://h:8080/x", "file:///srv/images/x.raw", "simulated:demo"])
def test_a_good_image_has_no_faults(source: str) -> None:
    """From every source that is allowed."""
    assert faults_of_image(source=source) == {}
    assert faults_of_image(digest="sha512:" + "0aF" * 42 + "00") == {}


@pytest.mark.parametrize(
    ("changes", "field", "says"),
    [
        ({"name": "-x"}, "image.name", "must be"),
        ({"source": ""}, "image.source", "URL"),
        ({"source": "debian.qcow2"}, "image.source", "scheme"),
        ({"source": "htps://h/x"}, "image.source", "https"),
        ({"source": "https:///x"}, "image.source", "host"),
        ({"source": "https://u:hunter2@h/x"}, "image.source", "password"),
        ({"source": "https://h:99999/x"}, "image.source", "malformed"),
        ({"source": "https://u:hunter2/x"}, "image.source", "malformed"),
        ({"source": "file:///etc/shadow"}, "image.source", "/srv/images"),
        ({"source": "file:///srv/images/../../etc/shadow"}, "image.source", "/srv/images"),
        ({"source": "file:///srv/images/%2e%2e/x"}, "image.source", "/srv/images"),
        ({"source": "file://other/srv/images/x"}, "image.source", "absolute"),
        ({"source": "file:///srv/images/%00"}, "image.source", "%00"),
        ({"digest": "md5:" + "a" * 32}, "image.digest", "md5 can be forged"),
        ({"digest": "sha1:" + "a" * 40}, "image.digest", "sha1 can be forged"),
        ({"digest": "sha256:" + "a" * 63}, "image.digest", "64"),
        ({"digest": "a" * 64}, "image.digest", "sha256:"),
        ({"format": 0}, "image.format", "QCOW2"),
        ({"format": 42}, "image.format", "no number of ImageFormat"),
        ({"architecture": "x86-64!"}, "image.architecture", "x86_64"),
        ({"firmware": [0]}, "image.firmware", "FIRMWARE_BIOS"),
        ({"size_bytes": -1}, "image.size_bytes", "0 to"),
        ({"login": "Root User"}, "image.login", "user name"),
    ],
)
def test_a_bad_image_is_refused_by_field(changes: dict[str, Any], field: str, says: str) -> None:
    """And never with a password in the answer."""
    faults = faults_of_image(**changes)
    assert list(faults) == [field]
    assert says in faults[field]
    assert "hunter2" not in faults[field]


@pytest.mark.parametrize(
    "url",
    [
        "qemu:///system",
        "qemu:///session?mode=direct",
        "qemu+ssh://root@host/system",
        "qemu+ssh://first.last@host-1.example.org:2222/system?mode=legacy",
        "qemu+ssh://[fe80::1]:22/system",
        "qemu+tls://h/system",
        "simulated://fleet/host?speed=0",
    ],
)
def test_a_good_provider_url_is_accepted(url: str) -> None:
    """One of each driver."""
    assert faults_of_url(url) == {}


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("", "URL"),
        ("qemuu:///system", "did you mean qemu"),
        ("qemu+ssh:///system", "no host"),
        ("qemu+ssh://u:pw@host/system", "password"),
        ("qemu:///etc", "/system"),
        ("qemu+tls:///system", "no host"),
        ("simulated://fleet", "fleet/host"),
        ("vmware://bmc", "not known"),
        ("redfish://root@bmc/redfish/v1", "--credential"),
        ("qemu+ssh://root@h/system?command=/tmp/x&mode=legacy", "mode=legacy after the question mark"),
        ("qemu+ssh://h/system?mode=legacy;command=/tmp/x", "mode=legacy after"),
        ("qemu+ssh://h/system?keyfile=/root/.ssh/id", "~/.ssh/config"),
        ("qemu+ssh://-oProxyCommand=x@h/system", "qemu+ssh://user@host/system"),
    ],
)
def test_a_bad_provider_url_is_refused(url: str, says: str) -> None:
    """With what would be right."""
    assert says in faults_of_url(url)["url"]


async def test_specs_are_checked_in_a_thread(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Parsing user data takes its time, in which the server goes on serving others."""
    threads: list[threading.Thread] = []
    monkeypatch.setattr(seed, "nodes_of", lambda _: threads.append(threading.current_thread()))
    inventory = Inventory.open(f"sqlite:///{tmp_path}/db")
    requests = Requests(inventory, Keyring.load(tmp_path / "key"))
    spec = machine_pb2.MachineSpec(name="X", user_data="#cloud-config\n")
    with pytest.raises(InvalidRequest):
        await requests.machine(provisioning_pb2.ProvisionMachineRequest(spec=spec))
    with pytest.raises(InvalidRequest):
        await requests.claim(inventory_pb2.ExplainClaimRequest(spec=spec))
    inventory.close()
    assert len(threads) == 2
    assert threading.main_thread() not in threads


def test_reserves_and_percentages_are_checked_by_resource() -> None:
    """An unknown resource is told with the nearest."""
    faults = Faults(inventory_pb2.UpdateProviderRequest())
    percents_and_reserves(faults, {"memory": 1, "vcpu": -1}, {"disk_gib": 2, "memory_mib": 100, "vcpu": 10_001})
    found = dict(faults.found)
    assert "memory_mib" in found["reserved.memory"]
    assert found["overcommit_percent.disk_gib"].endswith("200 for twice that; to let out less, reserve some, not 2")
    assert set(found) == {"reserved.memory", "reserved.vcpu", "overcommit_percent.disk_gib", "overcommit_percent.vcpu"}
