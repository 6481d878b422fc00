"""What can go wrong with a BMC, by name: said by the child process, and made an error by the driver."""

from __future__ import annotations

from enum import StrEnum


class Trouble(StrEnum):
    """Why a BMC did not do what it was asked."""

    UNKNOWN_HOST = "unknown-host"
    NO_ANSWER = "no-answer"
    SILENT_ON_USER = "silent-on-user"
    GARBLED = "garbled"
    WRONG_PASSWORD = "wrong-password"  # noqa: S105 - the name of a trouble
    WRONG_USER = "wrong-user"
    NO_SESSION = "no-session"
    SESSION_LOST = "session-lost"
    NO_CIPHER = "no-cipher"
    TOO_OLD = "too-old"
    BUSY = "busy"
    NOT_OFFERED = "not-offered"
    NOT_ALLOWED = "not-allowed"
    FAILED = "failed"


ENDS_SESSION = frozenset(
    {
        Trouble.NO_ANSWER,
        Trouble.SILENT_ON_USER,
        Trouble.GARBLED,
        Trouble.UNKNOWN_HOST,
        Trouble.NO_SESSION,
        Trouble.SESSION_LOST,
    }
)
"""After these nothing more can be asked in the same session."""


REFUSES_LOG_IN = frozenset({Trouble.WRONG_PASSWORD, Trouble.WRONG_USER})
"""What BMCs say of a credential: of a wrong one, and while they restart of the right one too."""


class BmcTrouble(Exception):
    """One trouble, with the BMC's own words and its completion or status code (0 where there is none)."""

    def __init__(self, trouble: Trouble, said: str = "", code: int = 0) -> None:
        super().__init__(said)
        self.trouble = trouble
        self.said = said
        self.code = code


def trouble_of_completion(code: int) -> Trouble:
    """What a completion code means (IPMI 2.0, table 5-2); one of a vendor's or a command's own says that it failed."""
    return COMPLETIONS.get(code, Trouble.FAILED)


def trouble_of_status(code: int) -> Trouble:
    """What a status code of the session's set-up means (IPMI 2.0, table 13-15)."""
    return STATUSES.get(code, Trouble.GARBLED)


DUPLICATE = 0xCF
"""The request came before, and was carried out or not: the BMC does not know its answer any more."""

NOT_IN_THIS_STATE = 0xD5
"""So some refuse to switch off what is off."""

COMPLETIONS = {
    0x80: Trouble.NOT_OFFERED,  # for boot options: parameter not supported
    0x81: Trouble.BUSY,  # for boot options: somebody else is setting them
    0x82: Trouble.NOT_OFFERED,  # for boot options: read-only
    0xC0: Trouble.BUSY,
    0xC1: Trouble.NOT_OFFERED,
    0xC2: Trouble.NOT_OFFERED,
    0xC3: Trouble.BUSY,  # timed out inside
    0xC4: Trouble.BUSY,  # out of space
    0xC5: Trouble.BUSY,  # the reservation went to somebody else
    0xC6: Trouble.FAILED,  # the request arrived cut
    0xC7: Trouble.NOT_OFFERED,
    0xC8: Trouble.NOT_OFFERED,
    0xC9: Trouble.NOT_OFFERED,
    0xCA: Trouble.NOT_OFFERED,
    0xCB: Trouble.NOT_OFFERED,
    0xCC: Trouble.NOT_OFFERED,
    0xCD: Trouble.NOT_OFFERED,
    0xCE: Trouble.BUSY,  # could not respond
    DUPLICATE: Trouble.BUSY,
    0xD0: Trouble.BUSY,  # repository in update
    0xD1: Trouble.BUSY,  # firmware in update
    0xD2: Trouble.BUSY,  # initialising
    0xD3: Trouble.BUSY,  # who should answer is away
    0xD4: Trouble.NOT_ALLOWED,
    NOT_IN_THIS_STATE: Trouble.BUSY,
    0xD6: Trouble.NOT_OFFERED,
    0xFF: Trouble.FAILED,
}

STATUSES = {
    0x01: Trouble.NO_SESSION,
    0x02: Trouble.SESSION_LOST,
    0x03: Trouble.GARBLED,
    0x04: Trouble.NO_CIPHER,
    0x05: Trouble.NO_CIPHER,
    0x06: Trouble.NO_CIPHER,
    0x07: Trouble.NO_CIPHER,
    0x08: Trouble.SESSION_LOST,
    0x09: Trouble.NOT_ALLOWED,
    0x0A: Trouble.NOT_ALLOWED,
    0x0B: Trouble.NO_SESSION,
    0x0C: Trouble.WRONG_USER,
    0x0D: Trouble.WRONG_USER,
    0x0E: Trouble.NOT_ALLOWED,  # for this GUID
    0x0F: Trouble.WRONG_PASSWORD,
    0x10: Trouble.NO_CIPHER,
    0x11: Trouble.NO_CIPHER,
    0x12: Trouble.GARBLED,
}
