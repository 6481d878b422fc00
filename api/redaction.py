"""What a capsule leaves out of a history: user data and its digest, network configurations (they may hold passwords),
where credentials are kept, and of URLs whatever may open them: users with passwords, and queries of the web's.
"""

from __future__ import annotations

import json
import re
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from temporalio.api.common.v1 import Payload

from mulligan.activities.seal import PREFIX

REDACTED = "redacted"

SECRET_FIELDS = frozenset({"user_data", "user_data_digest", "network_config", "credential"})
"""Fields of our values that are blanked wherever they are. Empty ones stay, so that it is seen that there was none."""

_SEALED = re.compile(rf"{re.escape(PREFIX)}:[0-9a-f]+:[A-Za-z0-9_=-]+|hmac-sha256:[0-9a-f]{{64}}")
"""Sealed text and keyed digests, wherever else they may have got to."""

_QUERY = re.compile(r"(https?://[^\s\"'<>`\\?#]+)\?[^\s\"'<>`\\]+", re.IGNORECASE)
"""A URL's query, which may be its signature or a token. Other schemes' queries are a driver's own, and no secret."""

_PASSWORD = re.compile(r"(?<=://)[^\s\"'<>`\\/@:]*:[^\s\"'<>`\\/@]+@")


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
    """Text, e.g. a JSON document, without sealed text, keyed digests, and what may open a URL."""
    text = _PASSWORD.sub(f"{REDACTED}@", _SEALED.sub(REDACTED, text))
    return _QUERY.sub(rf"\1?{REDACTED}", text)


def _messages(descriptor: FieldDescriptor, value: Any) -> list[Message]:
    entry = descriptor.message_type
    if entry is not None and entry.GetOptions().map_entry:
        return [part for part in value.values() if isinstance(part, Message)]
    return list(value) if descriptor.is_repeated else [value]


def _redacted_data(data: bytes) -> bytes:
    try:
        value = json.loads(data)
    except ValueError:
        return redact_text(data.decode("utf-8", "surrogateescape")).encode("utf-8", "surrogateescape")
    return json.dumps(_blanked(value), separators=(",", ":"), ensure_ascii=False).encode() if data else data


def _blanked(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: REDACTED if key in SECRET_FIELDS and each else _blanked(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_blanked(each) for each in value]
    return redact_text(value) if isinstance(value, str) else value
