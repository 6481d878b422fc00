"""What is asked for: one machine of a size, running an image, proved up to a level."""

from __future__ import annotations

from dataclasses import dataclass

from mulligan.activities.values.choices import (
    Compression,
    DiskKind,
    Firmware,
    ImageFormat,
    Kind,
    OnFailure,
    Placement,
    ServiceKind,
    VerifyLevel,
    WhenNone,
)

RESOURCES = ("vcpu", "memory_mib", "disk_gib")
"""The resource names that an inventory may hold, in the order in which they are claimed."""


@dataclass(frozen=True, slots=True)
class Resources:
    """An amount of each resource: threads, mebibytes, gibibytes."""

    vcpu: int
    memory_mib: int
    disk_gib: int

    def rows(self) -> tuple[tuple[str, int], ...]:
        """The amounts as (resource, amount) in claiming order, without zeros."""
        return tuple((name, getattr(self, name)) for name in RESOURCES if getattr(self, name) > 0)


@dataclass(frozen=True, slots=True)
class Image:
    """Immutable bytes named by a digest. `digest` is `sha256:<hex>` or `sha512:<hex>` of the bytes behind `source`."""

    name: str
    source: str
    digest: str
    format: ImageFormat
    compression: Compression = Compression.NONE
    architecture: str = "x86_64"
    firmware: tuple[Firmware, ...] = (Firmware.BIOS, Firmware.UEFI)
    size_bytes: int = 0
    """Size of the bytes behind the source; 0 where not known."""
    virtual_size_bytes: int = 0
    """Size of the disk that the image describes; 0 where not known."""
    login: str = ""
    """The user that the image's cloud-init gives SSH keys to; empty where not known."""
    initrd_source: str = ""
    """Of a kernel: where its initrd is; empty for none."""
    initrd_digest: str = ""
    kernel_arguments: str = ""
    """Of a kernel: what every machine that it boots is started with."""

    @property
    def live(self) -> bool:
        """Whether it runs without a disk: what is booted is the image itself."""
        return self.format in (ImageFormat.ISO, ImageFormat.KERNEL)

    @property
    def initrd(self) -> Image | None:
        """A kernel's initrd, to be had like any other bytes; None where there is none."""
        if not self.initrd_source:
            return None
        name = f"{self.name} (initrd)"
        return Image(name, self.initrd_source, self.initrd_digest, ImageFormat.INITRD, architecture=self.architecture)


@dataclass(frozen=True, slots=True)
class Service:
    """What the level `service` asks of the machine."""

    kind: ServiceKind = ServiceKind.SSH
    port: int = 22
    path: str = "/"


@dataclass(frozen=True, slots=True)
class Deadlines:
    """Seconds that each step, and the whole run, may take."""

    claim_seconds: int = 600
    image_seconds: int = 7200
    boot_seconds: int = 600
    verify_seconds: int = 900
    run_seconds: int = 14400
    undo_seconds: int = 900
    """How long each undo is tried before what it left is quarantined."""


@dataclass(frozen=True, slots=True)
class RootDisk:
    """Which disk of a server the image is written to: all that is said must be true of it. Empty says nothing."""

    serial: str = ""
    wwn: str = ""
    model: str = ""
    """A part of its model's name; case does not matter."""
    kind: DiskKind = DiskKind.ANY
    min_gib: int = 0


@dataclass(frozen=True, slots=True)
class MachineRequest:
    """One machine, as asked for and normalised. Holds no secret: `user_data` is sealed (see activities.seal)."""

    project: str
    name: str
    image: str
    resources: Resources
    partition: str = "default"
    kind: Kind = Kind.ANY
    requires: tuple[str, ...] = ()
    forbids: tuple[str, ...] = ()
    provider: str = ""
    """Claim only this provider; empty for any."""
    placement: Placement = Placement.PACK
    when_none: WhenNone = WhenNone.FAIL
    hostname: str = ""
    ssh_keys: tuple[str, ...] = ()
    user_data: str = ""
    """Sealed cloud-init user data; empty for none."""
    user_data_digest: str = ""
    """Keyed digest of the plain user data, so that two requests can be compared without opening them."""
    network_config: str = ""
    """NoCloud network configuration (YAML); empty for DHCP on the first interface."""
    firmware: Firmware = Firmware.ANY
    verify: VerifyLevel = VerifyLevel.ADDRESS
    service: Service = Service()
    mulligans: int = 1
    on_failure: OnFailure = OnFailure.ROLL_BACK
    deadlines: Deadlines = Deadlines()
    priority: int = 3
    """1 to 5; lower goes first where runs wait for the same workers."""
    root_disk: RootDisk = RootDisk()
    """On a server: where the image is written to."""
