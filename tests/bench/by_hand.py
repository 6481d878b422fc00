"""The peers of `vm`: the same machine made by a shell script, and by virt-install."""

from __future__ import annotations

import subprocess
import tempfile
import time
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path

import libvirt

from tests.bench.hypervisor import URL, Hypervisor

SECONDS = 600
USER_DATA = "#cloud-config\nhostname: {name}\nssh_pwauth: false\n"
META_DATA = "instance-id: {name}\nlocal-hostname: {name}\n"

SCRIPT = """set -e
qemu-img create -q -f qcow2 -b "$BASE" -F qcow2 "$FOLDER/$NAME-disk.qcow2" "${DISK}G"
genisoimage -quiet -output "$FOLDER/$NAME-seed.iso" -volid cidata -rational-rock -joliet user-data meta-data
virsh --quiet define domain.xml
virsh --quiet start "$NAME"
"""
VIRT_INSTALL = """set -e
qemu-img create -q -f qcow2 -b "$BASE" -F qcow2 "$FOLDER/$NAME-disk.qcow2" "${DISK}G"
virt-install --quiet --virt-type "$TYPE" --name "$NAME" --memory "$MEMORY" --vcpus "$VCPU" --import \\
    --osinfo linux2022 --graphics none --noautoconsole --network "network=$NETWORK" \\
    --disk "path=$FOLDER/$NAME-disk.qcow2,format=qcow2" --cloud-init user-data=user-data,meta-data=meta-data
"""
WAIT = """
until virsh --quiet domifaddr "$NAME" --source lease | grep -q ipv4; do sleep 0.1; done
"""


@dataclass(frozen=True, slots=True)
class Size:
    """What each machine is given."""

    vcpu: int
    memory_mib: int
    disk_gib: int


def by_script(hypervisor: Hypervisor, name: str, base: Path, size: Size, model: str) -> float:
    """Make a machine by a shell script, defined as `model` is, and wait for its lease; the seconds that it took."""
    return _run(SCRIPT + WAIT, hypervisor, name, base, size, definition(model, name, hypervisor, base))


def by_virt_install(hypervisor: Hypervisor, name: str, base: Path, size: Size, model: str) -> float:
    """The same by virt-install, with its own idea of a machine, but for what runs it: KVM or emulation, as `model`."""
    return _run(VIRT_INSTALL + WAIT, hypervisor, name, base, size, definition(model, name, hypervisor, base))


def _run(script: str, hypervisor: Hypervisor, name: str, base: Path, size: Size, xml: str) -> float:
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder)
        (directory / "user-data").write_text(USER_DATA.format(name=name))
        (directory / "meta-data").write_text(META_DATA.format(name=name))
        (directory / "domain.xml").write_text(xml)
        environment = {
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": folder,
            "LIBVIRT_DEFAULT_URI": URL,
            "NAME": name,
            "TYPE": ET.fromstring(xml).get("type", ""),
            "BASE": str(base),
            "FOLDER": str(hypervisor.folder),
            "NETWORK": hypervisor.name,
            "VCPU": str(size.vcpu),
            "MEMORY": str(size.memory_mib),
            "DISK": str(size.disk_gib),
        }
        began = time.perf_counter()
        done = subprocess.run(
            ["sh", "-c", script], cwd=folder, env=environment, capture_output=True, text=True, timeout=SECONDS,
            check=False,
        )  # fmt: skip
        seconds = time.perf_counter() - began
    assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"
    return seconds


def definition(model: str, name: str, hypervisor: Hypervisor, base: Path) -> str:
    """A machine's definition with another name and other disks, and what is its own left out."""
    root = ET.fromstring(model)
    for child in ("uuid", "metadata"):
        for found in root.findall(child):
            root.remove(found)
    root.find("name").text = name  # type: ignore[union-attr]
    for disk in root.iterfind("devices/disk"):
        part = "seed.iso" if disk.get("device") == "cdrom" else "disk.qcow2"
        disk.find("source").set("file", str(hypervisor.folder / f"{name}-{part}"))  # type: ignore[union-attr]
        if (below := disk.find("backingStore/source")) is not None:
            below.set("file", str(base))
    for log in root.iterfind("devices//log"):
        log.set("file", str(hypervisor.folder / f"{name}-console.log"))
    for interface in root.iterfind("devices/interface"):
        interface.remove(interface.find("mac"))  # type: ignore[arg-type]
    return ET.tostring(root, "unicode")


def remove(hypervisor: Hypervisor, name: str) -> None:
    """Take it away with all its files."""
    domain = hypervisor.connection.lookupByName(name)
    domain.destroy()
    domain.undefineFlags(libvirt.VIR_DOMAIN_UNDEFINE_NVRAM)
    for file in hypervisor.folder.glob(f"{name}-*"):
        file.unlink()
