"""The driver transcript: which of a driver's verbs an activity called, when, for how long, and what came of it.

It travels in the run's own history: in the activity's result (`verbs`), or as a detail of the failure. Arguments are
never kept, because they may name what is secret. A cancelled attempt leaves none: Temporal keeps nothing of it.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast

from mulligan.activities.drivers.base import Driver
from mulligan.activities.errors import MulliganError
from mulligan.activities.values import Verb

MOST = 64
"""Entries that one attempt's transcript may have."""

FIRST = 32
"""How many of the oldest entries stay when there are too many; the rest are the newest."""

CYCLE = 6
"""A verb that was called before within so many entries, with the same end, is counted there: a poll takes turns."""

LEFT_OUT = "left-out"
"""The name of the entry that stands for what was left out."""

UNRECORDED = frozenset({"close"})


@dataclass
class Transcript:
    """What one attempt of an activity asked of its driver."""

    entries: list[Verb] = field(default_factory=list)
    left_out: Verb | None = None

    def note(self, verb: Verb) -> None:
        """Add a call; equal ones are counted."""
        for at in range(len(self.entries) - 1, max(-1, len(self.entries) - 1 - CYCLE), -1):
            known = self.entries[at]
            if (known.name, known.said) == (verb.name, verb.said):
                self.entries[at] = _added(known, verb)
                return
        self.entries.append(verb)
        if len(self.entries) >= MOST:
            gone = self.entries.pop(FIRST)
            self.left_out = _added(self.left_out or Verb(LEFT_OUT, gone.at, 0.0, count=0), gone)

    def verbs(self) -> tuple[Verb, ...]:
        """All of it, in the order in which each verb was first called."""
        middle = [self.left_out] if self.left_out is not None else []
        return (*self.entries[:FIRST], *middle, *self.entries[FIRST:])


_current: ContextVar[Transcript | None] = ContextVar("transcript", default=None)


@contextmanager
def transcribing() -> Iterator[Transcript]:
    """Keep a transcript of every verb that is called within the block, also by tasks that it starts."""
    token = _current.set(transcript := Transcript())
    try:
        yield transcript
    finally:
        _current.reset(token)


@contextmanager
def noted(name: str) -> Iterator[None]:
    """Note one call: when it began, how long it took, and the name of what it raised."""
    transcript = _current.get()
    if transcript is None:
        yield
        return
    at, began, said = datetime.now(UTC), time.monotonic(), ""
    try:
        yield
    except BaseException as error:
        said = error.reason if isinstance(error, MulliganError) else type(error).__name__
        raise
    finally:
        at = at.replace(microsecond=at.microsecond // 1000 * 1000)
        transcript.note(Verb(name, at, round(time.monotonic() - began, 3), said))


def recorded(driver: Driver) -> Driver:
    """The driver with its verbs noted in the current transcript.

    It has the attributes that the driver has and no others, so that it satisfies the same Protocols.
    """
    public = {name: getattr(driver, name) for name in dir(driver) if not name.startswith("_")}
    members = {name: _noting(name, member) if _is_verb(name, member) else member for name, member in public.items()}
    return cast(Driver, SimpleNamespace(**members))


def _is_verb(name: str, member: object) -> bool:
    return inspect.iscoroutinefunction(member) and name not in UNRECORDED


def _noting(name: str, verb: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    @functools.wraps(verb)
    async def call(*args: Any, **kwargs: Any) -> Any:
        with noted(name):
            return await verb(*args, **kwargs)

    return call


def _added(known: Verb, more: Verb) -> Verb:
    return replace(known, seconds=round(known.seconds + more.seconds, 3), count=known.count + more.count)


def with_verbs(result: Any, verbs: tuple[Verb, ...]) -> Any:
    """An activity's result with its transcript, where it has room for one."""
    if not verbs or not dataclasses.is_dataclass(result) or "verbs" not in {f.name for f in dataclasses.fields(result)}:
        return result
    return replace(cast(Any, result), verbs=verbs)
