"""Tokens: signed for one purpose, bound to one run, and expiring. They prove what they say, and hold no secret.

A guest's call-home token is `<payload>.<signature>`, both base64url without padding. That it is used once only is
decided where that can be decided durably: by the run.

A deploy agent's token is `<job>.<attempt>.<expires>.<signature>`, because some BMCs take short URLs only. What else
it is bound to, the run and its workflow, is signed and not written: whoever checks it knows that from the job.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from mulligan.activities.errors import AccessDenied
from mulligan.activities.seal import KEY_FILE, Keyring

PURPOSE = "call-home token v1"
AGENT_PURPOSE = "deploy-agent token v1"
MAX_CHARACTERS = 2048
SHORT_SIGNATURE_BYTES = 18
"""144 bits of HMAC-SHA256."""


@dataclass(frozen=True, slots=True)
class Permit:
    """What a valid token permits: one call home, to this run, for this machine, on this try."""

    workflow_id: str
    run_id: str
    machine_id: str
    nonce: str
    """Which try of the run it was issued for."""
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class AgentPermit:
    """What a deploy agent's token permits: one boot of the agent, for this job, at this attempt."""

    job: str
    attempt: int
    expires_at: datetime


def issue(  # noqa: PLR0917 - the fields of a Permit, in their order
    keyring: Keyring, workflow_id: str, run_id: str, machine_id: str, nonce: str, expires_at: datetime
) -> str:
    """A token for one try of one run. The same arguments give the same token. `expires_at` is aware; seconds count."""
    fields = [workflow_id, run_id, machine_id, nonce, int(expires_at.timestamp())]
    payload = _encode(json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode())
    return f"{payload}.{_encode(_signature(keyring, PURPOSE, payload))}"


def check(keyring: Keyring, token: str, now: datetime) -> Permit:
    """What the token permits at the moment `now`. Raises `AccessDenied` when it is not ours, changed, or expired."""
    payload, _, signature = token[: MAX_CHARACTERS + 1].partition(".")
    expected = _encode(_signature(keyring, PURPOSE, payload)).encode()
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


def issue_agent(keyring: Keyring, permit: AgentPermit, bound_to: Sequence[str]) -> str:
    """A token for one boot of the agent, bound to these strings too. `expires_at` is aware; seconds count."""
    said = f"{permit.job}.{permit.attempt}.{int(permit.expires_at.timestamp())}"
    return f"{said}.{_agent_signature(keyring, said, bound_to)}"


def read_agent(token: str) -> AgentPermit:
    """What the token says, unproved: enough to find what it is bound to. Raises `AccessDenied` for what is no token."""
    job, attempt, expires, _ = ["", "", "", "", *token[:MAX_CHARACTERS].rsplit(".", 3)][-4:]
    if not (job and all(re.fullmatch("[0-9]{1,10}", number) for number in (attempt, expires))):
        raise AccessDenied("this is no deploy agent's token")
    return AgentPermit(job, int(attempt), datetime.fromtimestamp(int(expires), UTC))


def check_agent(keyring: Keyring, token: str, bound_to: Sequence[str], now: datetime) -> AgentPermit:
    """What the token permits at the moment `now`. Raises `AccessDenied`: not ours, of another run, or expired."""
    permit = read_agent(token)
    said, _, signature = token.rpartition(".")
    given = signature.encode("utf-8", "surrogatepass")
    if not hmac.compare_digest(_agent_signature(keyring, said, bound_to).encode(), given):
        raise AccessDenied("the deploy agent's token was not signed by this deployment for this run, or was changed")
    if now >= permit.expires_at:
        raise AccessDenied(
            f"the deploy agent's token expired at {permit.expires_at:%Y-%m-%dT%H:%M:%SZ}; the run waits for it no more",
            expires_at=permit.expires_at.isoformat(),
        )
    return permit


def _agent_signature(keyring: Keyring, said: str, bound_to: Sequence[str]) -> str:
    signed = json.dumps([said, *bound_to], ensure_ascii=True)
    return _encode(_signature(keyring, AGENT_PURPOSE, signed)[:SHORT_SIGNATURE_BYTES])


def _signature(keyring: Keyring, purpose: str, text: str) -> bytes:
    return hmac.new(keyring.subkey(purpose), text.encode("utf-8", "surrogatepass"), hashlib.sha256).digest()


def _encode(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _decode(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
