"""YAML that a user gave, looked at without being built: cloud-init in the guest does that.

A few hundred bytes of YAML can stand for gigabytes (aliases, merge keys) or for a stack that overflows (nesting), so
the events are counted first. The text may hold secrets: no error repeats any of it, only where it is wrong.
"""

from __future__ import annotations

from typing import Any

import yaml
from yaml.events import AliasEvent, CollectionEndEvent, CollectionStartEvent, Event, ScalarEvent

MOST_DEPTH = 32
MOST_ALIASES = 64
"""More than any real configuration has."""

_MERGE = "tag:yaml.org,2002:merge"
_Parser: type[yaml.BaseLoader | yaml.CBaseLoader] = getattr(yaml, "CBaseLoader", yaml.BaseLoader)


class Unfit(Exception):
    """The text cannot be used; what is wrong with it and where, without any of it."""


def nodes_of(text: str) -> yaml.Node | None:
    """The document's root, its scalars as they were written; None for an empty one.

    Raises `Unfit` for what is no YAML, for values that cloud-init's loader could not build, and for too much nesting or
    too many aliases. Blocks, for a fraction of a second where the text has 64 KiB.
    """
    shape = _Shape()
    try:
        for event in yaml.parse(text, Loader=_Parser):
            shape.take(event)
        root: yaml.Node | None = yaml.compose(text, Loader=_Parser)
    except yaml.YAMLError as error:
        raise Unfit(f"is not valid YAML{_at(getattr(error, 'problem_mark', None) or shape.mark)}") from None
    except (ValueError, TypeError, AttributeError, LookupError, ArithmeticError, RecursionError):
        raise Unfit(f"has a value that cannot be read as what it claims to be{_at(shape.mark)}") from None
    return root


def value_of(node: yaml.Node | None, key: str) -> yaml.Node | None:
    """What a mapping has under a key; None when it has not, or is none."""
    pairs = node.value if isinstance(node, yaml.MappingNode) else []
    return next((value for name, value in pairs if isinstance(name, yaml.ScalarNode) and name.value == key), None)


class _Shape:
    """What was seen so far of a document."""

    def __init__(self) -> None:
        self.mark: Any = None
        self._depth = 0
        self._aliases = 0
        self._loader = yaml.SafeLoader("")

    def take(self, event: Event) -> None:
        """Look at the next event. Raises `Unfit`, and whatever building a scalar raises."""
        self.mark = event.start_mark
        self._depth += isinstance(event, CollectionStartEvent) - isinstance(event, CollectionEndEvent)
        self._aliases += isinstance(event, AliasEvent)
        if self._depth > MOST_DEPTH:
            raise Unfit(f"is nested more than {MOST_DEPTH} deep{_at(self.mark)}")
        if self._aliases > MOST_ALIASES:
            raise Unfit(f"has more than {MOST_ALIASES} aliases{_at(self.mark)}")
        if isinstance(event, CollectionStartEvent) and event.tag and event.tag not in self._loader.yaml_constructors:
            raise Unfit(f"has a tag that cloud-init does not know{_at(self.mark)}")
        if isinstance(event, ScalarEvent):
            self._build(event)

    def _build(self, event: ScalarEvent) -> None:
        tag = event.tag if event.tag not in (None, "!") else None
        tag = tag or self._loader.resolve(yaml.ScalarNode, event.value, event.implicit)  # type: ignore[no-untyped-call]
        if tag != _MERGE:
            self._loader.construct_object(yaml.ScalarNode(tag, event.value))


def _at(mark: Any) -> str:
    return f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
