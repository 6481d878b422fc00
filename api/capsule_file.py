"""The capsule's file: all that is known of one run, as one JSON document, compressed with gzip.

Written by the API server, read offline. The format carries a version; a reader refuses one that it does not know.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from google.protobuf.json_format import ParseError
from pydantic import TypeAdapter, ValidationError
from temporalio.client import WorkflowHistory

from mulligan.activities.errors import InvalidRequest
from mulligan.activities.events import EventKind, RunEvent
from mulligan.activities.story import fold
from mulligan.activities.values import Evidence, Outcome, Verb
from mulligan.api.redaction import redact_text

FORMAT = "mulligan-capsule"
VERSION = 1
SUFFIX = ".capsule"

MOST_COMPRESSED = 64 * 2**20
MOST_EXPANDED = 256 * 2**20
"""Bytes that a capsule may have: Temporal ends a run whose history has 50 MiB."""

MOST_PARTS = 8_000_000
"""Objects, lists and their members that a capsule may have: few bytes of JSON can make many of memory. A run of 51,200
events, at which Temporal ends it, has about one million."""

GZIP = b"\x1f\x8b"
_GZIP_WINDOW = 16 + zlib.MAX_WBITS


@dataclass(frozen=True, slots=True)
class Said:
    """What one attempt of an action asked of its driver."""

    action: str
    """`<try>/<step>/<action>`."""
    verbs: tuple[Verb, ...]
    attempt: int = 0
    """Which attempt, from 1 on; 0 for the last one before it (Temporal keeps no earlier ones)."""
    event_id: int = 0
    """The history event that ended the action."""


@dataclass(frozen=True, slots=True)
class Run:
    """The run, as it was when it was exported."""

    workflow_id: str
    run_id: str
    kind: str
    project: str
    machine: str
    machine_id: str
    outcome: Outcome
    reason: str = ""
    started_at: datetime | None = None
    ended_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Capsule:
    """All that is known of one run. Holds no secret."""

    format: str
    version: int
    exported_at: datetime
    run: Run
    events: tuple[RunEvent, ...]
    evidence: tuple[Evidence, ...] = ()
    transcript: tuple[Said, ...] = ()
    """By action, in the order in which the actions ended."""
    versions: Mapping[str, str] = field(default_factory=dict)
    """Of what exported it: `mulligan`, `temporalio`, `python`, `temporal-server`."""
    configuration: Mapping[str, Any] = field(default_factory=dict)
    """What bounded the run: seconds, counts and policies."""
    history: Mapping[str, Any] | None = None
    """Temporal's history, as its own tools read it; None when Temporal had forgotten it."""


_CAPSULE = TypeAdapter(Capsule)


def pack(capsule: Capsule) -> bytes:
    """The file's bytes, without sealed text and keyed digests; the same capsule gives the same bytes."""
    return gzip.compress(redact_text(_CAPSULE.dump_json(capsule, indent=1).decode()).encode(), mtime=0)


def unpack(data: bytes, name: str) -> Capsule:
    """The capsule in a file's bytes, compressed or not.

    Raises `InvalidRequest`, naming the file by `name`, for what is damaged, cut off, too large, or something else.
    """
    text = _expanded(data, name) if data.startswith(GZIP) else data
    if sum(map(text.count, (b"{", b"[", b","))) > MOST_PARTS:
        raise _wrong(name, f"has more than {MOST_PARTS:,} parts, which no capsule has; do not trust where it is from")
    try:
        capsule = _CAPSULE.validate_json(text)
    except ValidationError as error:
        raise _no_capsule(name, text, error) from None
    if capsule.format != FORMAT:
        raise _wrong(name, f"says that it is {capsule.format[:40]!r}, not {FORMAT!r}; it is no capsule")
    if capsule.version != VERSION:
        raise _wrong(
            name,
            f"has version {capsule.version} of the format, and this Mulligan reads {VERSION}; use the Mulligan that "
            f"wrote it ({capsule.versions.get('mulligan', 'unknown')}), or a newer one",
        )
    return capsule


def history_of(capsule: Capsule, name: str) -> WorkflowHistory | None:
    """The history, to be replayed; None where the capsule holds none. Raises `InvalidRequest` for a damaged one."""
    if capsule.history is None:
        return None
    try:
        history = WorkflowHistory.from_json(capsule.run.workflow_id, dict(capsule.history))
        fault = _fault(capsule, history)
    except (ParseError, ValueError, KeyError, TypeError, AttributeError) as error:  # not of Temporal's shape
        fault = type(error).__name__
    if fault:
        raise _wrong(name, f"holds a history that is damaged ({fault}); export the run again")
    return history


def _fault(capsule: Capsule, history: WorkflowHistory) -> str:
    """What Temporal's core, which trusts its server, would stumble over; empty when it would not."""
    ids = [event.event_id for event in history.events]
    if not ids or not history.events[0].HasField("workflow_execution_started_event_attributes"):
        return "it has no beginning"
    if ids != list(range(1, len(ids) + 1)):
        return "events are missing"
    if bare := [event.event_id for event in history.events if event.WhichOneof("attributes") is None]:
        return f"event {bare[0]} is empty"
    told = fold(iter(history.events))
    if capsule.run.outcome is not Outcome.OPEN and (not told or told[-1].kind is not EventKind.RUN_FINISHED):
        return "it has no end"
    return ""


def _expanded(data: bytes, name: str) -> bytes:
    expander = zlib.decompressobj(_GZIP_WINDOW)
    try:
        text = expander.decompress(data, MOST_EXPANDED)
    except zlib.error as error:
        raise _wrong(name, f"is damaged ({error}); export the run again") from None
    if expander.unconsumed_tail:
        limit = f"{MOST_EXPANDED // 2**20} MiB"
        raise _wrong(name, f"expands to more than {limit}, which no capsule does; do not trust where it is from")
    if not expander.eof:
        raise _wrong(name, "is cut off; export the run again, or copy it again")
    return text


def _no_capsule(name: str, text: bytes, error: ValidationError) -> InvalidRequest:
    """Tell what is not ours from what is ours and damaged."""
    if FORMAT.encode() not in text[:200]:
        return _wrong(name, "is no capsule; `mulligan run export` writes them")
    first = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(str(part) for part in first["loc"]) or "the document"
    return _wrong(name, f"is damaged: {where}: {first['msg']}; export the run again")


def _wrong(name: str, what: str) -> InvalidRequest:
    return InvalidRequest(f"{name} {what}", file=name)
