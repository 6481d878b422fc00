"""The flags that describe a machine, and how they are laid over a file; `provision` and `explain` share them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import click

from mulligan.api.cli.errors import usage
from mulligan.api.cli.output import ProtoEnum, pairs, value_of, words
from mulligan.api.cli.spec_file import read_spec
from mulligan.api.cli.text import Amount, Duration
from mulligan.v1 import machine_pb2

DEFAULT_VCPU, DEFAULT_MEMORY_MIB, DEFAULT_DISK_GIB = 1, 512, 4
DEFAULT_KEYS = ("id_ed25519.pub", "id_ecdsa.pub", "id_rsa.pub")
STEPS = ("claim", "image", "boot", "verify", "run", "undo")
HINTS = ("serial", "wwn", "model", "kind", "min-gib")
NO_KEY = "none"

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def _choice(enum: ProtoEnum) -> click.Choice[str]:
    return click.Choice(words(enum))


CLAIM_OPTIONS: tuple[Decorator, ...] = (
    click.option(
        "--file", metavar="FILE", help="Describe the machine in YAML or JSON; `-` is standard input. Flags win."
    ),
    click.option("--project", help="Whose machine it is."),
    click.option("--partition", help="Where it shall be."),
    click.option("--vcpu", type=int, help=f"Hardware threads, at least. Default {DEFAULT_VCPU}."),
    click.option("--memory", type=Amount("M"), help=f"Memory in MiB, or e.g. 2G. Default {DEFAULT_MEMORY_MIB}."),
    click.option("--disk", type=Amount("G"), help=f"Root disk in GiB. Default {DEFAULT_DISK_GIB}."),
    click.option("--kind", type=_choice(machine_pb2.MachineKind), help="Default: either, virtual first."),
    click.option("--require", "requires", metavar="CAPABILITY", multiple=True, help="E.g. accel.kvm. Repeatable."),
    click.option("--forbid", "forbids", metavar="CAPABILITY", multiple=True, help="Repeatable."),
    click.option("--provider", help="Only on this one."),
    click.option("--placement", type=_choice(machine_pb2.Placement), help="How hypervisors are filled. Default pack."),
    click.option("--image", help="The name of a registered image."),
    click.option("--firmware", type=_choice(machine_pb2.Firmware), help="Default: one that the image supports."),
)

RUN_OPTIONS: tuple[Decorator, ...] = (
    click.option("--wait-for-room", is_flag=True, help="When nothing fits now, wait (up to the claim deadline)."),
    click.option("--hostname", help="Default: the machine's name."),
    click.option(
        "--ssh-key",
        "ssh_keys",
        metavar="FILE|TEXT",
        multiple=True,
        help="Who may log in; `none` for nobody. Repeatable. Default: your key in ~/.ssh.",
    ),
    click.option("--user-data", metavar="FILE", help="Cloud-init user data; `-` is standard input."),
    click.option("--network-config", metavar="FILE", help="NoCloud network configuration. Default: DHCP."),
    click.option("--verify", type=_choice(machine_pb2.VerifyLevel), help="What must be proved. Default address."),
    click.option(
        "--service", metavar="SERVICE", help="ssh[:PORT], tcp:PORT or http[:PORT][/PATH]; verifies `service`."
    ),
    click.option(
        "--root-disk",
        "root_disk",
        metavar="HINT=VALUE",
        multiple=True,
        help="Which disk of a server: serial, wwn, model, kind (rotational, solid-state) or min-gib. Repeatable.",
    ),
    click.option("--mulligans", type=click.IntRange(0, 10), help="Other providers to try after a failure. Default 1."),
    click.option("--priority", type=click.IntRange(1, 5), help="1 goes first where runs wait for workers. Default 3."),
    click.option("--on-failure", type=_choice(machine_pb2.OnFailure), help="After the last try. Default roll-back."),
    click.option(
        "--deadline",
        "deadlines",
        metavar="STEP=DURATION",
        multiple=True,
        help=f"For {', '.join(STEPS)}; e.g. boot=10m. Repeatable.",
    ),
)


def options(declared: Iterable[Decorator]) -> Decorator:
    """A decorator that adds the options, in this order; the command gets them as keyword arguments."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(tuple(declared)):
            function = option(function)
        return function

    return decorate


def spec_of(
    flags: Mapping[str, Any], *, name: str | None = None, like: machine_pb2.MachineSpec | None = None
) -> machine_pb2.MachineSpec:
    """The machine that the flags describe, laid over the one that it shall be like, or over the file if one is named;
    else with default sizes."""
    if like is not None:
        spec = like
    elif flags.get("file"):
        spec = read_spec(flags["file"])
    else:
        spec = machine_pb2.MachineSpec()
        spec.resources.vcpu, spec.resources.memory_mib = DEFAULT_VCPU, DEFAULT_MEMORY_MIB
        spec.resources.disk_gib = DEFAULT_DISK_GIB
    if name:
        spec.name = name
    for field in ("project", "partition", "provider", "image", "hostname", "mulligans", "priority"):
        if flags.get(field) is not None:
            setattr(spec, field, flags[field])
    for flag, resource in (("vcpu", "vcpu"), ("memory", "memory_mib"), ("disk", "disk_gib")):
        if flags.get(flag) is not None:
            setattr(spec.resources, resource, flags[flag])
    _enums(spec, flags)
    for field in ("requires", "forbids"):
        if flags.get(field):
            del getattr(spec, field)[:]
            getattr(spec, field).extend(flags[field])
    _guest(spec, flags)
    return spec


def wanted_spec(flags: Mapping[str, Any], *, name: str | None, command: str) -> machine_pb2.MachineSpec:
    """The machine that the flags of this command ask for, with this user's key if nobody else may log in.

    A usage error says what is missing.
    """
    spec = spec_of(flags, name=name)
    if not spec.name:
        raise usage("the machine has no name", f"mulligan machine {command} --help")
    if not spec.image:
        raise usage("no image was named: give --image", "mulligan image list")
    if NO_KEY not in flags["ssh_keys"]:
        add_default_key(spec)
    return spec


def add_default_key(spec: machine_pb2.MachineSpec) -> None:
    """Let this user's own public key log in when nobody else may; says so, or that nobody can, on standard error."""
    found = [path for path in (Path.home() / ".ssh" / name for name in DEFAULT_KEYS) if path.is_file()]
    if spec.ssh_keys:
        return
    if found:
        spec.ssh_keys.extend(_keys_in(found[0]))
        click.echo(f"SSH key: {found[0]} (choose others with --ssh-key)", err=True)
    else:
        click.echo("no SSH key: there is none in ~/.ssh, so nobody can log in; give one with --ssh-key", err=True)


def _enums(spec: machine_pb2.MachineSpec, flags: Mapping[str, Any]) -> None:
    enums: dict[str, ProtoEnum] = {
        "kind": machine_pb2.MachineKind,
        "placement": machine_pb2.Placement,
        "firmware": machine_pb2.Firmware,
        "verify": machine_pb2.VerifyLevel,
        "on_failure": machine_pb2.OnFailure,
    }
    for field, enum in enums.items():
        if flags.get(field):
            setattr(spec, field, value_of(enum, flags[field]))
    if flags.get("wait_for_room"):
        spec.when_none = machine_pb2.WHEN_NONE_WAIT


def _guest(spec: machine_pb2.MachineSpec, flags: Mapping[str, Any]) -> None:
    """What the guest is told, what is asked of it, and how long it may take."""
    for field in ("user_data", "network_config"):
        if flags.get(field):
            setattr(spec, field, _text_of(flags[field], f"--{field.replace('_', '-')}"))
    if flags.get("service"):
        spec.service.CopyFrom(service_of(flags["service"]))
        if not flags.get("verify"):
            spec.verify = machine_pb2.VERIFY_LEVEL_SERVICE
    if flags.get("ssh_keys"):
        del spec.ssh_keys[:]
        for given in flags["ssh_keys"]:
            spec.ssh_keys.extend(_keys(given))
    for hint, text in pairs(flags.get("root_disk", ()), "--root-disk"):
        _hint(spec.root_disk, hint, text)
    for step, text in pairs(flags.get("deadlines", ()), "--deadline"):
        if step not in STEPS:
            raise click.BadParameter(f"{step!r} is not one of {', '.join(STEPS)}", param_hint="--deadline")
        allowed = Duration().convert(text, None, None)
        if not allowed:  # the API would take it for no deadline of one's own
            raise click.BadParameter(f"{step}={text} is no time; it must be 1 second at least", param_hint="--deadline")
        setattr(spec.deadlines, f"{step}_seconds", allowed)


def _hint(root_disk: machine_pb2.RootDisk, hint: str, text: str) -> None:
    """One thing that must be true of the disk."""
    try:
        if hint == "min-gib":
            root_disk.min_gib = int(text)
        elif hint == "kind":
            root_disk.kind = machine_pb2.DiskKind.Value(f"DISK_KIND_{text.replace('-', '_').upper()}")
        elif hint in ("serial", "wwn", "model"):
            setattr(root_disk, hint, text)
        else:
            raise click.BadParameter(f"{hint!r} is not one of {', '.join(HINTS)}", param_hint="--root-disk")
    except ValueError as error:
        expected = "rotational or solid-state" if hint == "kind" else "a whole number of GiB"
        raise click.BadParameter(f"{hint}: {text!r} is not {expected}", param_hint="--root-disk") from error


def service_of(text: str) -> machine_pb2.Service:
    """The service that `ssh`, `ssh:2222`, `tcp:5432`, `http`, `http:8080/healthz` or `http/healthz` means."""
    head, slash, path = text.partition("/")
    kind, colon, port = head.partition(":")
    kinds = {"ssh": machine_pb2.SERVICE_KIND_SSH, "tcp": machine_pb2.SERVICE_KIND_TCP}
    kinds["http"] = machine_pb2.SERVICE_KIND_HTTP
    if kind not in kinds or (colon and not port.isdecimal()) or (kind == "tcp" and not port):
        raise click.BadParameter(f"{text!r} is not ssh[:PORT], tcp:PORT or http[:PORT][/PATH]", param_hint="--service")
    if slash and kind != "http":
        raise click.BadParameter(f"{text!r} has a path, which only http has", param_hint="--service")
    if port and not 1 <= int(port) <= 65535:
        raise click.BadParameter(f"port {port} is not between 1 and 65535", param_hint="--service")
    return machine_pb2.Service(kind=kinds[kind], port=int(port or 0), path=slash + path)


def _keys(given: str) -> list[str]:
    """The public keys that a flag means: itself, or what the file of that name holds."""
    if given == NO_KEY:
        return []
    if given.startswith(("ssh-", "ecdsa-", "sk-")) and " " in given:
        return [given.strip()]
    return _keys_in(Path(given).expanduser())


def _keys_in(path: Path) -> list[str]:
    text = _text_of(str(path), "--ssh-key")
    if "PRIVATE KEY" in text:
        raise usage(f"{path} is a private key, which must not leave your hands", f"--ssh-key {path}.pub")
    keys = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    if not keys:
        raise usage(f"{path} holds no key", "ssh-keygen -t ed25519")
    return keys


def _text_of(path: str, option: str) -> str:
    try:
        with click.open_file(path, encoding="utf-8") as file:
            return str(file.read())
    except (OSError, UnicodeDecodeError) as error:
        raise usage(f"{option}: cannot read {path}: {error}") from None
