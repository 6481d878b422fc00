"""The domain's XML: what a Mulligan machine looks like to libvirt. Pure: takes facts, gives text."""

from __future__ import annotations

import hashlib
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from dataclasses import dataclass

from mulligan.activities.drivers.base import Shape
from mulligan.activities.drivers.libvirt.marks import NAMESPACE, domain_name, label, mac_address, machine_uuid
from mulligan.activities.errors import Unsupported
from mulligan.activities.values import Firmware, ImageFormat, Mark

MACHINE_TYPES: Mapping[str, str] = {"x86_64": "q35"}
AGENT_CHANNEL = "org.qemu.guest_agent.0"

ET.register_namespace("mulligan", NAMESPACE)


@dataclass(frozen=True, slots=True)
class DiskFile:
    """A disk by path and format; `below` is what it is copy-on-write on."""

    path: str
    format: ImageFormat
    below: DiskFile | None = None


@dataclass(frozen=True, slots=True)
class Parts:
    """The files and names on the hypervisor that a domain is made of; empty for a part that it does without."""

    disk: DiskFile | None
    console_log: str
    seed: str = ""
    nvram: str = ""
    network: str = ""
    medium: DiskFile | None = None
    """What it boots in the place of a disk; or these."""
    kernel: str = ""
    initrd: str = ""


def domain_xml(mark: Mark, shape: Shape, accelerator: str, parts: Parts) -> tuple[str, str]:
    """The definition, and its fingerprint (also in its metadata): equal fingerprints are equal definitions."""
    root = _domain(mark, shape, accelerator, parts)
    fingerprint = hashlib.sha256(ET.tostring(root)).hexdigest()[:16]
    metadata = ET.Element("metadata")
    metadata.append(label(mark, fingerprint))
    root.insert(2, metadata)
    return ET.tostring(root, "unicode"), fingerprint


def _domain(mark: Mark, shape: Shape, accelerator: str, parts: Parts) -> ET.Element:
    machine = MACHINE_TYPES.get(shape.architecture)
    if machine is None:
        raise Unsupported(
            f"machines of architecture {shape.architecture} are not supported by the libvirt driver; it makes "
            f"{', '.join(MACHINE_TYPES)}",
            architecture=shape.architecture,
        )
    root = ET.Element("domain", type="kvm" if accelerator == "kvm" else "qemu")
    _text(root, "name", domain_name(mark))
    _text(root, "uuid", str(machine_uuid(mark.machine_id)))
    _text(root, "memory", str(shape.resources.memory_mib), unit="MiB")
    _text(root, "vcpu", str(shape.resources.vcpu))
    _os(root, shape, machine, parts)
    features = ET.SubElement(root, "features")
    for name in ("acpi", "apic"):
        ET.SubElement(features, name)
    _cpu(root, accelerator)
    ET.SubElement(root, "clock", offset="utc")
    _text(root, "on_poweroff", "destroy")
    _text(root, "on_reboot", "restart")
    _text(root, "on_crash", "destroy")
    _devices(ET.SubElement(root, "devices"), mark, parts)
    return root


def _cpu(root: ET.Element, accelerator: str) -> None:
    """The host's processor under KVM. Under emulation all that QEMU can, but for five-level page tables: their walks
    cost a tenth of a boot (8.7 s of processor time against 9.9 s for the demo image), and serve only huge guests."""
    if accelerator == "kvm":
        ET.SubElement(root, "cpu", mode="host-passthrough")
    else:
        ET.SubElement(ET.SubElement(root, "cpu", mode="maximum"), "feature", policy="disable", name="la57")


def _text(parent: ET.Element, name: str, text: str, **attributes: str) -> ET.Element:
    element = ET.SubElement(parent, name, attributes)
    element.text = text
    return element


def _os(root: ET.Element, shape: Shape, machine: str, parts: Parts) -> None:
    uefi = shape.firmware is Firmware.UEFI
    os = ET.SubElement(root, "os", {"firmware": "efi"} if uefi else {})
    _text(os, "type", "hvm", arch=shape.architecture, machine=machine)
    if uefi:
        firmware = ET.SubElement(os, "firmware")
        for name in ("enrolled-keys", "secure-boot"):
            ET.SubElement(firmware, "feature", enabled="no", name=name)
        _text(os, "nvram", parts.nvram)
    if parts.kernel:
        _text(os, "kernel", parts.kernel)
        if parts.initrd:
            _text(os, "initrd", parts.initrd)
        _text(os, "cmdline", shape.arguments)
    ET.SubElement(os, "boot", dev="cdrom" if parts.medium is not None else "hd")
    ET.SubElement(os, "bootmenu", enable="no")


def _devices(devices: ET.Element, mark: Mark, parts: Parts) -> None:
    if parts.disk is not None:
        _disk(devices, parts.disk)
    if parts.medium is not None:
        _cdrom(devices, parts.medium)
    if parts.seed:
        _seed(devices, parts.seed)
    if parts.network:
        _interface(devices, mark, parts.network)
    serial = ET.SubElement(devices, "serial", type="pty")
    ET.SubElement(serial, "log", file=parts.console_log, append="off")
    ET.SubElement(serial, "target", type="isa-serial", port="0")
    channel = ET.SubElement(devices, "channel", type="unix")
    ET.SubElement(channel, "target", type="virtio", name=AGENT_CHANNEL)
    rng = ET.SubElement(devices, "rng", model="virtio")
    _text(rng, "backend", "/dev/urandom", model="random")
    ET.SubElement(devices, "memballoon", model="virtio")


def _disk(devices: ET.Element, file: DiskFile) -> None:
    disk = ET.SubElement(devices, "disk", type="file", device="disk")
    ET.SubElement(disk, "driver", name="qemu", type=file.format.value, discard="unmap")
    ET.SubElement(disk, "source", file=file.path)
    _below(disk, file)
    ET.SubElement(disk, "target", dev="vda", bus="virtio")


def _below(disk: ET.Element, file: DiskFile) -> None:
    """What it is copy-on-write on, written out, so that nothing is ever probed."""
    if file.below is None:
        return
    below = ET.SubElement(disk, "backingStore", type="file")
    ET.SubElement(below, "format", type=file.below.format.value)
    ET.SubElement(below, "source", file=file.below.path)
    ET.SubElement(below, "backingStore")


def _cdrom(devices: ET.Element, file: DiskFile) -> None:
    cdrom = ET.SubElement(devices, "disk", type="file", device="cdrom")
    ET.SubElement(cdrom, "driver", name="qemu", type=file.format.value)
    ET.SubElement(cdrom, "source", file=file.path)
    _below(cdrom, file)
    ET.SubElement(cdrom, "target", dev="sdb", bus="sata")
    ET.SubElement(cdrom, "readonly")


def _seed(devices: ET.Element, path: str) -> None:
    cdrom = ET.SubElement(devices, "disk", type="file", device="cdrom")
    ET.SubElement(cdrom, "driver", name="qemu", type="raw")
    ET.SubElement(cdrom, "source", file=path)
    ET.SubElement(cdrom, "target", dev="sda", bus="sata")
    ET.SubElement(cdrom, "readonly")


def _interface(devices: ET.Element, mark: Mark, network: str) -> None:
    interface = ET.SubElement(devices, "interface", type="network")
    ET.SubElement(interface, "mac", address=mac_address(mark))
    ET.SubElement(interface, "source", network=network)
    ET.SubElement(interface, "model", type="virtio")
    ET.SubElement(interface, "rom", enabled="no")  # it boots from its disk: the network's boot ROM would only cost time
