"""Plans: making one, and holding a request to one that was made before."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import timedelta

from temporalio.client import Client, WorkflowFailureError
from temporalio.exceptions import TimeoutError as TemporalTimeoutError

from mulligan.activities.calls import CONTROL_QUEUE
from mulligan.activities.errors import Conflict, InvalidRequest, NotFound, Unreachable
from mulligan.activities.inventory import Inventory
from mulligan.activities.planning import Plan, PlanIn
from mulligan.activities.threads import run_blocking
from mulligan.activities.values import Image, MachineRequest
from mulligan.api.errors import from_failure
from mulligan.api.fairness import AT_A_PROMPT
from mulligan.api.requests import differing, fingerprint
from mulligan.workflows import runs

ANSWER_SECONDS = 28
"""How long planning may take in all: a little less than what `mulligan` waits for an answer."""

_MIB = 2**20


@dataclass(frozen=True, slots=True)
class Change:
    """One thing in which the world differs from a plan: its name for programs, and a sentence."""

    name: str
    said: str


class Plans:
    """Makes plans, and holds requests to them."""

    def __init__(self, client: Client, inventory: Inventory) -> None:
        self._client, self._inventory = client, inventory

    async def make(self, request: MachineRequest, image: Image, *, only: str = "") -> Plan:
        """What a run would do now; `only` plans for this provider and no other.

        Raises `NotFound` for a provider or partition that is not there, `Unreachable` when no worker answers.
        """
        asked = PlanIn(replace(request, user_data=""), image, fingerprint(request, image), only)
        try:
            plan: Plan = await self._client.execute_workflow(
                runs.PLAN,
                asked,
                id=runs.plan_id(str(uuid.uuid4())),
                task_queue=CONTROL_QUEUE,
                result_type=Plan,
                execution_timeout=timedelta(seconds=ANSWER_SECONDS),
                static_summary=f"Plan {request.name} of project {request.project} from {image.name}",
                priority=AT_A_PROMPT,
            )
        except WorkflowFailureError as error:
            if _timed_out(error):
                raise Unreachable(
                    f"no plan could be made within {ANSWER_SECONDS} s: no control worker, or no database, answered; "
                    "see that one runs: `mulligan worker --control`",
                    task_queue=CONTROL_QUEUE,
                    remedy="mulligan doctor",
                ) from error
            raise from_failure(error) or error from error
        return plan

    async def provider_of(self, plan_hash: str, request: MachineRequest, image: Image) -> str:
        """The provider that this plan of this request chose, if the plan still holds.

        Raises `NotFound` when there is no such plan, `InvalidRequest` when it is of another request, and `Conflict`
        with every thing that has changed when the world moved on.
        """
        before = await run_blocking(self._inventory.plan, plan_hash)
        fields = [field for field in differing(request, before.request) if field != "image.digest"]
        if fields:
            raise _of_another_request(plan_hash, fields)
        try:
            changed = list(changes(before, await self.make(request, image, only=before.provider)))
        except NotFound as error:
            if error.metadata.get("what") != "provider":
                raise
            changed = [Change("provider", f"provider {before.provider} is no more")]
        if changed:
            raise Conflict(
                f"{plan_hash} does not hold any more: {'; '.join(change.said for change in changed)}; plan again",
                plan=plan_hash,
                changed=",".join(dict.fromkeys(change.name for change in changed)),
            )
        return before.provider


def changes(before: Plan, after: Plan) -> Iterator[Change]:
    """In what a plan that is made anew, of the same provider, differs from the one that was made before."""
    provider, image = before.provider, before.request.image
    if after.image_digest != before.image_digest:
        yield Change("image", f"image {image} is another: {after.image_digest}, not {before.image_digest}")
    if not after.provider:
        yield Change("provider", f"provider {provider} cannot be claimed any more: {_why_not(after, provider)}")
        return
    if after.generation != before.generation:
        yield Change(
            "generation",
            f"provider {provider} was changed: its generation was {before.generation}, is {after.generation}",
        )
    if after.kind != before.kind:
        yield Change("kind", f"provider {provider} was {before.kind}, is {after.kind}")
    for lack in after.lacks:
        if lack not in before.lacks:
            yield Change("lacks", lack)
    looked_at = not after.lacks  # else what would be moved is not known
    for name, done in (("download_bytes", "downloaded"), ("place_bytes", f"put on {provider}")):
        was, now = getattr(before, name), getattr(after, name)
        if was != now and looked_at:
            yield Change(name, f"{_size(now)} are to be {done}, not {_size(was)}")
    if after.destroys != before.destroys and looked_at:
        yield Change("destroys", f"what would be destroyed is {'; '.join(after.destroys) or 'nothing'}")


def _why_not(plan: Plan, provider: str) -> str:
    """What keeps the provider from being claimed: what the explanation says of it."""
    misses = plan.explanation.get("near_misses", ())
    told = [miss.get("detail", "") for miss in misses if miss.get("provider") == provider]
    return str(told[0] if told else plan.explanation.get("summary", "it does not fit"))


def _of_another_request(plan_hash: str, fields: list[str]) -> InvalidRequest:
    return InvalidRequest(
        f"{plan_hash} is the plan of another request, which differs in {', '.join(fields)}; ask for what was planned, "
        "or plan this",
        violations=[(f"spec.{field}", "differs from what was planned") for field in fields],
        plan=plan_hash,
        differing=",".join(fields),
    )


def _timed_out(error: WorkflowFailureError) -> bool:
    cause: BaseException | None = error.cause
    while cause is not None:
        if isinstance(cause, TemporalTimeoutError):
            return True
        cause = cause.__cause__
    return False


def _size(count: int) -> str:
    return f"{count / _MIB:.0f} MiB" if count >= _MIB or not count else f"{count} bytes"
