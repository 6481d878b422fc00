"""Who Mulligan is to a BMC: references resolved in the partition worker, from a file that nobody else can read.

    # credentials.yaml in the state directory, mode 0600
    rack-7:
      username: mulligan
      password: "..."

Everything else (requests, histories, the database) holds the reference only. The file is read anew whenever a driver
is opened, so a changed password needs no restart.
"""

from __future__ import annotations

import difflib
import os
import shlex
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from mulligan.activities.errors import AccessDenied, HostNotReady, NotFound

FILE = "credentials.yaml"
"""The file's name in the state directory."""

MOST_BYTES = 1 << 20

_SHAPE = "one entry per reference, each with `username` and `password`"


@dataclass(frozen=True, slots=True)
class Credential:
    """A user name and a password. Printing it shows no password."""

    username: str
    password: str = field(repr=False)


class Credentials:
    """What the file holds, by reference. Never printed."""

    def __init__(self, path: Path, known: Mapping[str, Credential]) -> None:
        self._path = path
        self._known = dict(known)

    @classmethod
    def load(cls, path: Path) -> Credentials:
        """Read the file; without one nothing is known, which `get` explains.

        Raises `HostNotReady` when others than its owner could read it, when it cannot be read, or when it is not what
        it should be; the message never repeats any of it. Blocks.
        """
        try:
            with path.open("rb") as file:
                mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
                if mode & 0o077:
                    raise HostNotReady(
                        f"the credentials file {path} has mode {mode:04o}, so others than its owner may read it; take "
                        "that away, and change the passwords if somebody may have read them",
                        remedy=f"chmod 0600 {shlex.quote(str(path))}",
                    )
                text = file.read(MOST_BYTES + 1)
        except FileNotFoundError:
            return cls(path, {})
        except OSError as error:
            raise HostNotReady(
                f"the credentials file {path} cannot be read: {error.strerror}; make it readable for this process",
                remedy=f"ls -l {shlex.quote(str(path))}",
            ) from None
        return cls(path, _parse(path, text))

    def get(self, reference: str) -> Credential:
        """The credential of that reference.

        Raises `AccessDenied` when there is no reference, and `NotFound`, with the nearest ones, when it is not known.
        """
        if not reference:
            raise AccessDenied(
                f"this provider needs a credential, and has none: write one into {self._path} ({_SHAPE}), and name it "
                "with --credential",
                path=self._path,
            )
        if (found := self._known.get(reference)) is None:
            nearest = difflib.get_close_matches(reference, self._known, n=3)
            known = f"the nearest are {', '.join(nearest)}" if nearest else f"it has {len(self._known)} others"
            raise NotFound(
                f"credential {reference!r} is not in {self._path} on this worker ({known}); write there:\n"
                f"{reference}:\n  username: ...\n  password: ...\n(mode 0600) or name another with --credential",
                nearest=nearest,
                reference=reference,
                path=self._path,
            )
        return found

    def __repr__(self) -> str:
        return f"Credentials({str(self._path)!r}, {len(self._known)} references)"


def _parse(path: Path, text: bytes) -> dict[str, Credential]:
    """What the text says. Its own error messages would quote it, so only the place is told."""
    if len(text) > MOST_BYTES:
        raise _unfit(path, f"it is larger than {MOST_BYTES} bytes")
    try:
        tree = yaml.load(text, Loader=yaml.BaseLoader)  # noqa: S506 - builds strings, lists and mappings only
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        raise _unfit(path, f"it is not YAML{f', near line {mark.line + 1}' if mark else ''}") from None
    except RecursionError:
        raise _unfit(path, "it is nested too deeply") from None
    if tree in (None, ""):
        return {}
    if not isinstance(tree, dict):
        raise _unfit(path, "it is not a mapping")
    return {str(name): _credential(path, str(name), entry) for name, entry in tree.items()}


def _credential(path: Path, name: str, entry: object) -> Credential:
    if not isinstance(entry, dict) or set(entry) != {"username", "password"}:
        raise _unfit(path, f"the entry {name[:80]!r} must have `username` and `password`, and nothing else")
    if not all(isinstance(value, str) and value for value in entry.values()):
        raise _unfit(path, f"the user name and the password of {name[:80]!r} must be text, and not empty")
    return Credential(entry["username"], entry["password"])


def _unfit(path: Path, why: str) -> HostNotReady:
    return HostNotReady(f"the credentials file {path} cannot be used: {why}; it holds {_SHAPE}", remedy=f"edit {path}")
