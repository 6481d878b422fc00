"""What to say of a name that is not there."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from mulligan.activities.errors import NotFound


def not_found(what: str, name: str, names: Iterable[str]) -> NotFound:
    """The error for a `what` that is not there, with the nearest of the names that are."""
    nearest = difflib.get_close_matches(name, list(dict.fromkeys(names)), n=3)
    hint = f"did you mean {' or '.join(nearest)}?" if nearest else f"`mulligan {what} list` says what there is"
    return NotFound(f"no {what} {name[:200]!r}: {hint}", nearest=nearest, what=what, name=name[:200])


def require(what: str, name: str, names: Iterable[str]) -> None:
    """Raise `NotFound` unless it is there."""
    known = list(names)
    if name not in known:
        raise not_found(what, name, known)
