"""Fields of the contract as the flags by which they were given, for whoever never saw a field."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import click

FLAGS: Mapping[str, str] = {
    "resources.memory_mib": "--memory",
    "resources.disk_gib": "--disk",
    "requires": "--require",
    "forbids": "--forbid",
    "ssh_keys": "--ssh-key",
    "when_none": "--wait-for-room",
    "initrd_source": "--initrd",
}
"""Fields of a request whose flag is not their own name."""

CHANGES: Mapping[str, str] = {"reserved": "--reserve", "overcommit_percent": "--overcommit"}
"""Fields of an edit that hold a number for each resource."""


def flags_of(fields: Iterable[str], command: click.Command) -> dict[str, str]:
    """The flag, or argument, of this command for each field that has one."""
    known = {name for each in command.params for name in (*each.opts, *each.secondary_opts)}
    named = {each.name: each.opts[0] for each in command.params if isinstance(each, click.Option)}
    found = {field: _shown(_flag(field), known) or named.get(field, "") for field in fields}
    return {field: flag for field, flag in found.items() if flag}


def _flag(field: str) -> str:
    """The flag that a field would have, e.g. `--vcpu` for `spec.resources.vcpu`, `--deadline boot` for its seconds."""
    path = re.sub(r"\[\d+\]", "", field).removeprefix("spec.").removeprefix("lever.").removeprefix("image.")
    head, _, rest = path.partition(".")
    if head == "deadlines" and rest:
        return f"--deadline {rest.removesuffix('_seconds')}"
    if head in CHANGES and rest:
        return f"{CHANGES[head]} {rest}"
    if head == "service":
        return "--service"
    return FLAGS.get(path) or f"--{path.removeprefix('resources.').replace('_', '-')}"


def _shown(flag: str, known: set[str]) -> str:
    """The flag as it is told; empty where the command has neither it nor an argument of that name."""
    if flag.partition(" ")[0] in known:
        return flag
    argument = flag.removeprefix("--").replace("-", "_")
    return argument.upper() if argument in known else ""
