"""What to say of a name that is not there."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from mulligan.activities.errors import NotFound


def not_found(what: str, name: str, names: Iterable[str]) -> NotFound:
    """The error for a `what` that is not there, with the nearest of the names that are."""
    return _not_found(what, name, difflib.get_close_matches(name, list(dict.fromkeys(names)), n=3))


def _not_found(what: str, name: str, nearest: list[str]) -> NotFound:
    hint = f"did you mean {' or '.join(nearest)}?" if nearest else f"`mulligan {what} list` says what there is"
    return NotFound(f"no {what} {name[:200]!r}: {hint}", nearest=nearest, what=what, name=name[:200])


def no_run(name: str, ids: Iterable[str]) -> NotFound:
    """The error for a run that is not there: first the runs of a machine of that name, then the nearest ids."""
    known = list(dict.fromkeys(ids))
    machines = [each.rpartition(":")[2] for each in known]
    alike = difflib.get_close_matches(name.rpartition(":")[2], list(dict.fromkeys(machines)), n=1)
    nearest = [each for each, machine in zip(known, machines, strict=True) if machine in alike][:3]
    return not_found("run", name, known) if not nearest else _not_found("run", name, nearest)


def require(what: str, name: str, names: Iterable[str]) -> None:
    """Raise `NotFound` unless it is there."""
    known = list(names)
    if name not in known:
        raise not_found(what, name, known)
