"""The words of Mulligan as frozen value types: what is asked for, what is held, what was seen.

Everything that crosses a process boundary (workflow inputs, activity inputs and results) is made of these. They know
nothing of gRPC, SQL or any driver. Sizes are whole numbers in the unit that the field's name ends with; times are aware
UTC datetimes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

RESOURCES = ("vcpu", "memory_mib", "disk_gib")
"""The resource names that an inventory may hold, in the order in which they are claimed."""


class Kind(StrEnum):
    """What sort of machine is asked for."""

    ANY = "any"
    VIRTUAL = "virtual"
    BARE_METAL = "bare-metal"


class Placement(StrEnum):
    """How candidates are ordered: fill one hypervisor before the next, or even the load out."""

    PACK = "pack"
    SPREAD = "spread"


class WhenNone(StrEnum):
    """What to do when nothing fits now but something could later."""

    FAIL = "fail"
    WAIT = "wait"


class OnFailure(StrEnum):
    """What to do when the last try failed: undo everything, or keep it for inspection."""

    ROLL_BACK = "roll-back"
    HOLD = "hold"


class Firmware(StrEnum):
    """Which firmware boots the machine; ANY lets the driver choose one that the image supports."""

    ANY = "any"
    BIOS = "bios"
    UEFI = "uefi"


class ImageFormat(StrEnum):
    """The format of the expanded image."""

    RAW = "raw"
    QCOW2 = "qcow2"


class Compression(StrEnum):
    """How the bytes behind the source are compressed."""

    NONE = "none"
    GZIP = "gzip"
    XZ = "xz"
    ZSTD = "zstd"


class VerifyLevel(StrEnum):
    """How much must be proved before a machine counts as up; each level includes the ones before it."""

    POWER = "power"
    CONSOLE = "console"
    ADDRESS = "address"
    GUEST = "guest"
    SERVICE = "service"

    def includes(self, other: VerifyLevel) -> bool:
        """Whether proving this level means that the other was proved too."""
        order = list(VerifyLevel)
        return order.index(self) >= order.index(other)


class ServiceKind(StrEnum):
    """What the service level expects: an SSH banner, an open TCP port, or an HTTP answer below 400."""

    SSH = "ssh"
    TCP = "tcp"
    HTTP = "http"


class MachineState(StrEnum):
    """Where a machine is in its life; only READY machines are somebody's."""

    PROVISIONING = "provisioning"
    READY = "ready"
    RELEASING = "releasing"
    RELEASED = "released"
    FAILED = "failed"
    HELD = "held"
    QUARANTINED = "quarantined"


class Outcome(StrEnum):
    """How a run ended; OPEN while it has not."""

    OPEN = "open"
    READY = "ready"
    RELEASED = "released"
    FAILED = "failed"
    CANCELLED = "cancelled"
    QUARANTINED = "quarantined"
    TERMINATED = "terminated"
    ENROLLED = "enrolled"


class DiskKind(StrEnum):
    """What sort of disk."""

    ANY = "any"
    ROTATIONAL = "rotational"
    SOLID_STATE = "solid-state"


class Erase(StrEnum):
    """What is done to a server's disks before it is available again; the contract says what each means."""

    NONE = "none"
    METADATA = "metadata"
    FULL = "full"


class PowerState(StrEnum):
    """What the driver says of the machine's power."""

    ON = "on"
    OFF = "off"
    ABSENT = "absent"


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


@dataclass(frozen=True, slots=True)
class Target:
    """Which provider a driver shall speak to. `settings` are the driver's own, e.g. accelerator, pool, network."""

    name: str
    partition: str
    url: str
    settings: Mapping[str, str] = field(default_factory=dict)
    credential: str = ""
    """A reference to a credential, never the credential."""


@dataclass(frozen=True, slots=True)
class InventoryRow:
    """One resource of one provider. What may be claimed is floor((total - reserved) * overcommit_percent / 100)."""

    resource: str
    total: int
    reserved: int = 0
    overcommit_percent: int = 100
    used: int = 0

    @property
    def capacity(self) -> int:
        """How much may be claimed in all."""
        return (self.total - self.reserved) * self.overcommit_percent // 100


@dataclass(frozen=True, slots=True)
class Inspection:
    """What a driver found when it looked at a provider."""

    kind: Kind
    inventory: tuple[InventoryRow, ...]
    capabilities: tuple[str, ...]
    settings: Mapping[str, str] = field(default_factory=dict)
    """Settings that the inspection decided, e.g. the accelerator that was proved to work."""
    facts: Mapping[str, str] = field(default_factory=dict)
    """For people: model, versions, what was measured."""


@dataclass(frozen=True, slots=True)
class Provider:
    """What has resources to give, as the inventory knows it."""

    name: str
    partition: str
    kind: Kind
    url: str
    settings: Mapping[str, str]
    credential: str
    capabilities: tuple[str, ...]
    inventory: tuple[InventoryRow, ...]
    generation: int
    enabled: bool = True
    dirty: bool = False
    suspect_count: int = 0
    quarantined: str = ""
    """Why it is out of service; empty when it is not."""
    facts: Mapping[str, str] = field(default_factory=dict)

    @property
    def target(self) -> Target:
        """What a driver needs to reach it."""
        return Target(self.name, self.partition, self.url, self.settings, self.credential)


@dataclass(frozen=True, slots=True)
class Claim:
    """One machine's exclusive hold on resources of exactly one provider."""

    id: str
    machine_id: str
    project: str
    machine: str
    target: Target
    kind: Kind
    resources: Resources
    """What is held: for a provider given whole, all that it has."""
    fence: int
    """Grows with every claim on the provider; a driver refuses to act for an older fence than it has seen."""
    capabilities: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Mark:
    """Written on everything that is made for a machine, so that it can be found, adopted or cleaned."""

    project: str
    machine: str
    machine_id: str
    run_id: str
    fence: int


@dataclass(frozen=True, slots=True)
class Evidence:
    """An observation newer than the action that it proves."""

    level: VerifyLevel
    source: str
    """Where it was seen: `power`, `console`, `dhcp-lease`, `arp`, `guest-agent`, `call-home`, `ssh-banner`, ..."""
    observed: str
    """What was seen, for people; at most a few hundred characters."""
    at: datetime


@dataclass(frozen=True, slots=True)
class StepEstimate:
    """How long a step usually takes, learned from runs that ended ready. Times in seconds."""

    step: str
    p50_seconds: float
    p95_seconds: float
    runs: int
    """How many runs this was learned from."""
    basis: str
    """What those runs have in common with the one at hand, for people."""


@dataclass(frozen=True, slots=True)
class Verb:
    """One call to a driver, for the transcript: never its arguments, which may name what is secret."""

    name: str
    at: datetime
    """When it was called first."""
    seconds: float
    """How long the calls took together."""
    said: str = ""
    """The name of the error that it raised; empty when it did what was asked."""
    count: int = 1
    """How many equal calls this stands for: in a row, or taking turns with others, as a poll does."""


@dataclass(frozen=True, slots=True)
class CallHome:
    """What a guest said of itself when it called home."""

    at: datetime
    hostname: str = ""
    instance_id: str = ""
    boot_id: str = ""
    addresses: tuple[str, ...] = ()
    ssh_host_keys: tuple[str, ...] = ()
    status: str = "done"
    """`done` when the guest's set-up ended well; anything else fails the level `guest`."""
    errors: tuple[str, ...] = ()
    peer: str = ""
    """The address that the call came from."""
