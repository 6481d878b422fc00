"""pyghmi's session, made to work with more BMCs and to say why it failed. Used in the child process only.

pyghmi (1.6.19) differs from what is needed in four ways, each mended in one method below:

- It takes for granted that a BMC accepts the algorithms it proposed. virtualbmc always answers "SHA-1", and what
  follows is then cut at the wrong length. The answer names what was chosen; that is used: `_got_rmcp_response`.
- A packet that is not what it should be raises out of its event loop. Over UDP such packets are to be dropped, and
  the request repeated: `_handle_ipmi_packet`.
- It repeats every request that is not answered, changes too: `ask_once` does not.
- Why a session failed is a sentence, or the text "None". Here it is kept as a `Trouble`: `onlogon` and its callers.
"""

from __future__ import annotations

import hashlib
import socket
import struct
import time
from collections.abc import Mapping
from typing import Any

from pyghmi.exceptions import (
    BmcErrorException,
    BypassGenericBehavior,
    InvalidParameterValue,
    IpmiException,
    PyghmiException,
    TemporaryError,
    UnsupportedFunctionality,
)
from pyghmi.ipmi.private.session import Session

from mulligan.activities.drivers.ipmi.troubles import (
    DUPLICATE,
    BmcTrouble,
    Trouble,
    trouble_of_completion,
    trouble_of_status,
)

_RMCP = b"\x06\x00\xff\x07"
_SHA1 = (1, 1, 1)
_SHA256 = (3, 4, 1)
"""Authentication, integrity and confidentiality of cipher suites 3 and 17 (IPMI 2.0, tables 13-17 to 13-19)."""

ONCE_SECONDS = 4.0
"""How long the answer to a change is waited for, which is not sent again."""
TIMED_OUT = 0xFFFF
"""pyghmi's own code for a request that was not answered."""


class BmcSession(Session):  # type: ignore[misc]  # pyghmi has no types
    """One session with one BMC. Construct it with `log_in`."""

    trouble: BmcTrouble | None = None
    garbled = 0
    """How many packets came that were not what they should be."""
    heard = 0
    """How many packets came."""
    attemptedhash: int

    def _fail(self, trouble: Trouble, said: str, code: int = 0) -> None:
        """Keep the first reason, and end the log-in as pyghmi does."""
        self.trouble = self.trouble or BmcTrouble(trouble, said, code)
        self.onlogon({"error": said})

    def process_pktqueue(self) -> None:
        """Count what comes, then let pyghmi read it."""
        self.heard += len(self.pktqueue)
        self.garbled += sum(not packet[0].startswith(_RMCP) for packet in self.pktqueue)
        super().process_pktqueue()

    def _handle_ipmi_packet(self, data: bytearray, sockaddr: Any = None, qent: Any = None) -> Any:
        try:
            return super()._handle_ipmi_packet(data, sockaddr=sockaddr, qent=qent)
        except (IndexError, struct.error, ValueError):
            self.garbled += 1
            return None

    def _got_rmcp_response(self, data: bytearray) -> Any:
        """The BMC's answer to the proposal: use what it chose, refuse what pyghmi cannot speak."""
        ours = self.sessioncontext == "OPENSESSION" and data[0] == self.rmcptag
        if ours and data[1] != 0 and self.attemptedhash != 256:
            self.trouble = BmcTrouble(trouble_of_status(data[1]), "it refused to open a session", data[1])
        if ours and data[1] == 0 and len(data) >= 36:
            chosen = (data[16], data[24], data[32])
            if chosen == _SHA1:
                self.attemptedhash, self.currhashlib, self.currhashlen = 1, hashlib.sha1, 12
            elif chosen != _SHA256:
                return self._fail(Trouble.NO_CIPHER, f"it chose algorithms {chosen}")
        return super()._got_rmcp_response(data)

    def _got_rakp2(self, data: bytearray) -> Any:
        if data[0] == self.rmcptag and data[1] not in {0, 2}:
            self.trouble = BmcTrouble(trouble_of_status(data[1]), "it refused the user", data[1])
        result = super()._got_rakp2(data)
        if self.logging and self.trouble is not None:
            self.trouble = None  # pyghmi asks again for less privilege
        return result

    def _got_rakp4(self, data: bytearray) -> Any:
        if data[0] == self.rmcptag and data[1] not in {0, 2, 15}:
            self.trouble = BmcTrouble(trouble_of_status(data[1]), "it refused the password", data[1])
        return super()._got_rakp4(data)

    def _get_session_challenge(self) -> None:
        """The way on for IPMI 1.5, which neither encrypts nor hides the password well: not taken."""
        self._fail(Trouble.TOO_OLD, "it offers IPMI 1.5 only")

    def onlogon(self, parameter: Mapping[str, Any]) -> None:
        """The log-in ended; keep why."""
        said = str(parameter.get("error", ""))
        if self.trouble is None and said:
            self.trouble = _named(said)
        super().onlogon(parameter)

    def why(self) -> BmcTrouble:
        """Why the session is over, or the request went unanswered."""
        if self.trouble is not None:
            return self.trouble
        if self.garbled:
            return BmcTrouble(Trouble.GARBLED, f"{self.garbled} of {self.heard} packets could not be read")
        if self.heard and not self.logged and self.sessioncontext == "EXPECTINGRAKP2":
            return BmcTrouble(Trouble.SILENT_ON_USER)
        return BmcTrouble(Trouble.NO_ANSWER)

    def ask(self, netfn: int, command: int, data: tuple[int, ...] = (), least: int = 0) -> bytes:
        """One request; gives the answer's data. Raises `BmcTrouble`, also when it is shorter than `least` bytes."""
        try:
            answer = self.raw_command(netfn=netfn, command=command, data=data)
        except IpmiException:
            raise self.why() from None
        return self._found(answer, least)

    def ask_once(self, netfn: int, command: int, data: tuple[int, ...]) -> bool:
        """Send a change, once; False when its answer is lost, and what came of it must be looked at.

        pyghmi's own way sends a request again until it is answered, half a dozen times, also in another session.
        """
        answers: list[Mapping[str, Any]] = []
        try:
            self.raw_command(netfn=netfn, command=command, data=data, retry=False, callback=answers.append)
            until = time.monotonic() + ONCE_SECONDS
            while not answers and (left := until - time.monotonic()) > 0:
                BmcSession.wait_for_rsp(timeout=min(0.5, left))
        except IpmiException:
            raise self.why() from None
        finally:
            self.incommand = False
        if not answers or int(answers[0].get("code", TIMED_OUT)) in {TIMED_OUT, DUPLICATE}:
            return False
        self._found(answers[0], 0)
        return True

    def _found(self, answer: Mapping[str, Any], least: int) -> bytes:
        code = int(answer.get("code", TIMED_OUT))
        if code == TIMED_OUT:
            raise self.why()
        if code != 0:
            raise BmcTrouble(trouble_of_completion(code), str(answer.get("error", "")), code)
        if len(answer["data"]) < least:
            raise BmcTrouble(Trouble.GARBLED, f"an answer has {len(answer['data'])} bytes instead of {least}")
        return bytes(answer["data"])


def _named(said: str) -> BmcTrouble | None:
    """pyghmi's sentences, where there is nothing better."""
    if said.startswith(("Incorrect password", "Invalid RAKP4")):
        return BmcTrouble(Trouble.WRONG_PASSWORD)
    if "privelege" in said:  # so spelled there
        return BmcTrouble(Trouble.NOT_ALLOWED, said)
    if "channel authentication" in said:
        return BmcTrouble(Trouble.BUSY, said)
    return None


def trouble_of(error: Exception) -> BmcTrouble:
    """What is wrong where pyghmi, or what it stands on, raised this; never with a text that may hold what is secret."""
    if isinstance(error, BmcTrouble):
        return error
    if isinstance(error, IpmiException) and error.ipmicode:
        return BmcTrouble(trouble_of_completion(int(error.ipmicode)), str(error), int(error.ipmicode))
    if isinstance(error, IpmiException) and "no longer connected" in str(error):
        return BmcTrouble(Trouble.SESSION_LOST)
    if isinstance(error, socket.gaierror | UnicodeError) or "Unable to transmit" in str(error):
        return BmcTrouble(Trouble.UNKNOWN_HOST)
    if isinstance(error, OSError):
        return BmcTrouble(Trouble.NO_ANSWER, f"this host says: {error.strerror or type(error).__name__}")
    found = next((trouble for kind, trouble in _RAISED if isinstance(error, kind)), Trouble.GARBLED)
    return BmcTrouble(found, f"pyghmi failed with {type(error).__name__}")


_RAISED: tuple[tuple[type[Exception], Trouble], ...] = (
    (TemporaryError, Trouble.BUSY),
    (UnsupportedFunctionality, Trouble.NOT_OFFERED),
    (InvalidParameterValue, Trouble.NOT_OFFERED),
    (BypassGenericBehavior, Trouble.NOT_OFFERED),
    (NotImplementedError, Trouble.NOT_OFFERED),
    (BmcErrorException, Trouble.GARBLED),
    (PyghmiException, Trouble.FAILED),
)
"""The first that fits. Anything else, like an answer that is too short for pyghmi, is no IPMI."""


def log_in(host: str, port: int, username: str, password: str, seconds: float) -> BmcSession:
    """An open session. Raises `BmcTrouble`."""
    until = time.monotonic() + seconds
    try:
        session = BmcSession(host, username, password, port=port, onlogon=lambda _answer: None)
        while session.logging and time.monotonic() < until:
            BmcSession.wait_for_rsp(timeout=min(1.0, max(0.0, until - time.monotonic())))
    except (PyghmiException, OSError, UnicodeError) as error:
        raise trouble_of(error) from None
    if not session.logged:
        raise session.why()
    return session
