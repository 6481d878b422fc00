"""That no change was sent twice: what it means, in one place, and told from a BMC's own log of requests.

A request repeats another when both ask the same thing of the same part of the machine (its power, its drive, its boot
override), and nothing else was asked of that part in between. It is wrong to repeat a change

- that was done, and still is: nobody may ask for what is so, however late or wrongly the BMC tells of it (unless it
  told wrongly for longer than anybody could wait, `patience` seconds);
- that was not refused, before the machine was looked at: an answer that was lost, or a "yes" that came to nothing, is
  followed by a read of that part that was answered, and only then by another try.

What was refused (busy, an expired session, a wrong ETag) did nothing, and may be sent again at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class Request(Protocol):
    """A request in the log of a BMC, of whatever protocol."""

    @property
    def asks(self) -> str:
        """What is asked for; empty when it only looks."""

    @property
    def parts(self) -> frozenset[str]:
        """The parts of the machine that are looked at, or the one that is asked for."""

    @property
    def at(self) -> float:
        """When it arrived, in seconds."""

    @property
    def acted(self) -> bool:
        """Whether the machine did it."""

    @property
    def already(self) -> bool:
        """Whether the machine was so before."""

    @property
    def refused(self) -> bool:
        """Whether the BMC said that it did not do it."""

    @property
    def answered(self) -> bool:
        """Whether an answer was sent, and one that makes sense."""


def sent_twice(log: Sequence[Request], patience: float) -> list[str]:
    """Every change that should not have been sent, and why not; oldest first."""
    return [wrong for number, sent in enumerate(log) if sent.asks and (wrong := _wrong(log, number, patience))]


def _wrong(log: Sequence[Request], number: int, patience: float) -> str:
    sent = log[number]
    before = [each for each in log[:number] if each.parts & sent.parts]
    changes = [each for each in before if each.asks]
    done = next((each for each in reversed(changes) if each.acted), None)
    if sent.already and done is not None and done.asks == sent.asks and sent.at - done.at < patience:
        return f"{sent.asks}: asked for again, and it was done"
    last = changes[-1] if changes else None
    if last is None or last.asks != sent.asks or last.refused:
        return ""
    since = before[len(before) - before[::-1].index(last) :]
    return "" if any(each.answered for each in since) else f"{sent.asks}: sent again without a look in between"
