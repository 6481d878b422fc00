"""A guest's call home on its way to a run that does not decide."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta

import pytest

from mulligan.activities import call_home
from mulligan.activities.bootserver.tokens import Permit
from mulligan.activities.call_home import RunListener
from mulligan.activities.errors import Unreachable
from mulligan.activities.values import CallHome
from mulligan.workflows import runs
from tests.workflows.stack import IMAGE, Stack


async def test_a_guest_is_asked_to_call_again_when_no_worker_decides(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within the time that a guest waits for its answer."""
    monkeypatch.setattr(call_home, "ANSWER_WITHIN", timedelta(seconds=1))
    machine_id, now = str(uuid.uuid4()), datetime.now(UTC)
    asked = runs.ProvisionIn(machine_id, stack.request("nobody"), IMAGE, "f")
    where = {"id": runs.provision_id("nobody", "m"), "task_queue": "nobody-works-here"}
    handle = await stack.client.start_workflow(runs.PROVISION, asked, **where)
    permit = Permit(handle.id, handle.first_execution_run_id or "", machine_id, "1", now + timedelta(minutes=5))
    call = CallHome(at=now, hostname="m", status="done", peer="192.0.2.7")
    with pytest.raises(Unreachable, match="does not answer now"):
        await RunListener(stack.client).on_call_home(permit, call)
    await handle.terminate("nobody will")
    assert not await RunListener(stack.client).on_call_home(permit, call)
