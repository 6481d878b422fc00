"""What a BMC says when it refuses: its own reason, and whether it asks for patience.

The reason may be only in `@Message.ExtendedInfo` (Redfish, DSP0266, "Error responses"). Of that the message and its
identifier count; `Resolution` advises "retry the operation" also for what is wrong for good.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from sushy.exceptions import HTTPError

_GENERIC = ("general error", "extendedinfo", "extended error info")
_PATIENCE = ("sys518", "notready", "not ready", "invalidoperationforsystemstate", "inpost", "in post",
             "duringsystempost", "resourceinuse", "in use", "busy", "temporarilyunavailable", "temporarily unavailable",
             "resourceinstandby", "sessionlimitexceeded", "createlimitreachedforresource", "try again",
             "retry")  # fmt: skip
_URL = re.compile(r"\S+://\S+")
_MOST_REASONS = 3


def reason_of(error: HTTPError) -> str:
    """The BMC's reason; its more particular ones where the first says only that there are such."""
    detail = str(error.detail or "")
    if detail and not _is_generic(detail):
        return detail
    told = [_told(each) for each in _entries(error) if not _is_generic(str(each.get("Message") or ""))]
    return "; ".join(list(dict.fromkeys(filter(None, told)))[:_MOST_REASONS]) or detail or "without a reason"


def asks_for_patience(error: HTTPError) -> bool:
    """Whether it says that the same may work later: the system starts, something is in use, or all sessions are."""
    said = [error.code, error.detail]
    said += [each.get(part) for each in _entries(error) for part in ("MessageId", "Message")]
    words = _URL.sub("", " ".join(str(each) for each in said if each)).lower()  # names in URLs are no words of its
    return any(word in words for word in _PATIENCE)


def _entries(error: HTTPError) -> list[Mapping[str, Any]]:
    """The entries of `@Message.ExtendedInfo`; some BMCs send the one that there is without a list."""
    info = error.extended_info
    return [each for each in (info if isinstance(info, list) else [info]) if isinstance(each, dict)]


def _told(entry: Mapping[str, Any]) -> str:
    """One entry: its identifier, and the message; what it is about where there is none."""
    identifier, message, about = entry.get("MessageId"), entry.get("Message"), entry.get("MessageArgs")
    if message:
        return f"{identifier}: {message}" if identifier else str(message)
    arguments = ", ".join(map(str, about)) if isinstance(about, list) else ""
    return f"{identifier}({arguments})" if identifier and arguments else str(identifier or "")


def _is_generic(text: str) -> bool:
    return any(words in text.lower() for words in _GENERIC)
