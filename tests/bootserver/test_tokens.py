"""Call-home tokens: what was issued is accepted as it was, and nothing else ever is."""

from __future__ import annotations

import string
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from mulligan.activities.bootserver.tokens import check, issue
from mulligan.activities.errors import AccessDenied
from mulligan.activities.seal import Keyring

KEYRING = Keyring(b"1" * 32)
OTHER = Keyring(b"2" * 32)
NOW = datetime(2026, 11, 22, tzinfo=UTC)
LATER = NOW + timedelta(hours=1)
TOKEN = issue(KEYRING, "provision:shop:web-1", "run-1", "machine-1", "1", LATER)

names = st.text(max_size=60).filter(lambda text: text.isprintable())


@given(names, names, names, names, st.integers(1, 10**6))
def test_a_token_says_what_it_was_issued_for(workflow_id, run_id, machine_id, nonce, seconds):
    """Every field comes back, whatever it holds."""
    expires = NOW + timedelta(seconds=seconds)
    permit = check(KEYRING, issue(KEYRING, workflow_id, run_id, machine_id, nonce, expires), NOW)
    assert (permit.workflow_id, permit.run_id, permit.machine_id, permit.nonce) == (
        workflow_id,
        run_id,
        machine_id,
        nonce,
    )
    assert permit.expires_at == expires


@given(st.integers(0, len(TOKEN) - 1), st.sampled_from(string.ascii_letters + string.digits + "-_.= é\udc80"))
def test_a_changed_character_is_never_accepted(position, character):
    """Not even one that base64 would read as the same."""
    tampered = TOKEN[:position] + character + TOKEN[position + 1 :]
    assume(tampered != TOKEN)
    with pytest.raises(AccessDenied, match="not signed"):
        check(KEYRING, tampered, NOW)


@given(st.text(max_size=3000))
def test_no_other_text_is_accepted(text):
    """Rubbish gives the same error, and no other."""
    with pytest.raises(AccessDenied):
        check(KEYRING, text, NOW)


@given(st.text(alphabet="AQagw=._-09", min_size=1, max_size=5))
def test_nothing_may_be_added(more):
    """Neither before nor after."""
    for tampered in (TOKEN + more, more + TOKEN):
        with pytest.raises(AccessDenied):
            check(KEYRING, tampered, NOW)


def test_fields_do_not_run_into_each_other():
    """The same characters in other fields are another token."""
    one, two = (issue(KEYRING, *fields, "m", "1", LATER) for fields in (("ab", "c"), ("a", "bc")))
    assert one != two


def test_another_deployments_token_is_refused():
    """The key decides."""
    with pytest.raises(AccessDenied, match="MULLIGAN_STATE_DIR"):
        check(OTHER, TOKEN, NOW)


def test_a_token_expires_to_the_second():
    """Valid until, and not at, the moment it names."""
    assert check(KEYRING, TOKEN, LATER - timedelta(seconds=1)).run_id == "run-1"
    with pytest.raises(AccessDenied, match="expired at 2026-11-22T01:00:00Z"):
        check(KEYRING, TOKEN, LATER)


def test_a_token_goes_where_tokens_go():
    """It is short, and made of characters that need no quoting in a header, a URL or YAML."""
    assert set(TOKEN) <= set(string.ascii_letters + string.digits + "-_.")
    assert len(TOKEN) < 200


def test_a_key_for_another_purpose_signs_nothing_here():
    """Keys are derived per purpose."""
    assert len({KEYRING.subkey(purpose) for purpose in ("a", "b", "call-home token v1", "seal v1")}) == 4
