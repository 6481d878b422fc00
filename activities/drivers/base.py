"""What a driver promises: one small Protocol per capability, and the words that they share.

Rules for every method of every driver, checked by the contract suite in `tests/drivers`:

- Idempotent: the desired state already there is success, read before anything is written.
- Never retries and never sleeps for long: Temporal owns retries. Every method takes a `Deadline` and gives up with
  `Unreachable` when it passes.
- Everything made carries the `Mark`. What carries the same machine id and an older or equal fence is adopted or
  cleaned; what carries a newer fence raises `StaleFence`; what carries another machine's mark, or none, is never
  touched: `Conflict`.
- Raises the types in `mulligan.activities.errors` only.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Protocol, runtime_checkable

from mulligan.activities.errors import Unreachable
from mulligan.activities.values import Firmware, ImageFormat, Inspection, Mark, PowerState, Resources, Service

CAPABILITIES: Mapping[str, str] = {
    "arch.x86_64": "its machines have x86-64 processors",
    "firmware.bios": "it boots by BIOS",
    "firmware.uefi": "it boots by UEFI",
    "accel.kvm": "its guests were proved to run under KVM",
    "accel.tcg": "its guests were proved to run under emulation",
    "boot.disk": "an image can be put on its disk, and it boots from there",
    "boot.live": "it boots a live image, and no disk of it is touched",
    "boot.live-iso": "it boots a live image that is an ISO: by virtual media, or from the network by BIOS",
    "boot.network": "it boots from the network once when told to",
    "boot.progress": "its BMC says how far a boot came",
    "boot.virtual-media": "it boots from an image behind a URL",
    "console.serial": "its serial console can be read",
    "deploy.agent": "images are put on its disk by Mulligan's deploy agent, which it boots for that",
    "driver.ipmi": "its BMC is reached through IPMI",
    "driver.libvirt": "it is reached through libvirt",
    "driver.redfish": "its BMC is reached through Redfish",
    "driver.simulated": "it is a simulation",
}
"""The names that an `Inspection` chooses from: the architecture and one firmware at least, and what else is true."""


@dataclass(frozen=True, slots=True)
class Deadline:
    """A moment on the monotonic clock after which a call must have given up."""

    at: float

    @classmethod
    def after(cls, seconds: float) -> Deadline:
        """The moment `seconds` from now."""
        return cls(time.monotonic() + seconds)

    @property
    def remaining(self) -> float:
        """Seconds left, never below 0."""
        return max(0.0, self.at - time.monotonic())

    def check(self, doing: str) -> None:
        """Raise `Unreachable` when the moment has passed; `doing` says what took so long."""
        if self.remaining <= 0:
            raise Unreachable(f"{doing}: no answer within the time given for it; it will be tried again", doing=doing)


Progress = Callable[[str, int, int], None]
"""Called with what is done, how much of it is done, and how much there is (bytes; 0 where not known)."""


@dataclass(frozen=True, slots=True)
class BaseImage:
    """A checked image on the partition worker's disk, ready to be given to a provider."""

    digest: str
    """`sha256:<hex>` of the declared bytes: the base's name in the provider's pool."""
    path: Path
    format: ImageFormat
    virtual_size_bytes: int


@dataclass(frozen=True, slots=True)
class Shape:
    """What kind of machine to make."""

    resources: Resources
    firmware: Firmware
    architecture: str = "x86_64"
    arguments: str = ""
    """The kernel's command line, where a kernel is booted in the place of a disk."""


@dataclass(frozen=True, slots=True)
class LiveSource:
    """What a machine without a disk runs: bases in the provider's pool, by their digests."""

    format: ImageFormat
    digest: str
    initrd_digest: str = ""


@dataclass(frozen=True, slots=True)
class PowerReading:
    """The power as the provider says now; `detail` is the backend's own word for it."""

    state: PowerState
    at: datetime
    detail: str = ""
    doubtful: bool = False
    """Whether it is "off" of a BMC that may have restarted since the machine was on: some say so of what runs."""


@dataclass(frozen=True, slots=True)
class ConsoleChunk:
    """Console output from `offset` bytes on. `next_offset` continues it. Never more than 64 KiB at once."""

    offset: int
    next_offset: int
    text: str

    @property
    def last_line(self) -> str:
        """Its last line that says something, of printable characters; empty when none does."""
        lines = [line.strip() for line in self.text.splitlines() if line.strip()]
        return "".join(c for c in lines[-1] if c.isprintable()) if lines else ""


@dataclass(frozen=True, slots=True)
class Sighting:
    """An address of the machine, and the source that saw it (`dhcp-lease`, `arp`, `guest-agent`)."""

    source: str
    address: str
    mac: str
    at: datetime
    """When it was observed to be current: for a DHCP lease, when the lease was given."""


@dataclass(frozen=True, slots=True)
class Sightings:
    """All sightings, and per source that saw nothing why it is silent."""

    found: tuple[Sighting, ...] = ()
    silent: Mapping[str, str] = field(default_factory=dict)


class BootDevice(StrEnum):
    """What a machine can be told to boot from once."""

    DISK = "disk"
    NETWORK = "network"
    VIRTUAL_MEDIA = "virtual-media"


@dataclass(frozen=True, slots=True)
class BootReading:
    """What the BMC says that the machine boots from next, read after anything that was asked."""

    device: BootDevice | None
    """None when there is no override: the machine follows its own order."""
    firmware: Firmware
    """By which firmware; ANY where the BMC does not say."""
    once: bool
    """Whether it says that this holds for one boot. Some say that it stays although they were asked for once."""
    at: datetime
    detail: str
    """The BMC's own words, e.g. `Pxe, Once, UEFI`."""
    asked: BootDevice | None = None
    asked_firmware: Firmware = Firmware.ANY

    @property
    def agrees(self) -> bool:
        """Whether it will boot from what was asked; where not, the machine must not be switched on."""
        same_firmware = Firmware.ANY in (self.firmware, self.asked_firmware) or self.firmware is self.asked_firmware
        return self.device is self.asked and same_firmware


@dataclass(frozen=True, slots=True)
class MediaReading:
    """One virtual drive, as the BMC says now."""

    slot: str
    url: str
    """What is in it; empty when nothing is."""
    inserted: bool | None
    """The BMC's own claim, which is known to be wrong in both directions; None when it makes none."""
    at: datetime


@dataclass(frozen=True, slots=True)
class ProgressReading:
    """How far a machine came with its boot, as its BMC says."""

    state: str
    """The BMC's word for it, e.g. `SystemHardwareInitializationComplete`."""
    at: datetime | None
    """Since when, by the BMC's clock; None where it does not say."""
    detail: str = ""
    """What the maker has to add."""
    running: bool = False
    """Whether that means that an operating system runs."""

    @property
    def said(self) -> str:
        """What the BMC says, for people."""
        since = f" since {self.at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}" if self.at is not None else ""
        return f"its BMC says {self.state}{f' ({self.detail})' if self.detail else ''}{since}"


class Driver(Protocol):
    """An open connection to one provider. Which of the Protocols below it satisfies is what it can do."""

    moves_bytes: bool
    """Whether images must be fetched for it (only simulated drivers do without)."""

    async def inspect(self, deadline: Deadline) -> Inspection:
        """Look at the provider: inventory, capabilities, and settings proved to work (e.g. the accelerator)."""

    async def remains(self, machine_id: str, deadline: Deadline) -> tuple[str, ...]:
        """List, afresh, every object on the provider that carries this machine's mark; empty after a full undo."""

    async def close(self) -> None:
        """Give back the connection; safe to call twice."""


@runtime_checkable
class Disks(Protocol):
    """The machine's disks: copy-on-write on a base kept once."""

    async def has_base(self, digest: str, deadline: Deadline) -> bool:
        """Whether the base is whole in the provider's pool."""

    async def place_base(self, image: BaseImage, progress: Progress, deadline: Deadline) -> None:
        """Put the base into the pool, whole or not at all."""

    async def remove_bases(self, only: Collection[str] | None, deadline: Deadline) -> tuple[str, ...]:
        """Remove the bases of these digests, or of all, but those that a disk is built on; gives the removed names."""

    async def create_disks(self, mark: Mark, digest: str, disk_gib: int, seed: bytes, deadline: Deadline) -> None:
        """Make the machine's disk of `disk_gib` on the base, and its NoCloud seed (an ISO 9660 image)."""

    async def remove_disks(self, mark: Mark, deadline: Deadline) -> None:
        """Remove disk and seed, and list to be sure (`Leftover`). Nothing there is success."""


@runtime_checkable
class LiveSources(Protocol):
    """Machines without a disk, of drivers that satisfy `Disks`: their bases are kept, and removed, like any other."""

    async def place_live(self, mark: Mark, source: LiveSource, seed: bytes, deadline: Deadline) -> None:
        """Have the machine boot from this, with its NoCloud seed (none for an ISO, where `seed` is empty).

        `Disks.remove_disks` removes what is made here.
        """


@runtime_checkable
class Computers(Protocol):
    """Virtual machines that come into being by definition."""

    async def define(self, mark: Mark, shape: Shape, deadline: Deadline) -> None:
        """Make the machine's definition, powered off; an older one of the same machine is replaced."""

    async def undefine(self, mark: Mark, deadline: Deadline) -> None:
        """Remove the definition (and its NVRAM) and list to be sure. Nothing there is success."""


@runtime_checkable
class Power(Protocol):
    """Power, by verbs of state: the state already there is success."""

    async def power(self, mark: Mark, deadline: Deadline) -> PowerReading:
        """Read the power state."""

    async def power_on(self, mark: Mark, deadline: Deadline) -> None:
        """Ask for power on."""

    async def power_off(self, mark: Mark, deadline: Deadline) -> None:
        """Cut the power. An absent machine is off."""


@runtime_checkable
class Console(Protocol):
    """The serial console's output since the last power on."""

    async def console(self, mark: Mark, offset: int, deadline: Deadline) -> ConsoleChunk:
        """Read from `offset` bytes on."""


@runtime_checkable
class Addresses(Protocol):
    """The machine's addresses, from several sources at once."""

    async def addresses(self, mark: Mark, deadline: Deadline) -> Sightings:
        """Ask every source in parallel; a source that fails is silent, with its reason, and harms no other."""

    async def gateway(self, deadline: Deadline) -> str:
        """The address at which a guest reaches this partition's boot server host; empty when not known."""


@runtime_checkable
class PlayedGuests(Protocol):
    """Guests that the driver plays itself, so that it knows before what they will not do."""

    def unanswered(self, service: Service) -> str:
        """Why no guest here answers so, in words; empty where guests do."""


@runtime_checkable
class BootTarget(Protocol):
    """The one-time boot override: what the next boot, and only that one, starts from.

    BMCs forget overrides, and answer a read with something else than they were asked; the reading says what was asked
    and what they say, and `agrees` compares. Only what the machine did after its boot proves where it booted from.
    """

    async def boot_next(self, mark: Mark, device: BootDevice, firmware: Firmware, deadline: Deadline) -> BootReading:
        """Ask for one boot from `device`, and read back afresh. Firmware ANY leaves the mode as it is.

        An override that already says so is not asked for again. Raises `Unsupported` when the machine cannot.
        """

    async def boot_override(self, mark: Mark, deadline: Deadline) -> BootReading:
        """Read the override."""

    async def clear_boot_override(self, mark: Mark, deadline: Deadline) -> None:
        """Remove the override, and read back (`Leftover`). No override is success."""


@runtime_checkable
class LastingBoot(Protocol):
    """A boot override that stays until it is cleared, for what is booted again and again."""

    async def boot_always(self, mark: Mark, device: BootDevice, firmware: Firmware, deadline: Deadline) -> BootReading:
        """As `boot_next`, for every boot from now on; for one where the BMC offers no more, as `once` then says."""


@runtime_checkable
class BootProgress(Protocol):
    """How far the machine came with its boot, for people who wait; many BMCs do not say."""

    async def boot_progress(self, mark: Mark, deadline: Deadline) -> ProgressReading | None:
        """Read it; None where the BMC does not say."""


@runtime_checkable
class VirtualMedia(Protocol):
    """Images behind URLs, as drives of the machine.

    What a BMC says of its drives is not evidence: it may call the last machine's image inserted, or a new one not. So
    a URL is unique to its run, everything is ejected before, and that the BMC fetched the URL is the evidence.
    """

    async def media(self, deadline: Deadline) -> tuple[MediaReading, ...]:
        """Read every drive that takes a CD or DVD by its URL."""

    async def eject_media(self, mark: Mark, deadline: Deadline) -> None:
        """Eject whatever is in any of the drives, and read back (`Leftover`). Empty drives are success."""

    async def insert_media(self, mark: Mark, url: str, deadline: Deadline) -> MediaReading:
        """Eject everything else, insert the URL, and read back that the drive names it (`Leftover`).

        The URL must hold the mark's run id (`InvalidRequest`), so that an older image cannot be taken for it. A drive
        that names this very URL was filled by an earlier attempt, and is left as it is.
        """
