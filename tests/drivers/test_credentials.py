"""References to credentials: resolved from a file that nobody else can read, and never shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from mulligan.activities.credentials import Credential, Credentials
from mulligan.activities.errors import AccessDenied, HostNotReady, NotFound

TEXT = "rack-7:\n  username: root\n  password: canary-1\nrack-8:\n  username: admin\n  password: 0123\n"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file that only its owner can read."""
    made = tmp_path / "credentials.yaml"
    made.touch(0o600)
    made.write_text(TEXT)
    return made


def test_a_reference_stands_for_a_user_and_a_password(path: Path) -> None:
    """Numbers stay as they are written."""
    known = Credentials.load(path)
    assert known.get("rack-7") == Credential("root", "canary-1")
    assert known.get("rack-8").password == "0123"


def test_nothing_that_is_printed_holds_a_password(path: Path) -> None:
    """Neither the credential nor the file's content."""
    known = Credentials.load(path)
    assert "canary" not in repr(known) + str(known) + repr(known.get("rack-7")) + str(known.get("rack-7"))


def test_a_file_that_others_can_read_is_refused(path: Path) -> None:
    """With the command that takes that away."""
    path.chmod(0o640)
    with pytest.raises(HostNotReady, match="mode 0640") as error:
        Credentials.load(path)
    assert error.value.remedy == f"chmod 0600 {path}"


def test_an_unknown_reference_names_its_nearest_and_what_to_write(path: Path) -> None:
    """Where to write it, too."""
    with pytest.raises(NotFound, match=r"rack-77.*credentials.yaml.*nearest are rack-7") as error:
        Credentials.load(path).get("rack-77")
    assert "username: ..." in error.value.message
    assert set(error.value.nearest) == {"rack-7", "rack-8"}


def test_no_reference_is_told_from_a_wrong_one(path: Path) -> None:
    """The provider was registered without one."""
    with pytest.raises(AccessDenied, match="--credential"):
        Credentials.load(path).get("")


def test_without_a_file_every_reference_is_unknown(tmp_path: Path) -> None:
    """Which is said when one is asked for: most deployments need none."""
    with pytest.raises(NotFound, match=r"credentials\.yaml"):
        Credentials.load(tmp_path / "credentials.yaml").get("rack-7")


@pytest.mark.parametrize(
    "text",
    [
        "rack-7: canary-1",
        "- canary-1",
        "rack-7: {username: root, password: canary-1, extra: canary-1}",
        "rack-7: {username: root, password: ''}",
        "rack-7: {username: root, password: [canary-1]}",
        "rack-7: {username: canary-1: canary-1",
        "canary-1",
        "[" * 5000,
        "rack-7: !!python/object/apply:os.system [canary-1]",
        "#" * (1 << 20) + "##",
    ],
)
def test_a_file_that_is_something_else_is_refused_without_quoting_it(path: Path, text: str) -> None:
    """What is wrong is said, and nothing of what is in it."""
    path.write_text(text)
    with pytest.raises(HostNotReady, match="cannot be used") as error:
        Credentials.load(path)
    assert "canary" not in str(error.value) + str(error.value.metadata) + repr(error.value.__cause__)
