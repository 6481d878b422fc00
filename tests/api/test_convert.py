"""Requests and evidence as messages and as values: nothing is lost on the way, and equal requests become equal."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

from mulligan.activities.history import evidence_of
from mulligan.activities.inventory.codec import dump, load
from mulligan.activities.values import DiskKind, Evidence, RootDisk, VerifyLevel
from mulligan.api.cli.display import evidence_text
from mulligan.api.convert import evidence_message, request_value, spec_message
from mulligan.v1 import machine_pb2


def spec(**hints: object) -> machine_pb2.MachineSpec:
    """A machine whose root disk is described so."""
    return machine_pb2.MachineSpec(name="web-1", image="demo", root_disk=machine_pb2.RootDisk(**hints))  # type: ignore[arg-type]


def test_hints_of_the_root_disk_have_one_spelling() -> None:
    """Blanks and `0x` do not make another request."""
    solid = machine_pb2.DISK_KIND_SOLID_STATE
    asked = request_value(spec(serial=" S3Z9 ", wwn="0x5000C500", model="870 ", kind=solid, min_gib=400))
    assert asked.root_disk == RootDisk("S3Z9", "5000c500", "870", DiskKind.SOLID_STATE, 400)
    assert request_value(spec_message(asked)) == asked


def test_a_request_without_hints_shows_none() -> None:
    """Absent, rather than a message of empty fields."""
    asked = request_value(machine_pb2.MachineSpec(name="web-1", image="demo"))
    assert asked.root_disk == RootDisk()
    assert not spec_message(asked).HasField("root_disk")


def test_evidence_of_no_level_is_told_without_one() -> None:
    """Such as that a disk was written: it is no level that was asked for. What was kept before still has its level."""
    at = datetime(2026, 1, 2, tzinfo=UTC)
    wrote = Evidence(None, "deploy-agent", "wrote 7 bytes", at)
    message = evidence_message(wrote)
    assert message.level == machine_pb2.VERIFY_LEVEL_UNSPECIFIED
    assert evidence_text(message) == "deploy-agent: wrote 7 bytes"
    told = {"level": None, "source": "deploy-agent", "observed": "wrote 7 bytes", "at": at.isoformat()}
    powered = replace(wrote, level=VerifyLevel.POWER)
    assert evidence_of({"evidence": [told, told | {"level": "power"}]}) == (wrote, powered)
    assert evidence_text(evidence_message(powered)) == "power: deploy-agent: wrote 7 bytes"
    stored = tuple[Evidence, ...]
    assert load(stored, dump(stored, (wrote,))) == (wrote,)
