"""Real methods that wait until they are let go, and what tests of such moments look at."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass, field
from typing import Any

from temporalio.api.enums.v1 import EventType
from temporalio.client import WorkflowHandle

from mulligan.activities.events import EventKind
from mulligan.activities.values import MachineState
from tests.workflows.stack import Stack


@dataclass
class Stall:
    """A real method of the inventory, whose first call waits until it is let go."""

    method: Any
    reached: threading.Event = field(default_factory=threading.Event)
    go: threading.Event = field(default_factory=threading.Event)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Wait, then do what was asked."""
        self.reached.set()
        self.go.wait(20)
        return self.method(*args, **kwargs)

    async def begun(self) -> None:
        """Wait until it was called."""
        assert await asyncio.to_thread(self.reached.wait, 30)


async def started(stack: Stack, handle: WorkflowHandle[Any, Any], action: str) -> int:
    """How often an action of the run was begun."""
    story = await stack.story_so_far(handle)
    return len([e for e in story if e.action == action and e.kind is EventKind.ACTION_STARTED])


async def ended_or_held(stack: Stack, project: str, handle: WorkflowHandle[Any, Any]) -> bool:
    """Whether it comes to rest."""
    assert not await stack.machine_is(project, "m", MachineState.HELD), "held, although it was aborted"
    return (await handle.describe()).close_time is not None


async def knows_of_its_cancel(handle: WorkflowHandle[Any, Any]) -> bool:
    """Whether the run has taken note of its cancel."""
    kinds = [event.event_type for event in (await handle.fetch_history()).events]
    requested = EventType.EVENT_TYPE_WORKFLOW_EXECUTION_CANCEL_REQUESTED
    after = kinds[kinds.index(requested) :] if requested in kinds else []
    return EventType.EVENT_TYPE_WORKFLOW_TASK_COMPLETED in after
