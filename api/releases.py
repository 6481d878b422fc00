"""Taking machines down: starting, or joining, the run that does it."""

from __future__ import annotations

from dataclasses import replace

from temporalio.client import Client
from temporalio.common import WorkflowIDConflictPolicy
from temporalio.exceptions import WorkflowAlreadyStartedError

from mulligan.activities.calls import BY_AGENT, CONTROL_QUEUE
from mulligan.activities.errors import Conflict, NotFound
from mulligan.activities.inventory import By, ClaimRow, Inventory
from mulligan.activities.inventory.machine import Machine
from mulligan.activities.inventory.tables import BEING_MADE, FINAL
from mulligan.activities.threads import run_blocking
from mulligan.activities.values import Erase, Kind, MachineState, Provider
from mulligan.api.cancels import Cancels
from mulligan.api.fairness import turn_of
from mulligan.api.runs import Runs
from mulligan.api.starts import Started
from mulligan.workflows import runs, search
from mulligan.workflows.runs import ReleaseIn, provision_id, release_id


def _too_early(machine: Machine) -> Conflict:
    release = f"mulligan machine release {machine.name} --project {machine.project}"
    abort = f"mulligan run abort {release_id(machine.project, machine.name)}"
    is_releasing = machine.state is MachineState.RELEASING
    remedy = abort if is_releasing else release
    first = "" if is_releasing else f"take it down first: `{release}`. "
    return Conflict(
        f"machine {machine.name!r} is {machine.state}, and only one that is quarantined can be forgotten; {first}Where "
        f"its provider does not answer, `{abort}` gives the release up, and quarantines it",
        machine=machine.name,
        state=machine.state,
        remedy=remedy,
    )


def usual_erase(machine: Machine) -> Erase:
    """What is done to a server's disks where nobody said: a live image touched none."""
    return Erase.NONE if machine.image.live else Erase.METADATA


def needs_erasing(machine: Machine, provider: Provider) -> bool:
    """Whether the provider holds what the machine wrote, and nobody erases it here."""
    given_whole = provider.kind is Kind.BARE_METAL and BY_AGENT not in provider.capabilities
    return given_whole and not machine.image.live


class Releases:
    """Starts, or joins, the runs that take machines down."""

    def __init__(self, client: Client, inventory: Inventory, runs_: Runs, cancels: Cancels) -> None:
        self._client, self._inventory = client, inventory
        self._runs, self._cancels = runs_, cancels

    async def start(
        self, project: str, name: str, by: By, *, forget: bool = False, erase: Erase | None = None
    ) -> Started:
        """The run that takes the machine down, or the machine if it is gone already.

        A machine that is held is taken down by cancelling the run that holds it. One that an ended run left behind
        with nothing claimed is gone with this call, which is kept as a change by hand, as is who joins a release. The
        run keeps `by` in its history. `forget` asks nothing of the provider of one that is quarantined. `erase` is what
        is done to a server's disks; None for what fits: nothing where a live image ran, else METADATA. Raises
        `NotFound`, and `Conflict` while a run makes the machine, or for one that is to be forgotten too early.
        """
        machine = await run_blocking(self._inventory.machine, project, name)
        if machine.state in FINAL:
            return await self._gone(machine)
        if forget and machine.state is not MachineState.QUARANTINED:
            raise _too_early(machine)
        if machine.state in BEING_MADE and (making := await self._runs.making(project, name, machine.id)) is not None:
            cancelled = making.raw_description.workflow_extended_info.cancel_requested
            return await self._end_hold(machine, by, is_cancelled=cancelled)
        if (run := await self._runs.taking_down(machine)) is not None:
            await run_blocking(self._inventory.also_released, machine, by)
            return Started(run.id, run.run_id, joined=True)
        claim = await run_blocking(self._inventory.live_claim_of, machine.id)
        if claim is None and machine.state in BEING_MADE:
            machine = await run_blocking(self._inventory.abandon_machine, machine.id, by)
            if machine.state in FINAL:
                return await self._gone(machine)
            return await self.start(project, name, by, erase=erase)
        if claim is None:
            claim = await run_blocking(self._inventory.claim_by_id, machine.claim_id)
        erase = erase or usual_erase(machine)
        asked = replace(await self._asked(machine, claim), forget=forget, erase=erase)
        return await self._begin(machine, replace(asked, actor=by.actor, reason=by.reason), by)

    async def _begin(self, machine: Machine, asked: ReleaseIn, by: By) -> Started:
        try:
            handle = await self._client.start_workflow(
                runs.RELEASE,
                asked,
                id=release_id(machine.project, machine.name),
                task_queue=CONTROL_QUEUE,
                id_conflict_policy=WorkflowIDConflictPolicy.FAIL,
                memo={runs.MEMO_MACHINE_ID: machine.id},
                static_summary=f"Take {machine.name} of project {machine.project} down",
                search_attributes=search.started(
                    project=machine.project,
                    machine=machine.name,
                    partition=machine.partition,
                    provider=asked.target.name,
                    step="undo",
                    image=machine.image.name,
                ),
                priority=turn_of(machine.project),
            )
        except WorkflowAlreadyStartedError as error:
            await run_blocking(self._inventory.also_released, machine, by)
            return Started(error.workflow_id, error.run_id or "", joined=True)
        return Started(handle.id, handle.first_execution_run_id or "")

    async def _gone(self, machine: Machine) -> Started:
        for workflow_id in (release_id(machine.project, machine.name), provision_id(machine.project, machine.name)):
            try:
                found = await self._runs.find(workflow_id)
            except NotFound:
                continue
            if found.view.machine_id == machine.id:
                return Started(workflow_id, found.view.run_id, joined=True, machine=machine)
        made_by = provision_id(machine.project, machine.name)
        return Started(made_by, machine.run_id, joined=True, machine=machine)

    async def _end_hold(self, machine: Machine, by: By, *, is_cancelled: bool) -> Started:
        run = provision_id(machine.project, machine.name)
        if machine.state is MachineState.PROVISIONING and is_cancelled:
            raise Conflict(
                f"machine {machine.name!r} is going already: the run that makes it is being cancelled, and undoes what "
                f"it made; watch it: `mulligan run watch {run}`",
                machine=machine.name,
                state=machine.state,
                workflow_id=run,
                remedy=f"mulligan run watch {run}",
            )
        if machine.state is MachineState.PROVISIONING:
            raise Conflict(
                f"machine {machine.name!r} is being made; cancel the run first: `mulligan run cancel {run}`",
                machine=machine.name,
                state=machine.state,
                workflow_id=run,
                remedy=f"mulligan run cancel {run}",
            )
        why = f"the held machine is to be released{f', {by.reason}' if by.reason else ''}"
        cancelled = await self._cancels.cancel(run, "", by.actor, why)
        return Started(run, cancelled.run.run_id, joined=True)

    async def _asked(self, machine: Machine, claim: ClaimRow) -> ReleaseIn:
        provider = await run_blocking(self._inventory.provider, claim.provider or machine.provider)
        return ReleaseIn(
            machine_id=machine.id,
            project=machine.project,
            machine=machine.name,
            claim_id=claim.id,
            target=provider.target,
            run_id=machine.run_id,
            fence=claim.fence,
            dirty=needs_erasing(machine, provider),
            by_agent=BY_AGENT in provider.capabilities,
        )
