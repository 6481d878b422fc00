"""Call-home tokens: signed, bound to one run and one machine, and expiring.

A token is `<payload>.<signature>`, both base64url without padding. It proves what it says and holds no secret. That it
is used once only is decided where that can be decided durably: by the run.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
from dataclasses import dataclass
from datetime import UTC, datetime

from mulligan.activities.errors import AccessDenied
from mulligan.activities.seal import KEY_FILE, Keyring

PURPOSE = "call-home token v1"
MAX_CHARACTERS = 2048


@dataclass(frozen=True, slots=True)
class Permit:
    """What a valid token permits: one call home, to this run, for this machine, on this try."""

    workflow_id: str
    run_id: str
    machine_id: str
    nonce: str
    """Which try of the run it was issued for."""
    expires_at: datetime


def issue(  # noqa: PLR0917 - the fields of a Permit, in their order
    keyring: Keyring, workflow_id: str, run_id: str, machine_id: str, nonce: str, expires_at: datetime
) -> str:
    """A token for one try of one run. The same arguments give the same token. `expires_at` is aware; seconds count."""
    fields = [workflow_id, run_id, machine_id, nonce, int(expires_at.timestamp())]
    payload = _encode(json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode())
    return f"{payload}.{_sign(keyring, payload)}"


def check(keyring: Keyring, token: str, now: datetime) -> Permit:
    """What the token permits at the moment `now`. Raises `AccessDenied` when it is not ours, changed, or expired."""
    payload, _, signature = token[: MAX_CHARACTERS + 1].partition(".")
    expected = _sign(keyring, payload).encode()
    # Compared as written, not as decoded: base64 has several spellings of the same bytes.
    given = signature.encode("utf-8", "surrogatepass")
    if len(token) > MAX_CHARACTERS or not hmac.compare_digest(expected, given):
        raise AccessDenied(
            "the call-home token was not signed by this deployment, or was changed; every process must have the same "
            f"key ({KEY_FILE})"
        )
    try:
        workflow_id, run_id, machine_id, nonce, expires = json.loads(_decode(payload))
    except (ValueError, binascii.Error) as error:
        raise AccessDenied("the call-home token is of another version; it cannot be used") from error
    expires_at = datetime.fromtimestamp(expires, UTC)
    if now >= expires_at:
        raise AccessDenied(
            f"the call-home token expired at {expires_at:%Y-%m-%dT%H:%M:%SZ}; the run no longer waits for it",
            expires_at=expires_at.isoformat(),
        )
    return Permit(workflow_id, run_id, machine_id, nonce, expires_at)


def _sign(keyring: Keyring, payload: str) -> str:
    message = payload.encode("utf-8", "surrogatepass")
    return _encode(hmac.new(keyring.subkey(PURPOSE), message, hashlib.sha256).digest())


def _encode(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _decode(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
