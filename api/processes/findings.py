"""What a check of this host found: one thing that was asked, what was seen, and the command that mends it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum

from mulligan.activities.errors import HostNotReady, MulliganError


class State(StrEnum):
    """How a thing is. Only WRONG counts against the host."""

    FINE = "fine"
    NOTE = "note"
    WRONG = "wrong"


@dataclass(frozen=True, slots=True)
class Finding:
    """One check's result. `remedy` is a command; empty when nothing needs mending, or no command does it."""

    name: str
    asked: str
    state: State
    found: str
    remedy: str = ""


Check = Callable[[], Finding]


def fine(name: str, asked: str, found: str) -> Finding:
    """It is as it should be."""
    return Finding(name, asked, State.FINE, found)


def note(name: str, asked: str, found: str, remedy: str = "") -> Finding:
    """Worth knowing, and not wrong."""
    return Finding(name, asked, State.NOTE, found, remedy)


def wrong(name: str, asked: str, found: str, remedy: str = "") -> Finding:
    """It keeps Mulligan from working."""
    return Finding(name, asked, State.WRONG, found, remedy)


def not_needed(finding: Finding, by: str) -> Finding:
    """The same finding, where nothing needs what is wrong: it would be needed by this."""
    if finding.state is not State.WRONG:
        return finding
    return replace(finding, state=State.NOTE, found=f"{finding.found}; needed only for {by}")


def looked(name: str, asked: str, look: Callable[[], str]) -> Finding:
    """Fine with what `look` says; wrong when it raises one of our errors."""
    try:
        return fine(name, asked, look())
    except HostNotReady as error:
        return wrong(name, asked, error.message, error.remedy)
    except MulliganError as error:
        return wrong(name, asked, error.message)
