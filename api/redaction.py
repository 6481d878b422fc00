"""What a capsule leaves out of a history: sealed user data and its digest, and where credentials are kept."""

from __future__ import annotations

import json
import re
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from temporalio.api.common.v1 import Payload

from mulligan.activities.seal import PREFIX

REDACTED = "redacted"

SECRET_FIELDS = frozenset({"user_data", "user_data_digest", "credential"})
"""Fields of our values that are blanked wherever they are. Empty ones stay, so that it is seen that there was none."""

_SEALED = re.compile(rf"{re.escape(PREFIX)}:[0-9a-f]+:[A-Za-z0-9_=-]+|hmac-sha256:[0-9a-f]{{64}}")
"""Sealed text and keyed digests, wherever else they may have got to."""


def redact(message: Message) -> None:
    """Blank, in place, what is secret in a history or any other of Temporal's messages."""
    if isinstance(message, Payload):
        message.data = _redacted_data(message.data)
        return
    for descriptor, value in message.ListFields():
        if descriptor.type != FieldDescriptor.TYPE_MESSAGE:
            continue
        for part in _messages(descriptor, value):
            redact(part)


def redact_text(text: str) -> str:
    """Text, e.g. a JSON document, without sealed text and keyed digests."""
    return _SEALED.sub(REDACTED, text)


def _messages(descriptor: FieldDescriptor, value: Any) -> list[Message]:
    entry = descriptor.message_type
    if entry is not None and entry.GetOptions().map_entry:
        return [part for part in value.values() if isinstance(part, Message)]
    return list(value) if descriptor.is_repeated else [value]


def _redacted_data(data: bytes) -> bytes:
    try:
        value = json.loads(data)
    except ValueError:
        return _SEALED.sub(REDACTED, data.decode("utf-8", "surrogateescape")).encode("utf-8", "surrogateescape")
    return json.dumps(_blanked(value), separators=(",", ":"), ensure_ascii=False).encode() if data else data


def _blanked(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: REDACTED if key in SECRET_FIELDS and each else _blanked(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_blanked(each) for each in value]
    return redact_text(value) if isinstance(value, str) else value
