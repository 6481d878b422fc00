"""What surrounds every verb of a simulated host: rules of fault injection, personalities, counters and the journal."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from mulligan.activities import errors
from mulligan.activities.drivers.base import Deadline
from mulligan.activities.drivers.simulated.boot import go_off
from mulligan.activities.drivers.simulated.marks import check_fence, keep_fence
from mulligan.activities.drivers.simulated.personalities import Personality
from mulligan.activities.drivers.simulated.settings import HostSettings, Rule
from mulligan.activities.drivers.simulated.state import State
from mulligan.activities.values import Mark

T = TypeVar("T")

CHANGING = frozenset(
    {
        *("place_base", "remove_bases", "create_disks", "place_live", "remove_disks"),
        *("define", "undefine", "power_on", "power_off"),
    }
)
"""The verbs that change the host: each call of one is in the journal. Of the others, only what failed."""

BUSY_VERBS = 2
"""How many verbs a host with a busy window refuses after a change of power."""


@dataclass(frozen=True, slots=True)
class Verb:
    """One call: its name, for which mark (None for the host's own verbs), until when."""

    name: str
    mark: Mark | None
    deadline: Deadline

    @property
    def machine_id(self) -> str:
        """The machine that it is for; empty for none."""
        return self.mark.machine_id if self.mark else ""


class Frame:
    """Runs verbs on one host."""

    def __init__(self, state: State, settings: HostSettings) -> None:
        self.state = state
        self.settings = settings
        rules = (*settings.fail, *settings.fail_after, *settings.hold)
        self._counted = frozenset(rule.verb for rule in rules)
        self._held = frozenset(rule.verb for rule in settings.hold)
        self._writes = bool(settings.personalities or settings.off_after)
        """Whether any verb may write, also one that only reads."""

    async def run(
        self,
        verb: Verb,
        act: Callable[[sqlite3.Connection], T],
        before: Callable[[], Awaitable[None]] | None = None,
    ) -> T:
        """Do `act` in one transaction, after `before` where given, with all that may go wrong on the way."""
        verb.deadline.check(f"simulated host {self.settings.host!r}: {verb.name}")
        if verb.name in self._held or before is not None:
            call = self._unwrap(await self.state.change(lambda db: self._enter(db, verb, announce=True)))
            await self._hold(verb, call)
            if before is not None:
                await before()
            return self._unwrap(await self.state.change(lambda db: self._act(db, verb, call, act)))
        if verb.name in CHANGING or verb.name in self._counted or self._writes:
            return self._unwrap(await self.state.change(lambda db: self._whole(db, verb, act)))
        return self._unwrap(await self.state.read(lambda db: self._read(db, verb, act)))

    @staticmethod
    def _unwrap(outcome: T | errors.MulliganError) -> T:
        """Errors come out of a transaction as values, so that what was counted and written before them stays."""
        if isinstance(outcome, errors.MulliganError):
            raise outcome
        return outcome

    def _read(
        self, db: sqlite3.Connection, verb: Verb, act: Callable[[sqlite3.Connection], T]
    ) -> T | errors.MulliganError:
        try:
            if verb.mark:
                check_fence(db, self.settings.host, verb.mark)
            return act(db)
        except errors.MulliganError as error:
            return error

    def _whole(
        self, db: sqlite3.Connection, verb: Verb, act: Callable[[sqlite3.Connection], T]
    ) -> T | errors.MulliganError:
        call = self._enter(db, verb, announce=False)
        return call if isinstance(call, errors.MulliganError) else self._act(db, verb, call, act)

    def _enter(self, db: sqlite3.Connection, verb: Verb, announce: bool) -> int | errors.MulliganError:
        """Count the call, and refuse it when the host is dead or busy, or when a rule says so."""
        call = self._count(db, verb.name, "") if verb.name in self._counted else 0
        error = self._refusal(db, verb) or self._by_rule(self.settings.fail, verb, call, "before it acted")
        if error is not None:
            self._write(db, verb, error.reason, changed=False)
            return error
        if announce and verb.name in CHANGING:
            self._write(db, verb, "BEGUN", changed=False)
        return call

    def _act(
        self, db: sqlite3.Connection, verb: Verb, call: int, act: Callable[[sqlite3.Connection], T]
    ) -> T | errors.MulliganError:
        go_off(db, self.settings)
        written = db.total_changes
        try:
            if verb.mark:
                (keep_fence if verb.name in CHANGING else check_fence)(db, self.settings.host, verb.mark)
            written = db.total_changes
            result = act(db)
        except errors.MulliganError as error:
            self._write(db, verb, error.reason, changed=db.total_changes > written)
            return error
        changed = verb.name in CHANGING and db.total_changes > written
        lost = self._by_rule(self.settings.fail_after, verb, call, "after it acted") or self._drop(db, verb)
        if lost is not None or verb.name in CHANGING:
            self._write(db, verb, lost.reason if lost else "OK", changed=changed)
        return lost if lost is not None else result

    async def _hold(self, verb: Verb, call: int) -> None:
        seconds = sum(float(rule.value) for rule in self.settings.hold if rule.meets(verb.name, call))
        if seconds:
            await pause(seconds, verb, self.settings.host)

    def _refusal(self, db: sqlite3.Connection, verb: Verb) -> errors.MulliganError | None:
        if not self.settings.personalities & {Personality.DIES, Personality.BUSY_WINDOW}:
            return None
        row = db.execute("SELECT dead, busy FROM hosts WHERE host=?", (self.settings.host,)).fetchone()
        if row is not None and row["dead"]:
            return make_error("Unreachable", self.settings.host, verb.name, "it died when a machine was powered on")
        if row is not None and row["busy"] and verb.mark is not None:
            db.execute("UPDATE hosts SET busy = busy - 1 WHERE host=?", (self.settings.host,))
            return make_error(
                "Busy", self.settings.host, verb.name, "its power has just changed", 2 * self.settings.speed
            )
        return None

    def _by_rule(self, rules: tuple[Rule, ...], verb: Verb, call: int, when: str) -> errors.MulliganError | None:
        for rule in rules:
            if rule.meets(verb.name, call):
                return make_error(rule.value, self.settings.host, verb.name, f"a rule failed call {call} {when}")
        return None

    def _drop(self, db: sqlite3.Connection, verb: Verb) -> errors.MulliganError | None:
        """The connection is dropped after the first call of a changing verb for a machine."""
        if not self.settings.has(Personality.DROPS_AFTER_ACTING) or verb.name not in CHANGING or verb.mark is None:
            return None
        if self._count(db, verb.name, verb.machine_id) > 1:
            return None
        return make_error("Unreachable", self.settings.host, verb.name, "it acted, then dropped the connection")

    def _count(self, db: sqlite3.Connection, verb: str, machine_id: str) -> int:
        row = db.execute(
            "INSERT INTO calls VALUES (?, ?, ?, 1) ON CONFLICT DO UPDATE SET n = n + 1 RETURNING n",
            (self.settings.host, machine_id, verb),
        ).fetchone()
        return int(row["n"])

    def _write(self, db: sqlite3.Connection, verb: Verb, outcome: str, changed: bool) -> None:
        fence = verb.mark.fence if verb.mark else 0
        db.execute(
            "INSERT INTO journal (at, pid, host, verb, machine_id, fence, outcome, changed)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (time.time(), os.getpid(), self.settings.host, verb.name, verb.machine_id, fence, outcome, changed),
        )


async def pause(seconds: float, verb: Verb, host: str) -> None:
    """Let time pass, at most until the deadline; raises `Unreachable` when that came first."""
    await asyncio.sleep(min(seconds, verb.deadline.remaining))
    verb.deadline.check(f"simulated host {host!r}: {verb.name}")


def make_error(name: str, host: str, verb: str, why: str, after_seconds: float = 0.0) -> errors.MulliganError:
    """The error of that name, saying that it is a part of the simulation."""
    message = f"simulated host {host!r}, asked to {verb}, answered {name}: {why}"
    if name == "Busy":
        return errors.Busy(f"{message}; it will be tried again", after_seconds=after_seconds, host=host, verb=verb)
    kind: type[errors.MulliganError] = getattr(errors, name)
    return kind(f"{message}; this is a simulated fault, set in the provider's address", host=host, verb=verb)
