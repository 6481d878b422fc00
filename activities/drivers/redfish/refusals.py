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
_BUSY_STATUS = frozenset({409, 412, 423, 425, 428, 429, 500, 502, 503, 504})
_NO_WORD = frozenset({401, 403, 404})
"""What says nothing of the power: a log-in that ended, a user who may not, a BMC that restarts."""
_OFF = re.compile(r"already\W+(?:\w+\W+){0,3}off\b|\bis (?:currently |now )?(?:powered |turned |switched )?off\b|"
                  r"invalidoperationforsystemstate|psu501|resourceinstandby")  # fmt: skip
"""How BMCs refuse to switch off what is off: in words, and by the codes of iLO (for its power), iDRAC and Redfish."""
_POST = ("inpost", "in post", "duringsystempost")
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
    return any(word in _words(error) for word in _PATIENCE)


def is_busy(error: HTTPError) -> bool:
    """Whether it is to be asked again, by its status or by what it says."""
    status = int(error.status_code or 0)
    return status in _BUSY_STATUS or (status == 400 and asks_for_patience(error))


def may_mean_off(error: HTTPError) -> bool:
    """Whether this refusal to switch off a machine may come of its being off: it says so, or is plain, and does not ask
    for patience."""
    if says_nothing_of_power(error):
        return False
    return bool(_OFF.search(_words(error))) or not (is_busy(error) or asks_for_patience(error))


def says_nothing_of_power(error: HTTPError) -> bool:
    """Whether this refusal to switch off a machine cannot come of its being off: it starts, or nobody looked at it."""
    status = int(error.status_code or 0)
    return status in _NO_WORD or not 400 <= status < 500 or says_that_it_starts(error)


def says_that_it_starts(error: HTTPError) -> bool:
    """Whether it says that the machine is in POST."""
    return any(word in _words(error) for word in _POST)


def _words(error: HTTPError) -> str:
    said = [error.code, error.detail]
    said += [each.get(part) for each in _entries(error) for part in ("MessageId", "Message")]
    return _URL.sub("", " ".join(str(each) for each in said if each)).lower()  # names in URLs are no words of its


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
