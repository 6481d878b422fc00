"""A BMC's troubles as the domain's errors: what was asked of whom, what was found, what to do next."""

from __future__ import annotations

from collections.abc import Mapping

from mulligan.activities.drivers.ipmi.troubles import BmcTrouble, Trouble
from mulligan.activities.errors import AccessDenied, Busy, MulliganError, Unreachable, Unsupported

BUSY_SECONDS = 10.0
SESSION_SECONDS = 30.0
"""BMCs drop sessions that nobody uses after a minute, so a place is free soon."""

_AGAIN = "it will be tried again"
_WORDS: Mapping[Trouble, tuple[type[MulliganError], str, str]] = {
    Trouble.UNKNOWN_HOST: (Unreachable, "its name has no address", f"look at the URL and at DNS; {_AGAIN}"),
    Trouble.NO_ANSWER: (
        Unreachable,
        "it does not answer over IPMI",
        f"see whether the BMC has power, whether IPMI over LAN is switched on, and whether UDP passes; {_AGAIN}",
    ),
    Trouble.SILENT_ON_USER: (
        Unreachable,
        "it answered until it was told the user name, and was silent then; some BMCs do that to users they do not know",
        f"look at the user name in the credential; {_AGAIN}",
    ),
    Trouble.GARBLED: (
        Unreachable,
        "it answers, but not as IPMI 2.0 says",
        f"see what listens at that address, and whether its firmware is the newest; {_AGAIN}",
    ),
    Trouble.WRONG_PASSWORD: (AccessDenied, "the password is wrong", "mend it in credentials.yaml"),
    Trouble.WRONG_USER: (AccessDenied, "it has no such user", "mend the user name in credentials.yaml"),
    Trouble.NOT_ALLOWED: (
        AccessDenied,
        "the user may not do this",
        "give the user the privilege level ADMINISTRATOR (or OPERATOR) for the LAN channel",
    ),
    Trouble.NO_SESSION: (Busy, "all its sessions are in use", f"end sessions that others left open; {_AGAIN}"),
    Trouble.SESSION_LOST: (Unreachable, "it knows the session no more", _AGAIN),
    Trouble.NO_CIPHER: (
        Unsupported,
        "it accepts neither cipher suite 3 (SHA-1, AES) nor 17 (SHA-256, AES)",
        "switch one of them on for the LAN channel",
    ),
    Trouble.TOO_OLD: (
        Unsupported,
        "it offers IPMI 1.5 only, which does not encrypt",
        "switch on IPMI 2.0 (RMCP+), or renew its firmware",
    ),
    Trouble.BUSY: (Busy, "it is busy", _AGAIN),
    Trouble.NOT_OFFERED: (Unsupported, "it cannot do that", "see what its firmware offers"),
    Trouble.FAILED: (Unreachable, "it failed", _AGAIN),
}


def error_of(trouble: BmcTrouble, provider: str, address: str, doing: str) -> MulliganError:
    """The error for a trouble, with the BMC's own words and code."""
    kind, found, then = _WORDS[trouble.trouble]
    if trouble.trouble is Trouble.FAILED and trouble.code:
        kind = Busy  # it said so itself: it answers
    own = ", ".join(filter(None, (trouble.said, f"code {trouble.code:#04x}" if trouble.code else "")))
    message = f"{provider}: {doing}: the BMC at {address}: {found}{f' ({own})' if own else ''}; {then}"
    told = {"provider": provider, "bmc": address, "trouble": trouble.trouble, "code": f"{trouble.code:#04x}"}
    if kind is Busy:
        seconds = SESSION_SECONDS if trouble.trouble is Trouble.NO_SESSION else BUSY_SECONDS
        return Busy(message, after_seconds=seconds, **told)
    return kind(message, **told)
