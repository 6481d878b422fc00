"""Making a machine afresh whose run ended badly: the same request and image, in a new run of the same id."""

from __future__ import annotations

from temporalio.api.enums.v1 import EventType
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

from mulligan.activities.errors import Conflict, NotFound
from mulligan.activities.inventory import Inventory
from mulligan.activities.levers import UNKNOWN
from mulligan.activities.threads import run_blocking
from mulligan.activities.values import Image, MachineRequest, MachineState, Outcome
from mulligan.api.convert_runs import RunView
from mulligan.api.enums import RunKind
from mulligan.api.runs import Found, Runs
from mulligan.api.starts import Provisions
from mulligan.workflows.runs import ProvisionIn

AGAIN = frozenset({Outcome.FAILED, Outcome.CANCELLED, Outcome.TERMINATED, Outcome.QUARANTINED})
"""How a run ended that may be made afresh; a quarantined one when what it left has been taken down since."""


class Retries:
    """Starts runs anew."""

    def __init__(self, client: Client, inventory: Inventory, runs: Runs, provisions: Provisions) -> None:
        self._client, self._inventory, self._runs, self._provisions = client, inventory, runs, provisions

    async def retry(self, workflow_id: str, actor: str, reason: str) -> RunView:
        """The new run. Raises `NotFound`, and `Conflict` for one that is open, is ready, or must be mended first."""
        found = await self._runs.find(workflow_id)
        _require_ended_badly(found.view)
        await self._require_mended(found.view)
        request, image = await self._asked(found)
        retried = f"retried by {actor or UNKNOWN}{f': {reason}' if reason else ''}"
        started = await self._provisions.start(request, image, retried=retried)
        return (await self._runs.find(started.workflow_id, started.run_id)).view

    async def _require_mended(self, view: RunView) -> None:
        machine = await self._runs.machine(view.machine_id) if view.machine_id else None
        if machine is not None and machine.state is MachineState.QUARANTINED:
            mend = f"mulligan machine release {view.machine} --project {view.project}"
            raise Conflict(
                f"{view.workflow_id} left something that could not be undone: {machine.reason or view.reason}; take it "
                f"down first with `{mend}`, then retry",
                workflow_id=view.workflow_id,
                outcome=view.outcome,
                remedy=mend,
            )

    async def _asked(self, found: Found) -> tuple[MachineRequest, Image]:
        """What was asked for: as the run's own history has it, else as the machine is recorded."""
        if found.description is not None and (asked := await self._input(found.view)) is not None:
            return asked.request, asked.image
        try:
            machine = await run_blocking(self._inventory.machine_by_id, found.view.machine_id)
        except NotFound as error:
            raise NotFound(
                f"what {found.view.workflow_id} was asked for is no longer kept; ask for it anew: `mulligan machine "
                f"provision {found.view.machine} --project {found.view.project}`",
                what="run",
                name=found.view.workflow_id,
            ) from error
        return machine.request, machine.image

    async def _input(self, view: RunView) -> ProvisionIn | None:
        events = self._runs.handle(view.workflow_id, view.run_id).fetch_history_events(page_size=1)
        try:
            event = await anext(events)
        except RPCError as error:
            if error.status is RPCStatusCode.NOT_FOUND:  # it was forgotten meanwhile
                return None
            raise
        assert event.event_type == EventType.EVENT_TYPE_WORKFLOW_EXECUTION_STARTED
        payloads = event.workflow_execution_started_event_attributes.input.payloads
        asked: ProvisionIn
        (asked,) = await self._client.data_converter.decode(payloads, [ProvisionIn])
        return asked


def _require_ended_badly(view: RunView) -> None:
    """Raise `Conflict` unless a new run would make what this one did not."""
    if view.kind is not RunKind.PROVISION:
        raise _not_again(view, *_other(view))
    if view.outcome is Outcome.OPEN:
        raise _not_again(view, "has not ended", f"mulligan run watch {view.workflow_id}")
    if view.outcome not in AGAIN:
        machine = f"mulligan machine show {view.machine} --project {view.project}"
        raise _not_again(view, f"ended {view.outcome}: its machine was made", machine)


def _other(view: RunView) -> tuple[str, str]:
    if view.kind is RunKind.ENROL:
        return "registers a provider; register it again instead", "mulligan provider list"
    release = f"mulligan machine release {view.machine} --project {view.project}"
    return "takes a machine down; release the machine again instead", release if view.machine else "mulligan claim list"


def _not_again(view: RunView, why: str, remedy: str) -> Conflict:
    return Conflict(
        f"{view.workflow_id} cannot be retried: it {why}; next: `{remedy}`",
        workflow_id=view.workflow_id,
        run_id=view.run_id,
        outcome=view.outcome,
        remedy=remedy,
    )
