"""From a guest's call home to the run that waits for it. Single use is decided in the run, where it is durable."""

from __future__ import annotations

from datetime import timedelta

from temporalio.client import Client, RPCTimeoutOrCancelledError, WorkflowUpdateFailedError
from temporalio.service import RPCError, RPCStatusCode

from mulligan.activities import calls
from mulligan.activities.bootserver.tokens import Permit
from mulligan.activities.errors import Busy, Conflict, Unreachable
from mulligan.activities.levers import UPDATE_LIMIT
from mulligan.activities.values import CallHome

ANSWER_WITHIN = timedelta(seconds=10)


class RunListener:
    """The boot server's listener: asks the run that issued the token."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def on_call_home(self, permit: Permit, call: CallHome) -> bool:
        """Tell the run. False when it does not take the call: used before, another boot's, or the run is over.

        Raises `Unreachable` when no worker decides in time, `Busy` when the run is asked too much at once: the guest
        asks again. Raises `Conflict` when Temporal lets the run be told no more: levers count as calls do.
        """
        told = calls.CallHomeIn(permit.machine_id, int(permit.nonce), call)
        # A reset ends the execution that issued the token and goes on in another one of the same workflow id.
        for run_id in (permit.run_id, None):
            handle = self._client.get_workflow_handle(permit.workflow_id, run_id=run_id)
            try:
                await handle.execute_update(calls.CALL_HOME, told, rpc_timeout=ANSWER_WITHIN)
            except WorkflowUpdateFailedError:
                return False
            except RPCTimeoutOrCancelledError as error:
                raise Unreachable(f"the run {permit.workflow_id} does not answer now; call again") from error
            except RPCError as error:
                if error.status is RPCStatusCode.RESOURCE_EXHAUSTED:
                    message = f"the run {permit.workflow_id} is asked too much at once ({error.message}); call again"
                    raise Busy(message, after_seconds=1) from error
                if error.status is RPCStatusCode.FAILED_PRECONDITION and UPDATE_LIMIT in error.message:
                    limit = error.message.partition(". ")[0]  # what follows is for programmers
                    message = f"the run {permit.workflow_id} can be told nothing any more: {limit}"
                    raise Conflict(message, workflow_id=permit.workflow_id) from error
                if error.status is not RPCStatusCode.NOT_FOUND:
                    message = f"the run {permit.workflow_id} does not answer now: {error.message}"
                    raise Unreachable(message) from error
            else:
                return True
        return False
