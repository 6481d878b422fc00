"""From sushy's errors to the domain's: the one place that knows both. No message ever holds what is secret."""

from __future__ import annotations

import hashlib
import re
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from requests.exceptions import RequestException, SSLError
from sushy import exceptions as theirs

from mulligan.activities.drivers.redfish.address import Host
from mulligan.activities.drivers.redfish.refusals import is_busy, reason_of
from mulligan.activities.drivers.redfish.shown import shown
from mulligan.activities.drivers.redfish.wire import CONNECT_SECONDS, Redirected
from mulligan.activities.errors import (
    AccessDenied,
    Busy,
    MulliganError,
    NotFound,
    Unreachable,
    Unsupported,
)

COOL_DOWN_SECONDS = 15.0
"""After a power change, and during the machine's own start, BMCs refuse for 20 to 60 seconds."""

_OPENSSL = re.compile(r"\[SSL: (?P<name>\w+)\] (?P<words>[^(]*)")
_NEVER = re.compile("PROTOCOL|CIPHER|TOO_SMALL|TOO_WEAK|SECURITY|LEGACY|SIGNATURE_TYPE")
"""In the names that OpenSSL gives to what it refuses, or was refused, however often it is tried."""
_MODERN_TLS = (
    "let the BMC offer TLS 1.2 or 1.3 with forward secrecy (ECDHE), or update its firmware, or use ipmi:// in the URL"
)
_GARBAGE = (ValueError, TypeError, KeyError, IndexError, AttributeError)
"""What sushy raises for answers that are no JSON, or not of the shape that Redfish gives them."""


@contextmanager
def speaking(doing: str, provider: str, host: Host, retry_after: Callable[[], float], secret: str) -> Iterator[None]:
    """Within, sushy's errors are raised as the domain's. `doing` says what was asked; `secret` is never repeated."""
    try:
        yield
    except MulliganError:
        raise
    except (theirs.SushyError, RequestException, *_GARBAGE) as error:
        raise _Said(doing, provider, host, secret).translate(error, retry_after()) from None


class _Said:
    """What was asked of whom, for one error."""

    def __init__(self, doing: str, provider: str, host: Host, secret: str) -> None:
        self.doing, self.provider, self.host, self._secret = doing, provider, host, secret

    def translate(self, error: Exception, retry_after: float) -> MulliganError:
        if isinstance(error, theirs.HTTPError):
            return self._refused(error, retry_after)
        if isinstance(error, theirs.ConnectionError):
            return self._unreachable(error)
        if isinstance(error, theirs.MissingActionError | theirs.InvalidParameterValueError):
            return self._as(Unsupported, f"the BMC cannot do that: {error}", "update its firmware, or do without")
        if isinstance(error, Redirected):
            return self._as(Unsupported, str(error), "register the address that it really has")
        what = f"{type(error).__name__}: {error}"
        return self._as(Unreachable, f"the answer made no sense ({what})", "it will be tried again")

    def _refused(self, error: theirs.HTTPError, retry_after: float) -> MulliganError:
        status = int(error.status_code or 0)
        found = f"HTTP {status}: {reason_of(error)}"
        if status in (401, 403):
            advice = "check the user name and password behind --credential, and that the user may do this"
            return self._as(AccessDenied, found, advice, status=status)
        if is_busy(error):
            seconds = retry_after or COOL_DOWN_SECONDS
            state = "failed at it" if status in (500, 502, 504) else "is busy"
            text = self._text(found, f"the BMC {state}, and is asked again in {seconds:.0f} s")
            return Busy(text, after_seconds=seconds, **self._facts(status=status))
        if status == 404:
            return self._as(NotFound, found, "check the provider's URL", status=status)
        return self._as(Unsupported, found, "the BMC does not take this; update its firmware, or do without")

    def _unreachable(self, error: theirs.ConnectionError) -> MulliganError:
        cause = error.__context__
        text = str(cause)
        if not isinstance(cause, SSLError):
            found = f"no answer from {self.host.url} ({_reason(cause)})"
            return self._as(Unreachable, found, "it will be tried again; check address, network and that the BMC is up")
        if "WRONG_VERSION_NUMBER" in text or "record layer" in text.lower():
            return self._as(
                Unsupported, f"{self.host.url} does not speak TLS", "for plain HTTP write redfish+http:// in the URL"
            )
        if "CERTIFICATE_VERIFY_FAILED" in text or "ingerprint" in text or "match" in text:
            return self._wrong_certificate(text)
        named = _OPENSSL.search(text)
        reason = named["words"].strip() if named else _reason(cause)
        if named and _NEVER.search(named["name"]):
            found = f"{self.host.url} and this worker have no TLS in common ({reason})"
            return self._as(Unsupported, found, _MODERN_TLS, tls=named["name"])
        advice = "it will be tried again"
        if named and "HANDSHAKE" in named["name"]:  # also of a BMC that starts, and has no certificate yet
            advice += f"; should it stay so, {_MODERN_TLS}"
        return self._as(Unreachable, f"TLS with {self.host.url} broke off ({reason})", advice)

    def _wrong_certificate(self, text: str) -> MulliganError:
        shown = certificate_of(self.host)
        seen = f"its SHA-256 is {shown}" if shown else "and it did not show it again"
        if self.host.fingerprint:
            found = f"the certificate is not the pinned one ({seen})"
        else:
            found = f"the certificate is not trusted ({seen}): {text.rpartition('certificate verify failed:')[2][:120]}"
        return self._as(
            AccessDenied,
            found.rstrip(" :"),
            "compare it with what the BMC itself shows, then name its authority with --set ca=FILE or pin it with "
            "--set fingerprint=SHA256",
            certificate=shown,
        )

    def _as(self, kind: type[MulliganError], found: str, advice: str, **facts: object) -> MulliganError:
        return kind(self._text(found, advice), **self._facts(**facts))

    def _text(self, found: str, advice: str) -> str:
        found = " ".join(self._clean(found).split())[:500].rstrip(". ")  # cut last: no part of a secret may be left
        return self._clean(f"{self.provider}: {self.doing}: {found}; {advice}")

    def _facts(self, **more: object) -> dict[str, object]:
        return {"provider": self.provider, "doing": self.doing, "url": self.host.url, **more}

    def _clean(self, text: str) -> str:
        text = shown(text)  # BMCs repeat what they refuse: the URL of a medium too
        return text.replace(self._secret, "***") if self._secret else text


def certificate_of(host: Host) -> str:
    """The SHA-256 of the certificate that the BMC shows, unchecked; empty when it shows none."""
    parts = urlsplit(host.url)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with (
            socket.create_connection((parts.hostname or "", parts.port or 443), CONNECT_SECONDS) as plain,
            context.wrap_socket(plain, server_hostname=parts.hostname) as secure,
        ):
            shown = secure.getpeercert(binary_form=True)
    except OSError:
        return ""
    return hashlib.sha256(shown).hexdigest() if shown else ""


def _reason(cause: BaseException | None) -> str:
    """The innermost reason, in few words: requests' own texts are long, and name objects by their addresses."""
    inner = cause.args[0] if cause is not None and cause.args else cause
    inner = getattr(inner, "reason", inner)
    text = str(inner).rpartition(">: ")[2].rpartition("): ")[2]
    return " ".join(text.split())[:200] or type(cause).__name__
