"""What an operator writes for an IPMI provider: its URL, its settings; and how boot flags are read."""

from __future__ import annotations

from pathlib import Path

import pytest

from mulligan.activities.drivers.base import CAPABILITIES, BootDevice
from mulligan.activities.drivers.ipmi import boot
from mulligan.activities.drivers.ipmi.address import read_address, require_sizes
from mulligan.activities.drivers.ipmi.faults import error_of
from mulligan.activities.drivers.ipmi.troubles import BmcTrouble, Trouble
from mulligan.activities.drivers.registry import normalise_url, open_driver
from mulligan.activities.errors import AccessDenied, HostNotReady, InvalidRequest, NotFound
from mulligan.activities.values import RESOURCES, Firmware, Target


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        ("ipmi://BMC-7.example", "ipmi://bmc-7.example"),
        ("IPMI://10.0.0.7:623/", "ipmi://10.0.0.7"),
        ("ipmi://10.0.0.7:6230", "ipmi://10.0.0.7:6230"),
        ("ipmi://[2001:DB8::7]:623", "ipmi://[2001:db8::7]"),
        ("ipmi://[2001:db8::7]:9", "ipmi://[2001:db8::7]:9"),
    ],
)
def test_a_url_has_one_spelling(written: str, kept: str) -> None:
    """The usual port is left out, so that two spellings are one provider."""
    assert normalise_url(written) == kept


@pytest.mark.parametrize(
    "url",
    ["ipmi://", "ipmi://u@bmc", "ipmi://u:p@bmc", "ipmi://bmc/1", "ipmi://bmc?x=1", "ipmi://bmc#1", "ipmi://bmc:0",
     "ipmi://bmc:70000", "ipmi://-bmc", "ipmi://b mc"],
)  # fmt: skip
def test_a_url_holds_a_host_and_a_port_only(url: str) -> None:
    """Users, passwords and settings have places of their own."""
    with pytest.raises(InvalidRequest):
        normalise_url(url)


def test_all_that_is_wrong_with_settings_is_said_at_once() -> None:
    """Unknown ones, amounts that are none, and firmware that there is not."""
    wrong = {"vcpu": "many", "memory_mib": "0", "firmware": "coreboot", "pool": "x",
             "boot_from": "virtual-media", "macs": "none"}  # fmt: skip
    with pytest.raises(InvalidRequest) as caught:
        read_address(Target("srv", "default", "ipmi://bmc", wrong))
    assert {field for field, _ in caught.value.violations} == {f"settings.{name}" for name in wrong}


def test_a_size_that_is_not_given_is_asked_for() -> None:
    """IPMI tells none of it, so the operator is told what to type."""
    address = read_address(Target("srv", "default", "ipmi://[2001:db8::7]", {"vcpu": "8"}))
    assert (address.port, address.bmc) == (623, "[2001:db8::7]:623")
    with pytest.raises(InvalidRequest, match="--set memory_mib=NUMBER --set disk_gib=NUMBER"):
        require_sizes(address)
    require_sizes(read_address(Target("srv", "default", "ipmi://bmc", dict.fromkeys(RESOURCES, "8"))))


async def test_a_credential_is_needed(tmp_path: Path) -> None:
    """Without the file, without a reference, and with one that is not there, each says what to do."""
    with pytest.raises(HostNotReady):
        await open_driver(Target("srv", "default", "ipmi://bmc", {}, "rack"), state_dir=tmp_path)
    for reference, kind in (("", AccessDenied), ("rack", NotFound)):
        with pytest.raises(kind, match=r"credentials\.yaml"):
            target = Target("srv", "default", "ipmi://bmc", {}, reference)
            await open_driver(target, state_dir=tmp_path, credentials=tmp_path / "credentials.yaml")


def test_every_trouble_is_an_error_that_says_what_to_do() -> None:
    """Of whom, what was asked, what was found; with the BMC's own words and code where it said any."""
    assert "driver.ipmi" in CAPABILITIES
    for trouble in Trouble:
        error = error_of(BmcTrouble(trouble, "own words", 0xC0), "srv", "bmc:623", "switching on")
        assert error.message.startswith("srv: switching on: the BMC at bmc:623: ")
        assert "(own words, code 0xc0); " in error.message
        assert error.metadata["trouble"] == trouble


@pytest.mark.parametrize(
    ("flags", "device", "firmware", "once"),
    [
        ((True, False, True, 1), BootDevice.NETWORK, Firmware.UEFI, True),
        ((True, True, False, 2), BootDevice.DISK, Firmware.BIOS, False),
        ((True, False, False, 5), BootDevice.VIRTUAL_MEDIA, Firmware.BIOS, True),
        ((True, False, True, 6), None, Firmware.UEFI, True),
        ((True, False, False, 0), None, Firmware.ANY, True),
        ((False, False, True, 1), None, Firmware.ANY, True),
    ],
)
def test_boot_flags_are_read(
    flags: tuple[bool, bool, bool, int], device: BootDevice | None, firmware: Firmware, once: bool
) -> None:
    """As table 28-14 has them; what is not marked valid was left by an earlier boot."""
    said = dict(zip(("valid", "persistent", "uefi", "selector"), flags, strict=True))
    found = boot.reading(said)
    assert (found.device, found.firmware, found.once) == (device, firmware, once)


@pytest.mark.parametrize(
    ("asked", "offered", "before", "after"),
    [
        (Firmware.UEFI, (Firmware.BIOS, Firmware.UEFI), False, True),
        (Firmware.BIOS, (Firmware.BIOS, Firmware.UEFI), True, False),
        (Firmware.ANY, (Firmware.UEFI,), False, True),
        (Firmware.ANY, (Firmware.BIOS,), True, False),
        (Firmware.ANY, (Firmware.BIOS, Firmware.UEFI), True, True),
        (Firmware.ANY, (Firmware.BIOS, Firmware.UEFI), False, False),
    ],
)
def test_the_firmware_stays_unless_another_is_asked_for(
    asked: Firmware, offered: tuple[Firmware, ...], before: bool, after: bool
) -> None:
    """The flag has two values only, and "legacy" is one of them: a UEFI machine must not be told that by omission."""
    assert boot.uefi_flag({"uefi": before}, asked, offered) is after


def test_flags_that_are_not_valid_are_believed_only_when_they_are_fresh() -> None:
    """OpenIPMI's simulator never marks them; a real BMC that does not has forgotten."""
    stale = {"valid": False, "persistent": False, "uefi": False, "selector": 1}
    assert not boot.reading(stale, BootDevice.NETWORK).agrees
    assert boot.reading(stale, BootDevice.NETWORK, fresh=True).agrees
    assert not boot.reading(stale, BootDevice.DISK, fresh=True).agrees
