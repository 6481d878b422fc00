"""Which disk an earlier boot of the agent spoke of: compared alike by the boot server and by the agent."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from mulligan.activities.agent.on_machine import known as on_machine
from mulligan.activities.agent.on_machine.hardware import Disk
from mulligan.activities.bootserver.checks import absent, forbidden
from mulligan.activities.bootserver.job import Job, JobKind, PermitGiven
from mulligan.activities.bootserver.known import same
from mulligan.activities.bootserver.reports import Asked
from mulligan.activities.values import Erase
from tests.bootserver.agent_parts import a_job

NOW = datetime(2026, 11, 30, tzinfo=UTC)
BARE: dict[str, Any] = {"path": "/dev/sda", "serial": "", "wwn": "", "model": "", "size_bytes": 0}
DRIVE = BARE | {"serial": "S-1", "wwn": "5000c500a1b2c3d4", "model": "ST4000", "size_bytes": 4000}
VOLUME = BARE | {"serial": "controller-1", "model": "VD", "size_bytes": 4000}
NVME = BARE | {"serial": "NV-1", "wwn": "eui.0025385b21404321"}


def given(disk: dict[str, Any], what: str = "write") -> PermitGiven:
    """The permit for it."""
    return Asked(disk, what).given(NOW)


CASES: list[tuple[dict[str, Any], dict[str, Any], bool | None]] = [
    (DRIVE, DRIVE | {"path": "/dev/sdb"}, True),
    (DRIVE, DRIVE | {"wwn": "0x5000C500A1B2C3D4"}, True),
    (DRIVE, DRIVE | {"wwn": "5000c500a1b2c3d5"}, False),
    (DRIVE, DRIVE | {"serial": "S-2"}, False),
    (DRIVE, DRIVE | {"serial": "S-2", "wwn": ""}, False),
    (DRIVE, DRIVE | {"serial": ""}, True),
    (DRIVE, DRIVE | {"serial": "", "size_bytes": 5000}, False),
    (DRIVE, DRIVE | {"size_bytes": 5000, "model": "ST4000A"}, True),
    (DRIVE, BARE | {"serial": "S-1"}, True),
    (DRIVE, BARE, None),
    (DRIVE, BARE | {"size_bytes": 4000, "model": "ST4000"}, None),
    (VOLUME, VOLUME | {"size_bytes": 5000}, False),
    (VOLUME, VOLUME | {"model": "other"}, False),
    (NVME, NVME | {"wwn": "uuid.77"}, True),
    (NVME, NVME | {"wwn": "eui.0025385b21404322"}, False),
    (NVME, NVME | {"wwn": "eui.0025385b214043210025385b21404321"}, True),
    (BARE | {"size_bytes": 4000}, BARE | {"size_bytes": 4000, "path": "/dev/vdb"}, True),
    (BARE | {"size_bytes": 4000, "model": "QEMU"}, BARE | {"size_bytes": 4000, "model": "VD"}, False),
    (BARE, BARE, None),
]


@pytest.mark.parametrize(("there", "known", "answer"), CASES)
def test_a_disk_is_the_one_that_was_written(there: dict[str, Any], known: dict[str, Any], answer: bool | None) -> None:
    """Or it is another, or that cannot be told; whoever of the two says it."""
    assert same(there, given(known)) is answer
    plain = there | {"wwn": there["wwn"].removeprefix("eui.")}  # as the agent keeps it
    assert on_machine.same(Disk(**plain), known) is answer


def only(*disks: dict[str, Any]) -> Job:
    """A job that erases what a try wrote."""
    return a_job(JobKind.ERASE, erase=Erase.METADATA, only=tuple(map(given, disks)))


def test_a_disk_that_has_the_written_ones_name_is_not_permitted() -> None:
    """Nor any of two that are like it, whatever an older agent makes of their names."""
    one, two = VOLUME | {"wwn": "5000000000000001"}, VOLUME | {"wwn": "5000000000000002"}
    hardware = {"disks": [one | {"path": "/dev/sdb"}, two]}
    assert "only what this run may have written" in forbidden(only(one), Asked(two, "erase"), hardware)
    assert forbidden(only(one), Asked(one | {"path": "/dev/sdb"}, "erase"), hardware) == ""
    twins = {"disks": [VOLUME, VOLUME | {"path": "/dev/sdb"}]}
    assert "cannot be told" in forbidden(only(VOLUME), Asked(VOLUME, "erase"), twins)
    paths = {"disks": [one, one | {"path": "/dev/sdb"}]}
    assert forbidden(only(one), Asked(one, "erase"), paths) == ""
    stick = {"disks": [VOLUME, VOLUME | {"path": "/dev/sdb", "removable": True}]}
    assert forbidden(only(VOLUME), Asked(VOLUME, "erase"), stick) == ""


@pytest.mark.parametrize("serial", ["", "controller-1"])
def test_a_disk_in_the_place_of_one_that_was_pulled_is_not_it(serial: str) -> None:
    """By its WWN, or by its size where nothing else is told."""
    wrote = VOLUME | {"serial": serial, "wwn": "5000000000000001"}
    other = wrote | {"wwn": "5000000000000002"}
    assert absent((given(wrote),), {"disks": [{"disk": other}]}) == (given(wrote),)
    assert absent((given(wrote),), {"disks": [{"disk": wrote | {"path": "/dev/sdb"}}]}) == ()
    bare = BARE | {"size_bytes": 4000}
    assert absent((given(bare),), {"disks": [{"disk": bare | {"size_bytes": 5000}}]}) == (given(bare),)
    assert absent((given(bare),), {"disks": [{"disk": bare | {"path": "/dev/sdb"}}]}) == ()
