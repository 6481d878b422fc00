"""The claim step: a provider's resources, taken and given back. Runs on control workers, which have the database."""

from __future__ import annotations

from collections.abc import Mapping

from temporalio import activity
from temporalio.exceptions import ApplicationError

from mulligan.activities import calls
from mulligan.activities.errors import NotFound, NotNow
from mulligan.activities.firmware import needed_by
from mulligan.activities.inventory import Blame, By, ClaimRequest, Inventory, Verdict
from mulligan.activities.inventory.machine import Machine
from mulligan.activities.levers import UNKNOWN
from mulligan.activities.threads import run_blocking
from mulligan.activities.translate import to_failure
from mulligan.activities.values import (
    Claim,
    Image,
    ImageFormat,
    MachineRequest,
    MachineState,
    Provider,
    VerifyLevel,
    WhenNone,
)

PROVED_WITH: Mapping[VerifyLevel, str] = {VerifyLevel.CONSOLE: f"console.serial|{calls.BY_AGENT}"}
"""The capability without which a level cannot be proved: a provider that lacks it is no candidate. On servers that the
deploy agent writes, the guest's call home proves all that the provider cannot see."""

ISO_PROVED_WITH: Mapping[VerifyLevel, str] = {VerifyLevel.CONSOLE: "console.serial"}
"""The same for an ISO, into which nothing can be put: its guest does not call home."""


class ClaimActivities:
    """Claims, their leases, and what is known of providers through them."""

    def __init__(self, inventory: Inventory) -> None:
        self._inventory = inventory

    @activity.defn(name=calls.CLAIM.name)
    async def claim(self, asked: calls.ClaimIn) -> calls.Claimed:
        """Record the machine and claim for it; asked again, it answers with the same claim."""
        try:
            claim = await run_blocking(self._claim, asked)
        except NotNow as error:
            if asked.request.when_none is WhenNone.WAIT:
                raise
            raise _final(error) from None
        held = claim.resources
        said = (
            f"claimed {held.vcpu} vcpu, {held.memory_mib} MiB memory, {held.disk_gib} GiB disk of {claim.target.name}"
            f" (fence {claim.fence})"
        )
        return calls.Claimed(said, claim, claim.target.name)

    def _claim(self, asked: calls.ClaimIn) -> Claim:
        machine = self._inventory.begin_machine(machine_of(asked))
        if machine.state is MachineState.READY:
            message = f"machine {machine.name} is in service; release it before it is made again"
            raise ApplicationError(message, type=calls.IN_SERVICE, non_retryable=True)
        return self._inventory.claim(claim_request_of(asked))

    @activity.defn(name=calls.LOOK_FOR_ANOTHER.name)
    async def look_for_another(self, asked: calls.ClaimIn) -> calls.Another:
        """Whether there is a provider for another try; claims nothing."""
        found = await run_blocking(self._inventory.explain, claim_request_of(asked))
        return calls.Another(found.summary, found.verdict is Verdict.FITS)

    @activity.defn(name=calls.RELEASE_CLAIM.name)
    async def release_claim(self, asked: calls.ClaimRef) -> calls.Done:
        """Give it back, exactly once; one that arrives later finds a tombstone."""
        by = By(asked.actor or UNKNOWN, asked.reason) if asked.forgotten else None
        await run_blocking(self._inventory.release_claim, asked.claim_id, dirty=asked.dirty, forgotten=by)
        return calls.Done("the claim was given back")

    @activity.defn(name=calls.EXTEND_LEASE.name)
    async def extend_lease(self, asked: calls.LeaseIn) -> calls.Done:
        """Say that the run is alive."""
        await run_blocking(self._inventory.extend_lease, asked.claim_id, asked.seconds)
        return calls.Done(f"the lease was extended by {asked.seconds} s")

    @activity.defn(name=calls.SUSPECT.name)
    async def suspect(self, asked: calls.Suspicion) -> calls.Done:
        """Keep that the calling run failed on a provider, with an image: who is to blame is judged from all that is."""
        info = activity.info()
        blame = Blame(
            id=f"{info.workflow_run_id}/{info.activity_id}{'/undo' if asked.step == 'undo' else ''}",
            workflow_id=info.workflow_id or "",
            run_id=info.workflow_run_id or "",
            provider=asked.provider,
            image=asked.image,
            digest=asked.digest,
            step=asked.step,
            reason=asked.reason,
        )
        try:
            provider = await run_blocking(self._inventory.record_failure, blame)
        except NotFound:
            return calls.Done(f"{asked.provider} was removed meanwhile")
        return calls.Done(await run_blocking(self._told, provider, asked))

    def _told(self, provider: Provider, asked: calls.Suspicion) -> str:
        """What the failure has led to, in one line."""
        if asked.digest and (refused := self._inventory.image_quarantine(asked.digest)):
            return f"image {asked.image} is quarantined: {refused}"
        if provider.quarantined:
            return f"{provider.name} is quarantined: {provider.quarantined}"
        if provider.suspect_count:
            return f"{provider.name} is claimed last from now on; {provider.suspect_count} failure(s) count against it"
        return f"image {asked.image}, not {provider.name}, is to blame"

    @activity.defn(name=calls.QUARANTINE.name)
    async def quarantine(self, asked: calls.Quarantine) -> calls.Done:
        """Keep the claim, and say why and what mends it."""
        await run_blocking(self._inventory.quarantine_claim, asked.claim_id, asked.reason, asked.mend)
        return calls.Done(f"quarantined; to mend: {asked.mend}")


def machine_of(asked: calls.ClaimIn) -> Machine:
    """The machine that a claim is for, as it begins."""
    return Machine(
        id=asked.machine_id,
        project=asked.request.project,
        name=asked.request.name,
        state=MachineState.PROVISIONING,
        partition=asked.request.partition,
        provider="",
        claim_id=asked.claim_id,
        run_id=asked.run_id,
        request=asked.request,
        image=asked.image,
    )


def claim_request_of(asked: calls.ClaimIn) -> ClaimRequest:
    """What the inventory is asked for, with what the image needs."""
    request = asked.request
    return ClaimRequest(
        claim_id=asked.claim_id,
        machine_id=asked.machine_id,
        project=request.project,
        machine=request.name,
        run_id=asked.run_id,
        partition=request.partition,
        resources=request.resources,
        kind=request.kind,
        requires=requirements(request, asked.image),
        forbids=request.forbids,
        provider=asked.only or request.provider,
        avoid=asked.avoid,
        placement=request.placement,
        lease_seconds=asked.lease_seconds,
        fingerprint=asked.fingerprint,
    )


def requirements(request: MachineRequest, image: Image | None) -> tuple[str, ...]:
    """The capabilities that are asked for, that the image needs to boot, and that proving it up to its level needs."""
    needed = set(request.requires)
    if image is not None:
        needed |= needed_by(image, request.firmware)
    proved_with = ISO_PROVED_WITH if image is not None and image.format is ImageFormat.ISO else PROVED_WITH
    needed |= {name for level, name in proved_with.items() if request.verify.includes(level)}
    return tuple(sorted(needed))


def _final(error: NotNow) -> ApplicationError:
    """Not now, for someone who does not want to wait: the same reason, without another attempt."""
    failure = to_failure(error)
    return ApplicationError(failure.message, *failure.details, type=failure.type, non_retryable=True)
