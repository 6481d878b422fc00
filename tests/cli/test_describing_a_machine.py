"""A machine is described by flags, by a file, or by a file with flags over it."""

from __future__ import annotations

import json
from pathlib import Path

import click
import pytest
from google.protobuf import json_format

from mulligan.api.cli.errors import CliError
from mulligan.api.cli.exit_codes import ExitCode
from mulligan.api.cli.spec_file import parse_spec
from mulligan.api.cli.spec_options import service_of
from mulligan.api.cli.text import Amount, Duration, clean
from mulligan.v1 import machine_pb2
from tests.cli.conftest import Mulligan
from tests.cli.scripted import ScriptedApi, provisions, story

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHVzZXI= user@host"
YAML = """\
name: web-1
image: demo
resources: {vcpu: 2, memory_mib: 1024, disk_gib: 8}
kind: bare-metal
verify: VERIFY_LEVEL_CONSOLE
requires: [firmware.uefi]
deadlines:
  bootSeconds: 90
mulligans: 0
ssh_keys:
  - ssh-ed25519 AAAA someone
"""


@pytest.fixture
def asked(api: ScriptedApi, mulligan: Mulligan) -> object:
    """Provisions with these arguments, detached; returns the machine that was asked for and what was said."""
    api.handlers["ProvisionMachine"] = provisions(story())

    def ask(*arguments: str, stdin: str = "") -> tuple[machine_pb2.MachineSpec, str]:
        done = mulligan("machine", "provision", "--detach", *arguments, stdin=stdin)
        assert done.returncode == ExitCode.OK, done.stderr
        spec = api.last("ProvisionMachine").spec
        assert isinstance(spec, machine_pb2.MachineSpec)
        return spec, done.stderr

    return ask


def test_flags_alone_describe_a_machine(asked, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """Every flag reaches the field of the contract that it stands for."""
    (tmp_path / "user-data").write_text("#cloud-config\n")
    (tmp_path / "net").write_text("version: 2\n")
    flags = "--image demo --vcpu 2 --memory 2G --disk 10 --project shop --partition west --kind bare-metal"
    flags += " --require firmware.uefi --require accel.kvm --forbid storage.hdd --provider hyp-1 --placement spread"
    flags += " --wait-for-room --hostname web.example.org --user-data user-data --network-config net --firmware uefi"
    flags += " --service http:8080/healthz --mulligans 2 --on-failure hold --deadline boot=10m --deadline undo=1h30m"
    spec, _ = asked("web-1", *flags.split(), "--ssh-key", KEY)
    assert json_format.MessageToDict(spec, preserving_proto_field_name=True) == {
        "project": "shop",
        "name": "web-1",
        "image": "demo",
        "resources": {"vcpu": "2", "memory_mib": "2048", "disk_gib": "10"},
        "partition": "west",
        "kind": "MACHINE_KIND_BARE_METAL",
        "requires": ["firmware.uefi", "accel.kvm"],
        "forbids": ["storage.hdd"],
        "provider": "hyp-1",
        "placement": "PLACEMENT_SPREAD",
        "when_none": "WHEN_NONE_WAIT",
        "hostname": "web.example.org",
        "ssh_keys": [KEY],
        "user_data": "#cloud-config\n",
        "network_config": "version: 2\n",
        "firmware": "FIRMWARE_UEFI",
        "verify": "VERIFY_LEVEL_SERVICE",
        "service": {"kind": "SERVICE_KIND_HTTP", "port": 8080, "path": "/healthz"},
        "mulligans": 2,
        "on_failure": "ON_FAILURE_HOLD",
        "deadlines": {"boot_seconds": "600", "undo_seconds": "5400"},
    }


def test_a_deadline_of_no_time_is_refused(mulligan: Mulligan) -> None:
    """The API would take it for the default, which is minutes."""
    done = mulligan("machine", "provision", "web-1", "--image", "demo", "--deadline", "verify=0s")
    assert done.returncode == ExitCode.USAGE
    assert "--deadline: verify=0s is no time; it must be 1 second at least" in done.stderr


def test_the_root_disk_of_a_server_is_described(asked, mulligan: Mulligan) -> None:  # type: ignore[no-untyped-def]
    """By what must be true of it; a hint that there is not is refused with those that there are."""
    hints = ("serial=S3Z9", "wwn=0x5000c500", "model=SSD 870", "kind=solid-state", "min-gib=400")
    spec, _ = asked("web-1", "--image", "demo", *(word for hint in hints for word in ("--root-disk", hint)))
    solid = machine_pb2.DISK_KIND_SOLID_STATE
    expected = machine_pb2.RootDisk(serial="S3Z9", wwn="0x5000c500", model="SSD 870", kind=solid, min_gib=400)
    assert spec.root_disk == expected
    for wrong, says in (
        ("size=4", "serial, wwn, model, kind, min-gib"),
        ("kind=tape", "rotational"),
        ("min-gib=x", "whole"),
    ):
        done = mulligan("machine", "provision", "web-1", "--image", "demo", "--root-disk", wrong)
        assert done.returncode == ExitCode.USAGE
        assert says in done.stderr


def test_sizes_have_defaults(asked) -> None:  # type: ignore[no-untyped-def]
    """A name and an image are enough; `mulligans` stays absent, which the contract reads as 1."""
    spec, _ = asked("web-1", "--image", "demo")
    assert spec.resources == machine_pb2.Resources(vcpu=1, memory_mib=512, disk_gib=4)
    assert not spec.HasField("mulligans")


def test_a_file_describes_a_machine_and_flags_win(asked, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """What a flag names replaces what the file says; all else is the file's, and nothing is added."""
    (tmp_path / "machine.yaml").write_text(YAML)
    spec, said = asked("web-2", "--file", "machine.yaml", "--memory", "2048", "--require", "accel.kvm")
    assert (spec.name, spec.image) == ("web-2", "demo")
    assert spec.resources == machine_pb2.Resources(vcpu=2, memory_mib=2048, disk_gib=8)
    assert list(spec.requires) == ["accel.kvm"]
    assert (spec.kind, spec.verify) == (machine_pb2.MACHINE_KIND_BARE_METAL, machine_pb2.VERIFY_LEVEL_CONSOLE)
    assert (spec.deadlines.boot_seconds, spec.HasField("mulligans"), spec.mulligans) == (90, True, 0)
    assert list(spec.ssh_keys) == ["ssh-ed25519 AAAA someone"]
    assert "SSH key" not in said


def test_json_from_standard_input_is_the_same_message(asked) -> None:  # type: ignore[no-untyped-def]
    """What `--output json` shows of a machine's request can be asked for again."""
    told = json_format.MessageToJson(parse_spec(YAML, "a file"), preserving_proto_field_name=True)
    spec, _ = asked("--file", "-", stdin=told)
    assert spec == parse_spec(YAML, "a file")


def test_your_own_key_may_log_in(asked, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """Without --ssh-key the key in ~/.ssh is taken, and said; `none` takes none."""
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh" / "id_ed25519.pub").write_text(f"{KEY}\n")
    spec, said = asked("web-1", "--image", "demo")
    assert list(spec.ssh_keys) == [KEY]
    assert "id_ed25519.pub" in said
    spec, said = asked("web-1", "--image", "demo", "--ssh-key", "none")
    assert (list(spec.ssh_keys), "SSH key" in said) == ([], False)


def test_nobody_is_locked_out_unsaid(asked) -> None:  # type: ignore[no-untyped-def]
    """Where there is no key, it is said that nobody can log in."""
    _, said = asked("web-1", "--image", "demo")
    assert "nobody can log in" in said


def test_a_private_key_is_refused(mulligan: Mulligan, tmp_path: Path) -> None:
    """A slip of the hand does not send a secret to a machine."""
    (tmp_path / "id_ed25519").write_text("-----BEGIN OPENSSH PRIVATE KEY-----\n")
    done = mulligan("machine", "provision", "web-1", "--image", "demo", "--ssh-key", "id_ed25519")
    assert done.returncode == ExitCode.USAGE
    assert "id_ed25519.pub" in done.stderr


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("name: web-1\nresources:\n  vcpus: 2\n", "line 3: Resources has no field 'vcpus'; did you mean vcpu?"),
        ("name: web-1\nimages: demo\n", "line 2: MachineSpec has no field 'images'; did you mean image?"),
        ("name: web-1\nname: web-2\n", "line 2: name is given twice"),
        ("kind: metal\n", "line 1: kind cannot be 'metal'; it is one of virtual, bare-metal"),
        ("resources: {vcpu: two}\n", "line 1: resources.vcpu must be a whole number, not 'two'"),
        ("mulligans: 99999999999\n", "line 1: mulligans is out of range"),
        ("requires: accel.kvm\n", "line 1: requires must be a list"),
        ("name: [web-1]\n", "line 1: name must be a single value"),
        ("resources: 4\n", "line 1: resources must be a mapping"),
        ("- name: web-1\n", "line 1: the file must be a mapping"),
        ("name: 'web-1\n", "this is not YAML"),
        ("", "is empty"),
        ("requires: &a [*a]\n", "requires must be a single value"),
        ("[" * 5000, "a file"),
    ],
)
def test_a_wrong_file_is_told_with_its_line(text: str, complaint: str) -> None:
    """Each mistake is a usage error that says where it is, and what is near."""
    with pytest.raises(CliError, match="a file") as caught:
        parse_spec(text, "a file")
    assert complaint in caught.value.message
    assert caught.value.code is ExitCode.USAGE


def test_a_number_may_be_a_name() -> None:
    """YAML's guesses about types do not change what was written."""
    assert parse_spec("name: 0123\nhostname: on\n", "a file") == machine_pb2.MachineSpec(name="0123", hostname="on")


def test_a_missing_file_is_told(mulligan: Mulligan) -> None:
    """The error names the file, to programs too."""
    done = mulligan("machine", "provision", "--file", "nowhere.yaml", "--output", "json")
    assert done.returncode == ExitCode.USAGE
    assert "nowhere.yaml" in json.loads(done.stderr)["error"]["message"]


@pytest.mark.parametrize("text", ["ftp", "tcp", "ssh:", "ssh:0", "tcp:65536", "tcp:80/x", "http:x/y"])
def test_a_wrong_service_is_refused(text: str) -> None:
    """A service is ssh, tcp with a port, or http, and ports are ports."""
    with pytest.raises(click.BadParameter):
        service_of(text)


@pytest.mark.parametrize(
    ("text", "kind", "port", "path"),
    [
        ("ssh", machine_pb2.SERVICE_KIND_SSH, 0, ""),
        ("ssh:2222", machine_pb2.SERVICE_KIND_SSH, 2222, ""),
        ("tcp:5432", machine_pb2.SERVICE_KIND_TCP, 5432, ""),
        ("http/ready", machine_pb2.SERVICE_KIND_HTTP, 0, "/ready"),
    ],
)
def test_a_service_is_read(text: str, kind: machine_pb2.ServiceKind.ValueType, port: int, path: str) -> None:
    """Port and path may be left to the contract's defaults."""
    assert service_of(text) == machine_pb2.Service(kind=kind, port=port, path=path)


def test_amounts_and_durations_are_read() -> None:
    """Units may be written; what is not a whole amount is refused."""
    memory, disk, duration = Amount("M"), Amount("G"), Duration()
    assert [memory.convert(text, None, None) for text in ("512", "2G", "1GiB", "64m")] == [512, 2048, 1024, 64]
    assert [disk.convert(text, None, None) for text in ("4", "1T", "2048M")] == [4, 1024, 2]
    assert [duration.convert(text, None, None) for text in ("90", "10m", "1h30m")] == [90, 600, 5400]
    for kind, text in ((disk, "100M"), (memory, "-1"), (memory, "lots"), (duration, "5 minutes"), (duration, "")):
        with pytest.raises(click.BadParameter):
            kind.convert(text, None, None)


def test_only_printable_characters_are_shown() -> None:
    """Line ends survive where several lines are shown, and nothing else that moves a cursor."""
    assert clean("a\x1b[31mb\nc\t") == "a [31mb c"
    assert clean("a\nb\r", lines=True) == "a\nb"
