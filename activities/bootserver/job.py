"""A job of the boot server: mostly what the deploy agent shall do on one server, its boots, and what came of them.

A live machine has a job too, which is open for as long as it lives: what it boots is served, again and again.

A job lives in three files of one directory, so that any process of this host can go on with it:

    <job>.json        what must survive anything: written to the disk before anybody is told
    <job>.seen.json   what was reported last, and how much was fetched: may be lost, and is reported again
    <job>.seed        the machine's NoCloud seed; removed when the job is closed
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from mulligan.activities.values import Erase, Firmware, Identity, Mark, RootDisk


class JobKind(StrEnum):
    """What the agent shall do, or LIVE for a machine that runs without a disk, where there is no agent."""

    DEPLOY = "deploy"
    ERASE = "erase"
    LIVE = "live"


class Phase(StrEnum):
    """What the agent is at, as it reports."""

    STARTING = "starting"
    HARDWARE = "hardware"
    CHOOSING = "choosing"
    ERASING = "erasing"
    WRITING = "writing"
    CHECKING = "checking"
    CONFIGURING = "configuring"
    WAITING = "waiting"
    FAILED = "failed"


class Order(StrEnum):
    """What the agent is told in answer to a report."""

    GO_ON = "go-on"
    REBOOT = "reboot"
    POWER_OFF = "power-off"


def job_id(provider: str, mark: Mark, kind: JobKind) -> str:
    """The job's name: one of each kind for each claim of a machine. Each provider counts its fences by itself."""
    return f"{mark.machine_id}-{provider}-{mark.fence}-{kind}"


def older_id(mark: Mark, kind: JobKind) -> str:
    """What such a job was called before its provider was in its name."""
    return f"{mark.machine_id}-{mark.fence}-{kind}"


def may_be_of(job: str, provider: str) -> bool:
    """Whether a job of this name may be the provider's; those with older names may be anybody's."""
    claimed = job.rsplit("-", 2)[0]
    return claimed.endswith(f"-{provider}") or len(claimed) <= _MACHINE_ID


_MACHINE_ID = 36
"""Characters of a machine's id."""


@dataclass(frozen=True, slots=True)
class Payload:
    """A file that is served to the agent."""

    path: str
    bytes: int
    digest: str
    """`sha256:<hex>` of all of it."""


@dataclass(frozen=True, slots=True)
class Medium:
    """What is booted: kernel, initrd and ISO, and where in the ISO a run's kernel arguments are written.

    A live image has some of it: paths are empty for what there is not, and an ISO without a hole is served as it is.
    """

    kernel: str
    initrd: str
    iso: str
    hole_offset: int
    hole: str
    """What is served in place of as many bytes of the ISO."""
    command_line: str


@dataclass(frozen=True, slots=True)
class Boot:
    """One boot of the agent. Its token is good for the first boot that uses it, which then owns it."""

    attempt: int
    expires_at: datetime
    macs: tuple[str, ...] = ()
    """Network cards that are answered with the agent; empty when it is booted from virtual media."""
    medium: Medium | None = None
    on_at: datetime | None = None
    """When the server was about to be switched on for it; what boots before that is not this boot."""
    at: datetime | None = None
    """When the server was switched on for it."""
    owner: str = ""
    """What the agent's boot calls itself; empty until it came."""
    owned_at: datetime | None = None
    peer: str = ""
    """The address it came from; of a live machine, the one that its seed went to last."""


@dataclass(frozen=True, slots=True)
class PermitGiven:
    """A disk to which the agent may do what cannot be undone; from then on it counts as changed."""

    disk: str
    """For people."""
    what: str
    at: datetime
    path: str = ""
    serial: str = ""
    wwn: str = ""
    """By which namespaces of one NVMe drive are told apart: they have one serial number."""
    model: str = ""
    size_bytes: int = 0
    """0 where it was not told, as to those who noted no more than the names."""


@dataclass(frozen=True, slots=True)
class Job:
    """What survives."""

    id: str
    kind: JobKind
    machine: str
    workflow_id: str
    run_id: str
    asked_by: str
    """The execution of a workflow that asked for it: another one wants it done anew."""
    provider: str = ""
    """Whose server it is."""
    asked_at: datetime | None = None
    """When an attempt asked for it last."""
    identity: Identity = field(default_factory=Identity)
    """Which server it is, as its BMC says; no disk of one that is known to be another may be changed."""
    url: str = ""
    """How the server reaches the boot server; empty before the first boot."""
    firmware: Firmware = Firmware.ANY
    root_disk: RootDisk = field(default_factory=RootDisk)
    erase: Erase = Erase.NONE
    only: tuple[PermitGiven, ...] = ()
    """The disks that are erased; empty for every fixed disk."""
    wrote: tuple[PermitGiven, ...] = ()
    """Disks that the machine was given: an erase of every fixed disk that has not erased these is none."""
    gone: tuple[PermitGiven, ...] = ()
    """Those of `wrote` that its agent did not find, which is not told to anybody yet."""
    missed: tuple[PermitGiven, ...] = ()
    """Disks that it was given and had no more, as was told: a release that is asked for after that does without."""
    image: Payload | None = None
    packed: Payload | None = None
    """The image's raw disk as a zstd stream, where it goes to the server so."""
    seed: Payload | None = None
    attempt: int = 0
    """Of the newest boot; 0 before the first."""
    boot: Boot | None = None
    """The newest boot; None when it was given up."""
    permits: tuple[PermitGiven, ...] = ()
    order: Order = Order.GO_ON
    result: Mapping[str, Any] | None = None
    """What the agent said that it did, when it was done."""
    closed: bool = False
    started: bool = False
    """Whether the server was made ready to boot from the disk that was written."""

    @property
    def bound_to(self) -> tuple[str, str]:
        """What the job's tokens are bound to, besides the job."""
        return self.workflow_id, self.run_id

    @property
    def claim(self) -> str:
        """The claim that it is for, as its name says it."""
        return self.id.rpartition("-")[0]

    @property
    def written(self) -> bool:
        """Whether a disk may have been changed."""
        return bool(self.permits)

    @property
    def done(self) -> bool:
        """Whether the agent did it, and not only that there was nothing to do."""
        return self.result is not None and not self.result.get("nothing")


@dataclass(frozen=True, slots=True)
class Report:
    """What the agent said last."""

    at: datetime
    phase: Phase
    said: str = ""
    done: int = 0
    total: int = 0
    error: Mapping[str, str] | None = None
    """Why it failed: `name` and `message`."""

    @classmethod
    def failed(cls, at: datetime, name: str, why: str) -> Report:
        """What counts as said by an agent that is not believed."""
        return cls(at, Phase.FAILED, why, error={"name": name, "message": why})


@dataclass(frozen=True, slots=True)
class Seen:
    """What was seen of one boot."""

    attempt: int = 0
    report: Report | None = None
    fetched: Mapping[str, int] = field(default_factory=dict)
    """Bytes that were sent, by what: medium, script, kernel, initrd, and a live machine's seed by its files."""
    before: Mapping[str, int] = field(default_factory=dict)
    """What of that was sent before the server was switched on, as far as that was said."""
    on_at: datetime | None = None
    """When it was about to be switched on; None where that was not said."""
    refused: str = ""
    """Why somebody was refused last."""
    told: Order = Order.GO_ON
    """The newest order that the agent was given."""
    hardware: Mapping[str, Any] = field(default_factory=dict)
