"""The protocol's enums beside the domain's words, one table each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any, Generic, Protocol, TypeVar

from mulligan.activities import values
from mulligan.activities.bmc_health import BmcState
from mulligan.activities.events import EventKind
from mulligan.activities.inventory.claims import ClaimState, DriftKind
from mulligan.activities.inventory.edits import EditKind
from mulligan.activities.inventory.explanation import Verdict
from mulligan.activities.inventory.suspects import SuspectKind
from mulligan.activities.levers import LeverKind
from mulligan.v1 import images_pb2, inventory_pb2, machine_pb2, run_pb2

W = TypeVar("W", bound=StrEnum)


class _ProtocolEnum(Protocol):
    def items(self) -> Sequence[tuple[str, int]]:
        """Names and numbers."""


class Names(Protocol):
    """Any enum's table, as far as its names go."""

    def name(self, word: str) -> str:
        """The contract's name of a word; the word itself if it is none."""


class EnumTable(Generic[W]):
    """Words to numbers and back. The number 0 means `absent`, where that is given."""

    def __init__(self, known: _ProtocolEnum, prefix: str, words: type[W], absent: W | None = None) -> None:
        self._absent = absent
        numbers = dict(known.items())
        self._numbers: dict[W, int] = {
            word: numbers.get(f"{prefix}_{word.value.replace('-', '_').upper()}", 0) for word in words
        }
        names = {number: name for name, number in numbers.items()}
        self._names: Mapping[str, str] = {word.value: names[number] for word, number in self._numbers.items() if number}
        self._words: Mapping[int, W] = {number: word for word, number in self._numbers.items() if number}

    def number(self, word: W) -> Any:
        """The protocol's number of a word; 0 for a word that the protocol says by absence."""
        return self._numbers[word]

    def name(self, word: str) -> str:
        """The contract's name of a word, as JSON has it, e.g. RUN_OUTCOME_READY; the word itself if it is none."""
        return self._names.get(word, word)

    def word(self, number: int) -> W:
        """The word of a number that was validated before."""
        if number == 0 and self._absent is not None:
            return self._absent
        return self._words[number]


KIND = EnumTable(machine_pb2.MachineKind, "MACHINE_KIND", values.Kind, values.Kind.ANY)
PLACEMENT = EnumTable(machine_pb2.Placement, "PLACEMENT", values.Placement, values.Placement.PACK)
WHEN_NONE = EnumTable(machine_pb2.WhenNone, "WHEN_NONE", values.WhenNone, values.WhenNone.FAIL)
ON_FAILURE = EnumTable(machine_pb2.OnFailure, "ON_FAILURE", values.OnFailure, values.OnFailure.ROLL_BACK)
FIRMWARE = EnumTable(machine_pb2.Firmware, "FIRMWARE", values.Firmware, values.Firmware.ANY)
VERIFY = EnumTable(machine_pb2.VerifyLevel, "VERIFY_LEVEL", values.VerifyLevel, values.VerifyLevel.ADDRESS)
SERVICE = EnumTable(machine_pb2.ServiceKind, "SERVICE_KIND", values.ServiceKind, values.ServiceKind.SSH)
DISK_KIND = EnumTable(machine_pb2.DiskKind, "DISK_KIND", values.DiskKind, values.DiskKind.ANY)
ERASE = EnumTable(machine_pb2.EraseMode, "ERASE_MODE", values.Erase, values.Erase.METADATA)
MACHINE_STATE = EnumTable(machine_pb2.MachineState, "MACHINE_STATE", values.MachineState)
FORMAT = EnumTable(images_pb2.ImageFormat, "IMAGE_FORMAT", values.ImageFormat)
COMPRESSION = EnumTable(images_pb2.Compression, "COMPRESSION", values.Compression, values.Compression.NONE)
OUTCOME = EnumTable(run_pb2.RunOutcome, "RUN_OUTCOME", values.Outcome)
LEVER = EnumTable(run_pb2.LeverKind, "LEVER_KIND", LeverKind)
EVENT = EnumTable(run_pb2.RunEventKind, "RUN_EVENT_KIND", EventKind)
CLAIM_STATE = EnumTable(inventory_pb2.ClaimState, "CLAIM_STATE", ClaimState)
DRIFT = EnumTable(inventory_pb2.AuditClaimsResponse.Kind, "KIND", DriftKind)
EDIT_KIND = EnumTable(inventory_pb2.EditKind, "EDIT_KIND", EditKind)
SUSPECT_KIND = EnumTable(inventory_pb2.SuspectKind, "SUSPECT_KIND", SuspectKind)
BMC_STATE = EnumTable(inventory_pb2.BmcState, "BMC_STATE", BmcState)
VERDICT = EnumTable(inventory_pb2.Explanation.Verdict, "VERDICT", Verdict)


class RunKind(StrEnum):
    """What a run does. Its workflow id begins with this word."""

    PROVISION = "provision"
    RELEASE = "release"
    RECLAIM = "reclaim"
    ENROL = "enrol"


RUN_KIND = EnumTable(run_pb2.RunKind, "RUN_KIND", RunKind)
PROVIDER_KINDS: Mapping[values.Kind, Any] = {
    values.Kind.ANY: inventory_pb2.PROVIDER_KIND_UNSPECIFIED,
    values.Kind.VIRTUAL: inventory_pb2.PROVIDER_KIND_HYPERVISOR,
    values.Kind.BARE_METAL: inventory_pb2.PROVIDER_KIND_SERVER,
}
