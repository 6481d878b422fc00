"""Plans: the domain's values to the protocol's messages."""

from __future__ import annotations

from pydantic import TypeAdapter

from mulligan.activities.inventory import Explanation
from mulligan.activities.planning import Plan
from mulligan.activities.values import MachineRequest
from mulligan.api.convert import spec_message, timestamp
from mulligan.api.convert_inventory import explanation_message
from mulligan.api.convert_runs import estimate_message
from mulligan.api.undo import Undo, undo_of_step
from mulligan.v1 import provisioning_pb2 as pb

STEPS = {
    "claim": "claim {sizes} in partition {partition}",
    "image": "bring image {image} to the provider, make the machine's disk and its seed",
    "boot": "make the machine and switch it on",
    "verify": "prove that it is up, to level {level}",
}
"""What each step would do, for people, in order."""

LIVE_STEPS = {
    "image": "bring image {image} to where it is booted from; no disk is touched",
    "boot": "boot image {image} without a disk",
}
"""What those of a live image do instead."""

_EXPLANATION = TypeAdapter(Explanation)


def plan_message(value: Plan) -> pb.Plan:
    """What a run would do."""
    return pb.Plan(
        hash=value.hash,
        spec=spec_message(value.request),
        provider=value.provider,
        why=value.why,
        explanation=explanation_message(_EXPLANATION.validate_python(value.explanation)),
        image_digest=value.image_digest,
        download_bytes=value.download_bytes,
        place_bytes=value.place_bytes,
        cached_bytes=value.cached_bytes,
        steps=[_step(step, value) for step in STEPS],
        destroys=value.destroys,
        lacks=value.lacks,
        made_at=timestamp(value.made_at),
    )


def _step(step: str, plan: Plan) -> pb.PlanStep:
    request = plan.request
    message = pb.PlanStep(
        step=step,
        description=_said(step, request, live=plan.live),
        deadline_seconds=getattr(request.deadlines, f"{step}_seconds"),
        undo=[undo.message() for undo in _undo(step, plan)],
    )
    for estimate in plan.estimates:
        if estimate.step == step:
            message.estimate.CopyFrom(estimate_message(estimate))
    return message


def _undo(step: str, plan: Plan) -> list[Undo]:
    """What undoes it. A server that boots a live image has nothing on it that could be removed or erased."""
    if plan.live and plan.by_agent and step == "image":
        return []
    return undo_of_step(step, by_agent=plan.by_agent)


def _said(step: str, request: MachineRequest, *, live: bool) -> str:
    sizes = request.resources
    told = {**STEPS, **LIVE_STEPS} if live else STEPS
    return told[step].format(
        sizes=f"{sizes.vcpu} vcpu, {sizes.memory_mib} MiB memory, {sizes.disk_gib} GiB disk",
        partition=request.partition,
        image=request.image,
        level=request.verify,
    )
