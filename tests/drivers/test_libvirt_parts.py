"""The libvirt driver's parts that need no daemon: errors, URLs, definitions, marks, and what console and tables say."""

from __future__ import annotations

import subprocess
import sys
import uuid
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import libvirt
import pytest

from mulligan.activities.drivers.base import Deadline, Shape
from mulligan.activities.drivers.libvirt.addresses import neighbours
from mulligan.activities.drivers.libvirt.bases import base_prefix
from mulligan.activities.drivers.libvirt.console import chunk_of
from mulligan.activities.drivers.libvirt.definition import DiskFile, Parts, domain_xml
from mulligan.activities.drivers.libvirt.driver import open_libvirt, settings_of
from mulligan.activities.drivers.libvirt.faults import translate
from mulligan.activities.drivers.libvirt.guest import boot_sector
from mulligan.activities.drivers.libvirt.link import unattended
from mulligan.activities.drivers.libvirt.marks import domain_name, mac_address, machine_uuid
from mulligan.activities.drivers.registry import normalise_url, open_driver
from mulligan.activities.errors import (
    AccessDenied,
    Busy,
    Conflict,
    HostNotReady,
    InvalidRequest,
    MulliganError,
    NotFound,
    Transient,
    Unreachable,
    Unsupported,
)
from mulligan.activities.values import Firmware, ImageFormat, Mark, Resources, Target

WITHOUT_THE_BINDING = """
import asyncio, pathlib, sys
sys.modules["libvirt"] = None
from mulligan.activities.drivers.registry import open_driver
from mulligan.activities.errors import HostNotReady
from mulligan.activities.values import Target
try:
    asyncio.run(open_driver(Target("hyp-1", "default", "qemu:///system"), state_dir=pathlib.Path(".")))
except HostNotReady as error:
    print(error.remedy, error.message, sep="; ")
"""
MARK = Mark("shop", "web-1", "0a3f6c9e-5f1b-4a44-9e9c-9d6c1a8b2f00", "run-7", 3)
SHAPE = Shape(Resources(2, 512, 4), Firmware.ANY)
BASE = DiskFile("/pool/base.raw", ImageFormat.RAW)
PARTS = Parts(DiskFile("/pool/d.qcow2", ImageFormat.QCOW2, BASE), "/pool/c.log", "/pool/s.iso", "/pool/n.fd", "net")


class Said(libvirt.libvirtError):
    """libvirt's error with a code and a message, as its library would raise it."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.err = (code, libvirt.VIR_FROM_NONE, message, libvirt.VIR_ERR_ERROR, None, None, None, -1, -1)


@pytest.mark.parametrize(
    ("code", "message", "expected"),
    [
        (libvirt.VIR_ERR_NO_DOMAIN, "Domain not found", NotFound),
        (libvirt.VIR_ERR_NO_STORAGE_VOL, "Storage volume not found", NotFound),
        (libvirt.VIR_ERR_AUTH_FAILED, "authentication failed", AccessDenied),
        (libvirt.VIR_ERR_SYSTEM_ERROR, "Permission denied (publickey)", AccessDenied),
        (libvirt.VIR_ERR_SYSTEM_ERROR, "Failed to connect socket to '/run/libvirt/libvirt-sock'", HostNotReady),
        (libvirt.VIR_ERR_SYSTEM_ERROR, "unable to connect to server: Connection refused", Unreachable),
        (libvirt.VIR_ERR_INTERNAL_ERROR, "client socket is closed", Unreachable),
        (libvirt.VIR_ERR_RPC, "client socket is closed", Unreachable),
        (libvirt.VIR_ERR_INTERNAL_ERROR, "pool 'x' has asynchronous jobs running.", Busy),
        (libvirt.VIR_ERR_OPERATION_TIMEOUT, "cannot acquire state change lock", Busy),
        (libvirt.VIR_ERR_OPERATION_FAILED, "domain 'x' already exists with uuid y", Conflict),
        (libvirt.VIR_ERR_OPERATION_INVALID, "domain is not running", Conflict),
        (libvirt.VIR_ERR_CONFIG_UNSUPPORTED, "no such firmware", Unsupported),
        (libvirt.VIR_ERR_INTERNAL_ERROR, "qemu unexpectedly closed the monitor", Transient),
    ],
)
def test_every_kind_of_libvirt_error_has_its_own_type(code: int, message: str, expected: type[MulliganError]) -> None:
    """The type says whether trying again helps; the message keeps what was asked and what libvirt said."""
    error = translate(Said(code, message), "starting domain x", "host-1")
    assert type(error) is expected
    assert "starting domain x" in error.message
    assert message.rstrip(".") in error.message
    assert error.metadata["provider"] == "host-1"


@pytest.mark.parametrize(
    ("given", "normal"),
    [
        ("qemu:///system", "qemu:///system"),
        (" QEMU:///system/ ", "qemu:///system"),
        ("qemu+ssh://Root@Host.Example/system", "qemu+ssh://Root@host.example/system"),
        ("qemu+ssh://host", "qemu+ssh://host/system"),
        ("qemu+tls://host/system?mode=direct", "qemu+tls://host/system?mode=direct"),
        ("qemu+ssh://u.v@host:22/system#?command=x", "qemu+ssh://u.v@host:22/system"),
        ("simulated://fleet/7", "simulated://fleet/7"),
    ],
)
def test_a_provider_has_one_spelling(given: str, normal: str) -> None:
    """Two spellings of one URL are seen to be the same; the normal one stays as it is."""
    assert normalise_url(given) == normal
    assert normalise_url(normal) == normal


@pytest.mark.parametrize("url", ["qemu+ssh://root:secret@host/system", "qemu+tls:///system", "qemu:///nonsense"])
def test_a_url_that_cannot_work_is_refused_without_repeating_it(url: str) -> None:
    """Passwords, missing hosts and unknown paths are field violations; a secret is not in the message."""
    with pytest.raises(InvalidRequest) as caught:
        normalise_url(url)
    assert caught.value.violations[0][0] == "url"
    assert "secret" not in caught.value.message


@pytest.mark.parametrize(
    "query",
    ["command=/x", "c%6fmmand=/x", "mode=legacy&command=/x", "mode=legacy;command=/x", "netcat=/x", "socket=/x",
     "keyfile=/x", "pkipath=/x", "known_hosts=/x", "known_hosts_verify=ignore", "no_verify=1", "proxy=netcat",
     "sshauth=agent", "name=test:///default", "mode=other", "&"],
)  # fmt: skip
@pytest.mark.parametrize("url", ["qemu+ssh://host/system", "qemu+tls://host/system", "qemu+unix:///system"])
def test_whatever_libvirt_would_run_or_read_is_refused(url: str, query: str) -> None:
    """Who may register a provider may not run programs as the worker's user; the error tells what may be written."""
    with pytest.raises(InvalidRequest, match=r"mode=auto, mode=direct, mode=legacy.*~/\.ssh/config") as caught:
        normalise_url(f"{url}?{query}")
    assert caught.value.violations[0][0] == "url"


@pytest.mark.parametrize(
    "place",
    ["-oProxyCommand=x@host", "-oProxyCommand=x", "user@-host", "a b@host", "a%0ab@host", "a@b@host", "@host",
     "ho\nst", "host\t", "ho$(id)st", "'host'", "[::1", "host:x", "host:99999", "%2doProxyCommand=x"],
)  # fmt: skip
def test_a_user_or_host_that_is_none_is_refused(place: str) -> None:
    """ssh would take it for an option, or a shell for something else."""
    with pytest.raises(InvalidRequest) as caught:
        normalise_url(f"qemu+ssh://{place}/system")
    assert caught.value.violations[0][0] == "url"


async def test_no_program_of_a_url_is_run_wherever_the_url_came_from(tmp_path: Path) -> None:
    """A provider that was registered before, or by another way, is refused when it is opened."""
    evil, trace = tmp_path / "evil.sh", tmp_path / "trace"
    evil.write_text(f"#!/bin/sh\nid > {trace}\n")
    evil.chmod(0o755)
    url = f"qemu+ssh://root@127.0.0.1/system?command={evil}&mode=legacy"
    with pytest.raises(InvalidRequest):
        await open_driver(Target("evil", "default", url), state_dir=tmp_path)
    assert not trace.exists()


async def test_an_unknown_scheme_lists_the_known_ones(tmp_path: Path) -> None:
    """The error shows what to write instead."""
    with pytest.raises(Unsupported, match=r"qemu\+ssh://.*simulated://"):
        await open_driver(Target("p", "default", "vmware://host"), state_dir=tmp_path)


def test_ssh_never_asks_a_person() -> None:
    """A prompt for a password would hang a worker."""
    assert unattended("qemu+ssh://host/system") == "qemu+ssh://host/system?no_tty=1"
    assert unattended("qemu:///system") == "qemu:///system"


async def test_no_daemon_says_how_to_start_it(tmp_path: Path) -> None:
    """The host is not ready, and the remedy is a command of ours."""
    url = f"qemu+unix:///system?socket={tmp_path}/libvirt-sock"
    with pytest.raises(HostNotReady) as caught:
        await open_libvirt(Target("p", "default", url), Deadline.after(10))
    assert caught.value.remedy == "mulligan doctor --mend"


async def test_a_host_that_refuses_is_unreachable() -> None:
    """Nothing listens there: it may come back, so it is transient."""
    with pytest.raises(Unreachable):
        await open_libvirt(Target("p", "default", "qemu+ssh://127.0.0.1:9/system"), Deadline.after(10))


async def test_a_deadline_in_the_past_is_unreachable_at_once() -> None:
    """No call is begun that has no time."""
    with pytest.raises(Unreachable):
        await open_libvirt(Target("p", "default", "qemu+ssh://127.0.0.1:9/system"), Deadline.after(0))


def test_an_unknown_setting_is_a_field_violation() -> None:
    """A typing error is found when the provider is registered, not when a machine hangs."""
    with pytest.raises(InvalidRequest) as caught:
        settings_of(Target("p", "default", "qemu:///system", {"netwrok": "x"}))
    assert caught.value.violations[0][0] == "settings.netwrok"


def definition(mark: Mark = MARK, shape: Shape = SHAPE, accelerator: str = "tcg") -> ET.Element:
    """A definition, parsed."""
    return ET.fromstring(domain_xml(mark, shape, accelerator, PARTS)[0])


def test_a_definition_carries_the_mark() -> None:
    """Whoever finds the domain knows whose it is."""
    label = definition().find("metadata/{urn:mulligan:v1}machine")
    assert label is not None
    assert {key: label.get(key) for key in ("project", "machine", "id", "run", "fence")} == {
        "project": "shop",
        "machine": "web-1",
        "id": MARK.machine_id,
        "run": "run-7",
        "fence": "3",
    }


def test_a_definition_leaves_nothing_to_be_probed() -> None:
    """Disk and backing file have their formats written out, and the chain is ended."""
    disk = definition().find("devices/disk[@device='disk']")
    assert disk is not None
    assert disk.find("driver[@type='qcow2']") is not None
    assert disk.find("backingStore/format[@type='raw']") is not None
    assert disk.find("backingStore/backingStore") is not None


@pytest.mark.parametrize(
    ("firmware", "attribute"), [(Firmware.ANY, None), (Firmware.BIOS, None), (Firmware.UEFI, "efi")]
)
def test_firmware_is_bios_unless_uefi_is_asked_for(firmware: Firmware, attribute: str | None) -> None:
    """UEFI comes without Secure Boot, since images are seldom signed."""
    os = definition(shape=Shape(Resources(1, 64, 1), firmware)).find("os")
    assert os is not None
    assert os.get("firmware") == attribute
    features = {each.get("name"): each.get("enabled") for each in os.iterfind("firmware/feature")}
    assert features == ({"secure-boot": "no", "enrolled-keys": "no"} if attribute else {})


def test_an_architecture_without_machines_is_unsupported() -> None:
    """The error names what there is."""
    with pytest.raises(Unsupported, match="x86_64"):
        definition(shape=Shape(Resources(1, 64, 1), Firmware.ANY, "riscv64"))


def test_accelerators_differ_in_type_and_processor() -> None:
    """KVM passes the host's processor through; emulation gives all that it can."""
    assert [definition(accelerator=each).get("type") for each in ("kvm", "tcg")] == ["kvm", "qemu"]


def test_equal_definitions_have_equal_fingerprints() -> None:
    """That is how a repeated define knows that there is nothing to do."""
    same, other = domain_xml(MARK, SHAPE, "tcg", PARTS)[1], domain_xml(MARK, SHAPE, "kvm", PARTS)[1]
    assert same == domain_xml(MARK, SHAPE, "tcg", PARTS)[1]
    assert same != other


def test_names_are_safe_and_unique_by_the_machine() -> None:
    """Odd characters are replaced, and two machines of one name do not collide."""
    name = domain_name(Mark("a/b", "c d", str(uuid.uuid4()), "r", 1))
    assert name.startswith("mulligan-a-b-c-d-")
    assert "/" not in name and " " not in name
    assert domain_name(MARK) != domain_name(Mark("shop", "web-1", str(uuid.uuid4()), "r", 3))


def test_a_machine_keeps_its_uuid_and_changes_its_mac_with_the_fence() -> None:
    """So that a lease of an earlier try is never taken for this one."""
    assert str(machine_uuid(MARK.machine_id)) == MARK.machine_id
    assert machine_uuid("not-a-uuid") == machine_uuid("not-a-uuid")
    later = Mark("shop", "web-1", MARK.machine_id, "run-8", 4)
    assert mac_address(MARK) == mac_address(MARK) != mac_address(later)
    assert mac_address(MARK).startswith("52:54:00:")


@pytest.mark.parametrize("digest", ["md5:" + "0" * 32, "sha256:short", "nothing"])
def test_what_is_no_digest_names_no_base(digest: str) -> None:
    """A base can only be asked for by a strong digest."""
    with pytest.raises(InvalidRequest):
        base_prefix(digest)


def test_a_character_cut_in_two_is_left_for_the_next_read() -> None:
    """Reading on gives the whole character, and nothing is lost or repeated."""
    block = "grün".encode()
    first = chunk_of(10, block[:3])
    assert (first.text, first.offset, first.next_offset) == ("gr", 10, 12)
    assert chunk_of(first.next_offset, block[2:]).text == "ün"


def test_bytes_that_are_no_text_do_not_stop_the_console() -> None:
    """Firmware writes what it likes."""
    assert chunk_of(0, b"a\xffb").text == "a\N{REPLACEMENT CHARACTER}b"


def test_only_complete_neighbours_of_the_machine_count() -> None:
    """Incomplete entries, other machines and link-local addresses are passed over."""
    table = (
        "IP address       HW type     Flags       HW address            Mask     Device\n"
        "10.1.1.5         0x1         0x2         52:54:00:AA:bb:cc     *        virbr0\n"
        "10.1.1.6         0x1         0x0         52:54:00:aa:bb:cc     *        virbr0\n"
        "169.254.1.6      0x1         0x2         52:54:00:aa:bb:cc     *        virbr0\n"
        "10.1.1.7         0x1         0x2         52:54:00:00:00:01     *        virbr0\n"
    )
    assert [each.address for each in neighbours(table, frozenset({"52:54:00:aa:bb:cc"}))] == ["10.1.1.5"]


def test_without_libvirts_binding_a_provider_says_what_installs_it(tmp_path: Path) -> None:
    """As in an installation for the simulation alone: in a process of its own, which cannot import it."""
    done = subprocess.run(
        [sys.executable, "-P", "-c", WITHOUT_THE_BINDING], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert done.stdout.startswith("make venv; qemu:///system needs the Python binding of libvirt")
    assert "the extra `libvirt`" in done.stdout


def test_a_boot_sector_is_one() -> None:
    """512 bytes with the signature, and a line that is too long is refused."""
    made: Any = boot_sector("hello")
    assert (len(made), made[-2:]) == (512, b"\x55\xaa")
    with pytest.raises(ValueError, match="room"):
        boot_sector("x" * 401)
