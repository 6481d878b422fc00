"""Pulling levers in tests, the way the API and Temporal's Web UI do: by an update of the run."""

from __future__ import annotations

from typing import Any

import pytest
from temporalio.client import WorkflowHandle, WorkflowUpdateFailedError
from temporalio.exceptions import ApplicationError

from mulligan.activities.levers import LeverIn, LeverKind, Pulled


async def pull(handle: WorkflowHandle[Any, Any], kind: LeverKind, reason: str = "a test", **values: Any) -> str:
    """Pull a lever; what it says."""
    asked = LeverIn(actor="alice", reason=reason, **values)
    pulled: Pulled = await handle.execute_update(kind.value, asked, result_type=Pulled)
    return pulled.said


async def refused(handle: WorkflowHandle[Any, Any], kind: LeverKind, **values: Any) -> str:
    """Pull a lever that cannot do what is asked; why not."""
    with pytest.raises(WorkflowUpdateFailedError) as failed:
        await pull(handle, kind, **values)
    assert isinstance(failed.value.cause, ApplicationError)
    assert failed.value.cause.type in ("CONFLICT", "INVALID_REQUEST")
    return failed.value.cause.message
