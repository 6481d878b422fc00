"""A machine described in a file: the message MachineSpec as YAML or JSON (which is YAML too).

Errors name the line, and the nearest field or value where a name is not known. Enum values may be written as in the
contract (`MACHINE_KIND_BARE_METAL`) or short (`bare-metal`).
"""

from __future__ import annotations

import difflib
import sys
from pathlib import Path
from typing import Any

import yaml
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from mulligan.api.cli.errors import CliError, usage
from mulligan.v1 import machine_pb2

LIMIT_BYTES = 1 << 20
STDIN = "-"


def read_spec(path: str) -> machine_pb2.MachineSpec:
    """The machine that the file (or standard input, for `-`) describes; a usage error says what is wrong and where."""
    name = "standard input" if path == STDIN else path
    try:
        text = sys.stdin.read(LIMIT_BYTES + 1) if path == STDIN else _read(path)
    except (OSError, UnicodeDecodeError) as error:
        raise usage(f"cannot read {name}: {error}") from None
    if len(text) > LIMIT_BYTES:
        raise usage(f"{name} is larger than {LIMIT_BYTES >> 20} MiB; a machine takes a few lines")
    return parse_spec(text, name)


def parse_spec(text: str, name: str) -> machine_pb2.MachineSpec:
    """The machine that the text describes. `name` is where it came from, for errors."""
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{name}, line {mark.line + 1}" if mark else name
        raise usage(f"{where}: this is not YAML: {getattr(error, 'problem', None) or error}") from None
    except RecursionError:
        raise usage(f"{name}: this is nested too deeply to be a machine") from None
    if root is None:
        raise usage(f"{name} is empty; describe a machine in it, e.g. `name: web-1`, `image: demo`")
    spec = machine_pb2.MachineSpec()
    _Reader(name).fill(spec, root, "")
    return spec


def _read(path: str) -> str:
    with Path(path).open(encoding="utf-8") as file:
        return file.read(LIMIT_BYTES + 1)


class _Reader:
    """Fills messages from YAML nodes, field by field, and knows where it is."""

    def __init__(self, name: str) -> None:
        self.name = name

    def fill(self, message: Message, node: yaml.Node, path: str) -> None:
        """Set the message's fields from a mapping."""
        if not isinstance(node, yaml.MappingNode):
            raise self._wrong(node, f"{path.rstrip('.') or 'the file'} must be a mapping of fields to values")
        seen: set[str] = set()
        for key, value in node.value:
            field = self._field(message.DESCRIPTOR, key)
            if field.name in seen:
                raise self._wrong(key, f"{path}{field.name} is given twice")
            seen.add(field.name)
            if not _is_null(value):
                self._set(message, field, value, f"{path}{field.name}")

    def _set(self, message: Message, field: FieldDescriptor, node: yaml.Node, path: str) -> None:
        if field.is_repeated:
            if not isinstance(node, yaml.SequenceNode):
                raise self._wrong(node, f"{path} must be a list")
            getattr(message, field.name).extend(self._scalar(field, item, path) for item in node.value)
        elif field.message_type is not None:
            part = getattr(message, field.name)
            part.SetInParent()
            self.fill(part, node, f"{path}.")
        else:
            setattr(message, field.name, self._scalar(field, node, path))

    def _scalar(self, field: FieldDescriptor, node: yaml.Node, path: str) -> str | int:
        if not isinstance(node, yaml.ScalarNode):
            raise self._wrong(node, f"{path} must be a single value")
        if field.enum_type is not None:
            return self._enum(field.enum_type, node, path)
        if field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
            return str(node.value)
        bits = 31 if field.cpp_type == FieldDescriptor.CPPTYPE_INT32 else 63
        try:
            number = int(node.value)
        except ValueError:
            raise self._wrong(node, f"{path} must be a whole number, not {node.value!r}") from None
        if not -(2**bits) <= number < 2**bits:
            raise self._wrong(node, f"{path} is out of range: {number}")
        return number

    def _enum(self, enum: Any, node: yaml.ScalarNode, path: str) -> int:
        prefix = enum.values_by_number[0].name.removesuffix("UNSPECIFIED")
        wanted = str(node.value).upper().replace("-", "_")
        found = enum.values_by_name.get(wanted) or enum.values_by_name.get(prefix + wanted)
        if found is None:
            short = [value.name.removeprefix(prefix).lower().replace("_", "-") for value in enum.values[1:]]
            raise self._wrong(node, f"{path} cannot be {node.value!r}; it is one of {', '.join(short)}")
        return int(found.number)

    def _field(self, descriptor: Any, key: yaml.Node) -> FieldDescriptor:
        wanted = str(key.value)
        found = descriptor.fields_by_name.get(wanted) or descriptor.fields_by_camelcase_name.get(wanted)
        if isinstance(found, FieldDescriptor):
            return found
        names = list(descriptor.fields_by_name)
        nearest = difflib.get_close_matches(wanted, names, n=1)
        hint = f"did you mean {nearest[0]}?" if nearest else f"it has {', '.join(names)}"
        raise self._wrong(key, f"{descriptor.name} has no field {wanted!r}; {hint}")

    def _wrong(self, node: yaml.Node, message: str) -> CliError:
        return usage(f"{self.name}, line {node.start_mark.line + 1}: {message}")


def _is_null(node: yaml.Node) -> bool:
    return isinstance(node, yaml.ScalarNode) and node.tag == "tag:yaml.org,2002:null"
