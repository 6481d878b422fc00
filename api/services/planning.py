"""The part of the Provisioning service that plans, and holds requests to their plans. Handlers convert and call."""

from __future__ import annotations

from dataclasses import replace

from mulligan.activities.errors import MulliganError
from mulligan.activities.values import Image, MachineRequest
from mulligan.api.convert_plans import plan_message
from mulligan.api.interceptor import Context
from mulligan.api.plans import Plans
from mulligan.api.requests import Requests
from mulligan.api.starts import Provisions, Started
from mulligan.v1 import provisioning_pb2 as pb


class Planning:
    """What a run would do, and starting it if it would still do so. For the servicer, which sets these."""

    _requests: Requests
    _provisions: Provisions
    _plans: Plans

    async def PlanMachine(self, request: pb.PlanMachineRequest, context: Context) -> pb.PlanMachineResponse:  # noqa: N802
        """What ProvisionMachine would do with this request, which it may refuse; claims nothing."""
        wanted, image = await self._requests.machine(request)
        there = await self._provisions.there(wanted, image)
        if there is None:
            await self._provisions.refuse_quarantined(wanted, image)
        made = await self._plans.make(wanted, image)
        if there is not None:
            state = f"is there already, {there.machine.state}, made" if there.machine is not None else "is being made"
            anew = made.why or "no provider fits now"
            told = f"machine {wanted.name} {state} by {there.workflow_id}, and would be given as it is; anew: {anew}"
            made = replace(made, why=told)
        plan = plan_message(made)
        plan.there = there.workflow_id if there is not None else ""
        return pb.PlanMachineResponse(plan=plan)

    async def _start(self, wanted: MachineRequest, image: Image, plan_hash: str) -> Started:
        """The run that makes a machine: by the plan, if one is named and there is no such run or machine yet."""
        if not plan_hash:
            return await self._provisions.start(wanted, image)
        if (there := await self._provisions.there(wanted, image)) is not None:
            return there
        try:
            provider = await self._plans.provider_of(plan_hash, wanted, image)
        except MulliganError:  # perhaps because a run of the same request began meanwhile, and took the room itself
            if (there := await self._provisions.there(wanted, image)) is not None:
                return there
            raise
        return await self._provisions.start(wanted, image, first_provider=provider)
