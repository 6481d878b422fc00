"""The Provisioning service: runs and machines. Handlers convert and call."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from mulligan.activities.inventory import By, Inventory
from mulligan.activities.inventory.tables import FINAL
from mulligan.activities.levers import UNKNOWN
from mulligan.activities.threads import run_blocking
from mulligan.activities.values import MachineState, Outcome
from mulligan.api import enums
from mulligan.api.cancels import Cancels
from mulligan.api.capsules import Capsules
from mulligan.api.convert import DEFAULT, machine_message
from mulligan.api.convert_runs import event_message, progress_message, run_message, update_message
from mulligan.api.estimates import Estimates
from mulligan.api.interceptor import Context
from mulligan.api.levers import Levers
from mulligan.api.mended import event_since
from mulligan.api.pages import machine_pages
from mulligan.api.plans import Plans
from mulligan.api.progress import progress_of
from mulligan.api.releases import Releases
from mulligan.api.requests import Requests
from mulligan.api.retries import Retries
from mulligan.api.run_views import as_told
from mulligan.api.runs import Runs
from mulligan.api.services.capsules import CapsuleMethods
from mulligan.api.services.checks import check_run
from mulligan.api.services.planning import Planning
from mulligan.api.services.steering import Steering
from mulligan.api.shared import SharedMessages
from mulligan.api.starts import Provisions, Started
from mulligan.api.undo import undo_list
from mulligan.api.validate import Faults, names_only, words
from mulligan.api.watch import Hub
from mulligan.v1 import provisioning_pb2 as pb
from mulligan.v1 import provisioning_pb2_grpc, run_pb2

LIVE = tuple(state for state in MachineState if state not in FINAL)


class Provisioning(Steering, Planning, CapsuleMethods, provisioning_pb2_grpc.ProvisioningServiceServicer):
    """Makes and takes down machines."""

    def __init__(
        self,
        inventory: Inventory,
        requests: Requests,
        *,
        provisions: Provisions,
        releases: Releases,
        runs: Runs,
        hub: Hub,
        cancels: Cancels,
        levers: Levers,
        retries: Retries,
        capsules: Capsules,
        plans: Plans,
    ) -> None:
        self._inventory, self._requests = inventory, requests
        self._provisions, self._releases = provisions, releases
        self._runs, self._hub = runs, hub
        self._cancels, self._levers, self._retries = cancels, levers, retries
        self._told = SharedMessages()
        self._capsules, self._plans = capsules, plans

    async def ProvisionMachine(  # noqa: N802 - the protocol's name
        self, request: pb.ProvisionMachineRequest, context: Context
    ) -> AsyncGenerator[pb.ProvisionMachineResponse, None]:
        """Start a run, or join one, and stream it."""
        wanted, image = await self._requests.machine(request)
        started = await self._start(wanted, image, request.plan_hash)
        async with aclosing(self._updates(started, request.detach)) as updates:
            async for update, joined in updates:
                yield pb.ProvisionMachineResponse(update=update, joined=joined)

    async def ReleaseMachine(  # noqa: N802 - the protocol's name
        self, request: pb.ReleaseMachineRequest, context: Context
    ) -> AsyncGenerator[pb.ReleaseMachineResponse, None]:
        """Start a run that takes a machine down, or join one, and stream it."""
        faults = Faults(request)
        faults.name("project", request.project, required=False)
        faults.name("name", request.name)
        words(faults, request.actor, request.reason)
        faults.refuse()
        erase = enums.ERASE.word(request.erase) if request.erase else None
        by = By(request.actor or UNKNOWN, request.reason)
        started = await self._releases.start(
            request.project or DEFAULT, request.name, by, forget=request.forget, erase=erase
        )
        async with aclosing(self._updates(started, request.detach)) as updates:
            async for update, joined in updates:
                yield pb.ReleaseMachineResponse(update=update, joined=joined)

    async def _updates(self, started: Started, detach: bool) -> AsyncGenerator[tuple[run_pb2.RunUpdate, bool], None]:
        """(update, whether the run was there): of what was started or joined, the run first."""
        joined = started.joined
        if started.machine is not None:
            run = await self._runs.of_machine(started.workflow_id, started.run_id, started.machine)
            if run.outcome is not Outcome.OPEN:
                yield run_pb2.RunUpdate(run=run_message(run)), joined
                if not detach:
                    yield run_pb2.RunUpdate(machine=machine_message(started.machine)), False
                return
        async with aclosing(self._hub.watch(started.workflow_id, started.run_id)) as updates:
            async for run_id, update in updates:
                yield update_message(update, run_id, started.workflow_id), joined
                joined = False
                if detach:
                    return

    async def WatchRun(  # noqa: N802 - the protocol's name
        self, request: pb.WatchRunRequest, context: Context
    ) -> AsyncGenerator[pb.WatchRunResponse, None]:
        """Stream a run from a cursor."""
        check_run(request)
        async with aclosing(self._hub.watch(request.workflow_id, request.run_id, request.cursor)) as updates:
            async for run_id, update in updates:
                yield self._told.message(update, run_id, request.workflow_id)

    async def GetRun(self, request: pb.GetRunRequest, context: Context) -> pb.GetRunResponse:  # noqa: N802
        """A run and its story so far."""
        check_run(request)
        found = await self._runs.find(request.workflow_id, request.run_id)
        told, due = await self._runs.story_and_due(found)
        view = as_told(found.view, told)
        since = view.mended
        events = [event_message(event_since(event, since), view.run_id, view.workflow_id) for event in told]
        now = progress_of(found.description) if found.description is not None else ()
        doing = await Estimates(self._runs, view.workflow_id, view.machine_id).add(now, told, due)
        return pb.GetRunResponse(
            run=run_message(view),
            events=events,
            progress=[progress_message(one) for one in doing],
            undo=[each.message() for each in undo_list(told)] if found.is_open else [],
            others=[run_message(each) for each in await self._runs.others(view)],
        )

    async def ListRuns(  # noqa: N802 - the protocol's name
        self, request: pb.ListRunsRequest, context: Context
    ) -> AsyncGenerator[pb.ListRunsResponse, None]:
        """The runs, newest first."""
        faults = Faults(request)
        faults.name("project", request.project, required=False)
        faults.name("machine", request.machine, required=False)
        faults.between("limit", request.limit, 0, 10_000)
        faults.refuse()
        outcome = enums.OUTCOME.word(request.outcome) if request.outcome else None
        async for run in self._runs.listed(request.project, request.machine, outcome, request.limit or 100):
            yield pb.ListRunsResponse(run=run_message(run))

    async def GetMachine(self, request: pb.GetMachineRequest, context: Context) -> pb.GetMachineResponse:  # noqa: N802
        """The live machine of a name, else the newest."""
        names_only(request, "project", "name", optional=("project",))
        machine = await run_blocking(self._inventory.machine, request.project or DEFAULT, request.name)
        runs = [run_message(each) for each in await self._runs.about(machine)]
        return pb.GetMachineResponse(machine=machine_message(machine), runs=runs)

    async def ListMachines(  # noqa: N802 - the protocol's name
        self, request: pb.ListMachinesRequest, context: Context
    ) -> AsyncGenerator[pb.ListMachinesResponse, None]:
        """Machines, by project and name."""
        names_only(request, "project", "partition", optional=("project", "partition"))
        states = [enums.MACHINE_STATE.word(number) for number in request.states if number] or LIVE
        if 0 in request.states:
            states = list(MachineState)
        async for machine in machine_pages(self._inventory, request.project, request.partition, states):
            yield pb.ListMachinesResponse(machine=machine_message(machine))
