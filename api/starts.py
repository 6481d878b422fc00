"""Starting runs, once: the same request joins what is there, another one for the same name is told what differs."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, replace
from datetime import timedelta

from temporalio.client import Client, WorkflowExecutionDescription, WorkflowExecutionStatus
from temporalio.common import WorkflowIDConflictPolicy, WorkflowIDReusePolicy
from temporalio.exceptions import WorkflowAlreadyStartedError

from mulligan.activities.calls import CONTROL_QUEUE
from mulligan.activities.errors import AlreadyExists, Busy, Conflict, NotFound
from mulligan.activities.inventory import Inventory
from mulligan.activities.inventory.machine import Machine
from mulligan.activities.inventory.tables import BEING_MADE, FINAL
from mulligan.activities.story import MEMO_RETRIED
from mulligan.activities.threads import run_blocking
from mulligan.activities.values import Image, MachineRequest, MachineState, OnFailure
from mulligan.api.fairness import turn_of
from mulligan.api.requests import differing, fingerprint
from mulligan.api.runs import Runs
from mulligan.workflows import runs, search
from mulligan.workflows.runs import ProvisionIn, provision_id

ATTEMPTS = 5
"""How often a decision is made anew because a run began or ended meanwhile."""


@dataclass(frozen=True, slots=True)
class Started:
    """The run that does what was asked for."""

    workflow_id: str
    run_id: str
    joined: bool = False
    machine: Machine | None = None
    """Set when there is nothing to wait for: the machine is as asked."""


class Provisions:
    """Starts, or joins, the runs that make machines."""

    def __init__(self, client: Client, inventory: Inventory, runs_: Runs, lease_seconds: int) -> None:
        self._client, self._inventory, self._runs = client, inventory, runs_
        self._lease_seconds = lease_seconds

    async def start(
        self, request: MachineRequest, image: Image, *, retried: str = "", first_provider: str = ""
    ) -> Started:
        """The run that makes this machine, or the machine if it is there; `retried` says who asked again, and why,
        `first_provider` where a run that is started now makes its first try.

        Raises `AlreadyExists` with the fields that differ when the name is another request's, `Conflict` when the
        machine of that name is being taken down or is quarantined, or the image is, `Busy` when the run that made the
        last one of that name is still ending.
        """
        reuse = WorkflowIDReusePolicy.ALLOW_DUPLICATE_FAILED_ONLY
        wanted = fingerprint(request, image)
        for _ in range(ATTEMPTS):
            machine = await self._live(request)
            if machine is not None and (ready := _existing(machine, request, wanted)) is not None:
                return ready
            if machine is not None and not await self._has_run(machine):
                if await self._is_still(machine):
                    raise _abandoned(machine)
                continue
            await self.refuse_quarantined(request, image)
            try:
                return await self._begin(request, image, wanted, reuse, retried, first_provider=first_provider)
            except WorkflowAlreadyStartedError as error:
                found = await self._runs.describe(error.workflow_id, error.run_id or "")
            if found is not None and found.status is WorkflowExecutionStatus.RUNNING:
                return await self._join(found, request, wanted)
            reuse = WorkflowIDReusePolicy.ALLOW_DUPLICATE
        message = f"runs for {request.name!r} begin and end faster than they can be joined; ask again"
        raise Busy(message, after_seconds=1)

    async def there(self, request: MachineRequest, image: Image) -> Started | None:
        """The machine if it is there, or the run that makes it; None when one is to be started. Raises as `start`."""
        wanted = fingerprint(request, image)
        machine = await self._live(request)
        if machine is not None and (ready := _existing(machine, request, wanted)) is not None:
            return ready
        found = await self._runs.describe(provision_id(request.project, request.name))
        if found is not None and found.status is WorkflowExecutionStatus.RUNNING:
            return await self._join(found, request, wanted)
        return None

    async def refuse_quarantined(self, request: MachineRequest, image: Image) -> None:
        """Raise `Conflict` for an image that is to blame for too much, unless there is an open run to join."""
        reason = await run_blocking(self._inventory.image_quarantine, image.digest)
        if not reason:
            return
        found = await self._runs.describe(provision_id(request.project, request.name))
        if found is None or found.status is not WorkflowExecutionStatus.RUNNING:
            clear = f"mulligan suspect clear image {image.name}"
            message = f"image {image.name!r} is quarantined: {reason}"
            raise Conflict(message, image=image.name, digest=image.digest, remedy=clear)

    async def _live(self, request: MachineRequest) -> Machine | None:
        try:
            machine = await run_blocking(self._inventory.machine, request.project, request.name)
        except NotFound:
            return None
        return None if machine.state in FINAL else machine

    async def _has_run(self, machine: Machine) -> bool:
        """Whether the run that makes, or holds, this machine is open. Raises `Conflict` when one takes it down."""
        if machine.state is MachineState.RELEASING:
            if (run := await self._runs.taking_down(machine)) is not None:
                raise _being_taken_down(machine, run.id)
            return False
        return await self._runs.making(machine.project, machine.name, machine.id) is not None

    async def _is_still(self, machine: Machine) -> bool:
        """Whether nothing has changed since the machine was read: then its run was ended from outside."""
        return (await run_blocking(self._inventory.machine_by_id, machine.id)).state is machine.state

    async def _join(self, found: WorkflowExecutionDescription, request: MachineRequest, wanted: str) -> Started:
        """The open run, if it makes what is asked for. Raises `AlreadyExists`, and `Busy` when its machine is gone."""
        made = await self._runs.machine(await found.memo_value(runs.MEMO_MACHINE_ID, "", type_hint=str))
        if made is not None and made.state in FINAL:  # it keeps its story, and would answer for what was there
            raise _is_ending(made, found.id)
        if await found.memo_value(runs.MEMO_FINGERPRINT, "", type_hint=str) == wanted:
            return Started(found.id, found.run_id, joined=True)
        other = await found.memo_value(runs.MEMO_REQUEST, request, type_hint=MachineRequest)
        raise _exists(
            request,
            other,
            f"is being made by {found.id}",
            f"mulligan run watch {found.id}",
            f"cancel it first (`mulligan run cancel {found.id}`)",
        )

    async def _begin(
        self,
        request: MachineRequest,
        image: Image,
        wanted: str,
        reuse: WorkflowIDReusePolicy,
        retried: str,
        *,
        first_provider: str,
    ) -> Started:
        machine_id, workflow_id = str(uuid.uuid4()), provision_id(request.project, request.name)
        memo = {
            runs.MEMO_REQUEST: replace(request, user_data=""),
            runs.MEMO_FINGERPRINT: wanted,
            runs.MEMO_MACHINE_ID: machine_id,
            **({MEMO_RETRIED: retried} if retried else {}),
        }
        handle = await self._client.start_workflow(
            runs.PROVISION,
            ProvisionIn(machine_id, request, image, wanted, self._lease_seconds, first_provider),
            id=workflow_id,
            task_queue=CONTROL_QUEUE,
            id_conflict_policy=WorkflowIDConflictPolicy.FAIL,
            id_reuse_policy=reuse,
            memo=memo,
            static_summary=f"Make {request.name} of project {request.project} from {image.name}",
            static_details=f"Its story: `mulligan run show {workflow_id}`\n\n"
            "What it awaits, and which levers can be pulled: under Current Details",
            execution_timeout=_backstop(request),
            search_attributes=search.started(
                project=request.project,
                machine=request.name,
                partition=request.partition,
                step="claim",
                image=image.name,
            ),
            priority=turn_of(request.project, request.priority),
        )
        return Started(handle.id, handle.first_execution_run_id or "")


def _backstop(request: MachineRequest) -> timedelta | None:
    """Far beyond every deadline inside the run, for it ends a run without undo, and an operator may hold any run for
    days; none for one that is to be held when it fails."""
    if request.on_failure is OnFailure.HOLD:
        return None
    return timedelta(seconds=3 * request.deadlines.run_seconds, days=30)


def _existing(machine: Machine, request: MachineRequest, wanted: str) -> Started | None:
    """The machine that is there, if it is as asked; None when a run is, or may be, making it or taking it down."""
    if machine.state in (*BEING_MADE, MachineState.RELEASING):
        return None
    if machine.state is MachineState.QUARANTINED:
        release = f"mulligan machine release {machine.name} --project {machine.project}"
        raise Conflict(
            f"machine {machine.name!r} is quarantined: {machine.reason}; take it down with `{release}`, then ask again",
            machine=machine.name,
            state=machine.state,
            mend=release,
            remedy=release,
        )
    if fingerprint(machine.request, machine.image) != wanted:
        show = f"mulligan machine show {machine.name} --project {machine.project}"
        raise _exists(request, machine.request, f"is there and {machine.state}", show, "release it first")
    run = provision_id(machine.project, machine.name)
    return Started(run, machine.run_id, joined=True, machine=machine)


def _being_taken_down(machine: Machine, run: str) -> Conflict:
    return Conflict(
        f"machine {machine.name!r} is being taken down by {run}; ask again after it (`mulligan run watch {run}`)",
        machine=machine.name,
        state=machine.state,
        workflow_id=run,
        remedy=f"mulligan run watch {run}",
    )


def _abandoned(machine: Machine) -> Conflict:
    release = f"mulligan machine release {machine.name} --project {machine.project}"
    return Conflict(
        f"machine {machine.name!r} is left {machine.state} by a run that was ended from outside; it is taken down "
        f"by itself when a lease has passed, or now by `{release}`; then ask again",
        machine=machine.name,
        state=machine.state,
        remedy=release,
    )


def _is_ending(machine: Machine, run: str) -> Busy:
    """The answer where the run that made a machine is still closing, and its machine was released, or has failed."""
    return Busy(
        f"machine {machine.name!r} is {machine.state}, and {run}, which made it, is just ending; ask again in a moment",
        after_seconds=1,
        machine=machine.name,
        state=machine.state,
        workflow_id=run,
    )


def _exists(request: MachineRequest, other: MachineRequest, state: str, remedy: str, away: str) -> AlreadyExists:
    """`remedy` looks at what has the name, `away` says how it is freed."""
    fields = differing(request, other)
    return AlreadyExists(
        f"machine {request.name!r} of project {request.project!r} {state}, from a request that differs in "
        f"{', '.join(fields)}; {away}, choose another name, or ask for the same",
        differing=fields,
        project=request.project,
        machine=request.name,
        workflow_id=provision_id(request.project, request.name),
        remedy=remedy,
    )
