"""The deployment's key: made once, kept private, and opening only what it sealed."""

from __future__ import annotations

import stat
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from mulligan.activities.errors import AccessDenied, HostNotReady
from mulligan.activities.seal import Keyring

KEYRING = Keyring(b"1" * 32)
OTHER = Keyring(b"2" * 32)


@given(st.text(max_size=2000))
def test_what_is_sealed_opens(text):
    """And is not to be read while it is sealed."""
    sealed = KEYRING.seal(text)
    assert KEYRING.open(sealed) == text
    assert len(text) < 8 or text not in sealed.rpartition(":")[2]


@given(st.data())
def test_a_changed_seal_does_not_open(data):
    """Wherever it was changed."""
    sealed = KEYRING.seal("#cloud-config\n")
    position = data.draw(st.integers(0, len(sealed) - 1))
    tampered = sealed[:position] + data.draw(st.characters()) + sealed[position + 1 :]
    assume(tampered != sealed)
    with pytest.raises(AccessDenied):
        KEYRING.open(tampered)


def test_the_same_text_seals_differently_and_digests_alike():
    """Seals do not tell that two texts are equal; keyed digests are there for that."""
    assert KEYRING.seal("x") != KEYRING.seal("x")
    assert KEYRING.digest("x") == KEYRING.digest("x")
    assert KEYRING.digest("x") != KEYRING.digest("y")
    assert KEYRING.digest("x") != OTHER.digest("x")


def test_another_key_says_which_setting_to_look_at():
    """The likely cause is a process with another key file."""
    with pytest.raises(AccessDenied, match="MULLIGAN_STATE_DIR"):
        OTHER.open(KEYRING.seal("x"))


@pytest.mark.parametrize(
    "text", ["", "plain", "sealed:v1", "sealed:v2:abc:def", "sealed:v1:" + KEYRING.key_id + ":", "é"]
)
def test_what_is_no_seal_does_not_open(text):
    """Every kind of rubbish has the same error."""
    with pytest.raises(AccessDenied):
        KEYRING.open(text)


def test_the_key_file_is_made_once_and_is_private(tmp_path):
    """The next process reads what the first one made."""
    path = tmp_path / "state" / "key"
    first = Keyring.load(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert Keyring.load(path).open(first.seal("x")) == "x"
    assert [entry.name for entry in path.parent.iterdir()] == ["key"]


def test_processes_that_start_together_share_one_key(tmp_path):
    """Whoever comes first wins, and all use that."""
    with ThreadPoolExecutor(8) as pool:
        keyrings = list(pool.map(Keyring.load, [tmp_path / "key"] * 32))
    assert len({keyring.key_id for keyring in keyrings}) == 1
    assert [entry.name for entry in tmp_path.iterdir()] == ["key"]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o660])
def test_a_key_that_others_may_read_is_refused(tmp_path, mode):
    """With the command that mends it."""
    Keyring.load(tmp_path / "key")
    (tmp_path / "key").chmod(mode)
    with pytest.raises(HostNotReady) as raised:
        Keyring.load(tmp_path / "key")
    assert raised.value.remedy == f"chmod 0600 {tmp_path}/key"


@pytest.mark.parametrize("content", [b"", b"short", b"!" * 44, b"A" * 88])
def test_a_damaged_key_file_is_not_replaced(tmp_path, content):
    """A new key would make everything sealed unreadable for good."""
    path = tmp_path / "key"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(HostNotReady, match="does not hold a key"):
        Keyring.load(path)
    assert path.read_bytes() == content


def test_the_key_is_not_shown(tmp_path):
    """Not even by accident in a log."""
    keyring = Keyring.load(tmp_path / "key")
    secret = (tmp_path / "key").read_text().strip()
    assert secret not in repr(keyring)
    assert secret not in keyring.seal("x")
