"""Words of which one is chosen: what kind, which format, how far to prove, how it ended."""

from __future__ import annotations

from enum import StrEnum


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
    ISO = "iso"
    KERNEL = "kernel"
    INITRD = "initrd"
    """What a kernel is booted with; never an image of its own."""


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
