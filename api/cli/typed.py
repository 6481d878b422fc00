"""What was typed, as a command to type again: changed where that helps, and quoted for a shell."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterable, Iterator, Sequence

_ASKS = (["machine", "plan"], ["machine", "provision"])
"""Commands that take the same flags, but for the few that only `provision` has."""


def again(*more: str, without: Iterable[str] = ()) -> str:
    """The command as it was typed, `without` these options and their values, and with `more` at its end."""
    return shlex.join(["mulligan", *_left(sys.argv[1:], frozenset(without)), *more])


def asks_for_a_machine() -> bool:
    """Whether what was typed says all that is asked of a machine."""
    return sys.argv[1:3] in _ASKS


def as_provision(*more: str) -> str:
    """What was asked for, to be made; for a command that asks for a machine."""
    flags = [flag for flag in sys.argv[3:] if flag not in more]
    return shlex.join(["mulligan", "machine", "provision", *flags, *more])


def as_plan() -> str:
    """What was asked for, to be planned; where something else was typed, how that is done."""
    if not asks_for_a_machine():
        return "mulligan machine plan --help"
    flags = (flag for flag in _left(sys.argv[3:], frozenset(("--plan",))) if flag != "--detach")
    return shlex.join(["mulligan", "machine", "plan", *flags])


def without_the_pin() -> tuple[str, ...]:
    """The same for any provider: nothing where it was not asked for by `--provider`."""
    if not any(_is(flag, "--provider") for flag in sys.argv[3:]):
        return ()
    return (again(without=("--provider", "--plan")),)


def _left(arguments: Sequence[str], without: frozenset[str]) -> Iterator[str]:
    """The arguments without these options, each with its value, which is in the same word or in the next one."""
    is_value = False
    for argument in arguments:
        if is_value:
            is_value = False
        elif any(_is(argument, option) for option in without):
            is_value = "=" not in argument
        else:
            yield argument


def _is(argument: str, option: str) -> bool:
    return argument == option or argument.startswith(f"{option}=")
