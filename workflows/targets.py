"""The providers' settings as a run knows them: it keeps those that it began with, until it is told of newer ones.

An operator mends a credential, a pinned certificate or a setting while a run fails for the old one. What is asked for
next then takes the new settings, and an action that waits for its next attempt is begun anew with them.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable
from typing import TypeVar

from temporalio import workflow
from temporalio.exceptions import ActivityError

with workflow.unsafe.imports_passed_through():
    from mulligan.activities.values import Target

In = TypeVar("In")
Out = TypeVar("Out")


def target_of(argument: object) -> Target | None:
    """The provider that an action's argument names, if it names one."""
    target = getattr(argument, "target", None)
    return target if isinstance(target, Target) else None


class Targets:
    """The newest settings of the run's providers, and the actions that are under way with some."""

    def __init__(self) -> None:
        self._newest: dict[str, Target] = {}
        self._under_way: dict[workflow.ActivityHandle[object], Target] = {}
        self._superseded: set[workflow.ActivityHandle[object]] = set()

    def used(self) -> tuple[Target, ...]:
        """The settings with which something is under way."""
        return tuple(self._under_way.values())

    def learn(self, target: Target) -> None:
        """Ask for what comes next with these settings."""
        self._newest[target.name] = target

    def begin_anew(self, target: Target) -> bool:
        """Ask with these settings, also for what is under way with others; whether there was such an action."""
        self.learn(target)
        old = [handle for handle, used in self._under_way.items() if used.name == target.name and used != target]
        self._superseded.update(old)
        for handle in old:  # in the order in which they began, also when this is replayed
            handle.cancel()
        return bool(old)

    def newest(self, argument: In) -> In:
        """The argument, with its provider's newest settings."""
        used = target_of(argument)
        newest = self._newest.get(used.name) if used is not None else None
        if newest is None or newest == used:
            return argument
        return dataclasses.replace(argument, target=newest)  # type: ignore[type-var]

    async def carry_out(self, start: Callable[[In], workflow.ActivityHandle[Out]], argument: In) -> Out:
        """The result of an action, begun anew whenever newer settings are to be used for it."""
        while True:
            current = self.newest(argument)
            handle, used = start(current), target_of(current)
            if used is None:
                return await handle
            self._under_way[handle] = used
            try:
                return await handle
            except ActivityError:
                task = asyncio.current_task()
                if handle not in self._superseded or (task is not None and task.cancelling()):
                    raise
            finally:
                del self._under_way[handle]
                self._superseded.discard(handle)
