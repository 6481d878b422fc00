"""The life of one machine's making: claim, image, boot, verify, and what happens when one of them fails."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import replace
from datetime import timedelta
from typing import Any, TypeVar

from temporalio import workflow
from temporalio.exceptions import ActivityError, ApplicationError

with workflow.unsafe.imports_passed_through():
    from mulligan.activities import calls
    from mulligan.activities.story import call_home_evidence
    from mulligan.activities.values import (
        CallHome,
        Claim,
        Evidence,
        MachineRequest,
        MachineState,
        Mark,
        OnFailure,
        Outcome,
        VerifyLevel,
        WhenNone,
    )
    from mulligan.workflows import runs, steps
    from mulligan.workflows.execution import (
        DEADLINE_PASSED,
        Execution,
        Failure,
        UndoFailed,
        raise_if_cancelled,
        shielded,
    )

T = TypeVar("T")

GUEST_FAILED = "GUEST_FAILED"
"""The guest called home to say that its own set-up failed: the user data's fault or the image's."""

NOT_THE_PROVIDERS_FAULT = frozenset({"IMAGE_REJECTED", "INVALID_REQUEST", "NOT_FOUND", "CLAIM_LOST", GUEST_FAILED})
"""Reasons for which another provider would fail just as well."""

BLAMED = ("image", "boot", "verify")
"""The steps in which a provider can fail."""

LAST_LOOK_SECONDS = 60.0


class StepFailed(Exception):
    """A step failed for good."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


@workflow.defn(name=runs.PROVISION)
class ProvisionMachine:
    """Makes one machine, or undoes whatever it did."""

    @workflow.init
    def __init__(self, asked: runs.ProvisionIn) -> None:
        self.asked = asked
        self.request = asked.request
        self.run = Execution(asked.request.deadlines.undo_seconds)
        self.claim: Claim | None = None
        self.failure: Failure | None = None
        self.lease: asyncio.Task[None]
        self.tried: list[str] = []
        self.awaiting_call = False
        self.called: CallHome | None = None
        self.booted_at = workflow.now()
        self.ends_at = workflow.now() + timedelta(seconds=asked.request.deadlines.run_seconds)

    @workflow.update(name=calls.CALL_HOME)
    async def call_home(self, told: calls.CallHomeIn) -> None:
        """The boot server says that the guest called home."""
        self.called = told.call
        self.awaiting_call = False

    @call_home.validator
    def _may_call_home(self, told: calls.CallHomeIn) -> None:
        if told.machine_id != self.asked.machine_id or told.try_number != self.run.try_number or not self.awaiting_call:
            raise ApplicationError("this token was used before, or belongs to another boot", type="CONFLICT")

    @workflow.run
    async def make(self, asked: runs.ProvisionIn) -> runs.ProvisionOut:
        """Try providers until one holds, or until the tries are used up."""
        self.lease = asyncio.create_task(self._keep_lease())
        try:
            return await self._until_ready_or_undone()
        except StepFailed as error:
            self.failure = error.failure
        except asyncio.CancelledError:
            self.failure = None
        except UndoFailed as error:
            if reason := await shielded(self._quarantine(error.failure)):
                raise ApplicationError(reason, type="QUARANTINED", non_retryable=True) from None
        finally:
            self.lease.cancel()
        await shielded(self._end(self.failure))
        if self.failure is None:
            raise asyncio.CancelledError
        raise ApplicationError(self.failure.message, type=self.failure.reason, non_retryable=True)

    async def _until_ready_or_undone(self) -> runs.ProvisionOut:
        """Whatever goes wrong, also while something is recorded, ends in undo."""
        try:
            return await self._until_ready()
        except (ActivityError, ApplicationError) as error:
            await shielded(self.run.roll_back())
            raise_if_cancelled()
            raise StepFailed(self.failure or Failure.of(error, step=self.run.step)) from None
        except asyncio.CancelledError:
            await shielded(self.run.roll_back())
            raise

    async def _until_ready(self) -> runs.ProvisionOut:
        while True:
            try:
                observed, evidence = await self._attempt(self.failure)
                return await shielded(self._ready(observed, evidence))
            except (ApplicationError, ActivityError) as error:
                self.failure = self._after(Failure.of(error, step=self.run.step), self.failure)
            await self._give_up_try(self.failure)

    def _after(self, failure: Failure, earlier: Failure | None) -> Failure:
        """When no second provider is found, the run failed for the first one's reason."""
        if failure.step == "claim" and earlier is not None:
            left = "has room now" if failure.reason == "NOT_NOW" else "is left to try"
            return Failure("claim", earlier.action, earlier.reason, f"{earlier.message}; no other provider {left}")
        return failure

    async def _give_up_try(self, failure: Failure) -> None:
        """Undo the failed try. Returns when another provider may be tried, raises when the run is over."""
        raise_if_cancelled()
        provider = self.claim.target.name if self.claim is not None else ""
        innocent = failure.reason in NOT_THE_PROVIDERS_FAULT or bool(failure.blame)
        blamed = bool(provider) and failure.step in BLAMED and not innocent
        last = not blamed or len(self.tried) > self.request.mulligans or workflow.now() >= self.ends_at
        if provider and self.request.on_failure is OnFailure.HOLD and (last or not await self._is_another()):
            await self._hold(failure)
        await shielded(self.run.roll_back())
        if blamed:
            suspicion = calls.Suspicion(provider, failure.message)
            await shielded(self.run.act(steps.SUSPECT, suspicion, f"{provider} is suspect: {failure.message}"))
        raise_if_cancelled()
        if last:
            raise StepFailed(failure)
        self.run.try_number += 1
        self.claim = None
        self.run.lost = ""

    async def _attempt(self, earlier: Failure | None) -> tuple[calls.Observed, tuple[Evidence, ...]]:
        """One try, on one provider."""
        raise_if_cancelled()
        deadlines = self.request.deadlines
        again = f"taking a mulligan after: {earlier.message}; " if earlier is not None else ""
        self.awaiting_call, self.called = False, None
        claim = self.claim = await self._claim_within(deadlines.claim_seconds, again)
        self.tried.append(claim.target.name)
        made = calls.MadeFor(claim.target, self._mark(claim))
        await self._within("image", deadlines.image_seconds, "bringing the image", self._image(claim, made))
        await self._within("boot", deadlines.boot_seconds, "switching on", self._boot(claim, made))
        waiting = f"proving level {self.request.verify}"
        return await self._within("verify", deadlines.verify_seconds, waiting, self._verify(made))

    async def _within(self, step: str, seconds: float, slow: str, body: Coroutine[Any, Any, T]) -> T:
        left = (self.ends_at - workflow.now()).total_seconds()
        return await self.run.within(step, max(1.0, min(seconds, left)), slow, body)

    async def _claim_within(self, seconds: float, again: str) -> Claim:
        """Claim, waiting for room if that was asked for. When the wait is over it asks once more, so that the run ends
        with why there is no room rather than with the deadline that passed."""
        try:
            return await self._within("claim", seconds, "room on a provider", self._claim(again, self.request))
        except ApplicationError as error:
            if error.type != DEADLINE_PASSED or self.request.when_none is not WhenNone.WAIT:
                raise
        now = replace(self.request, when_none=WhenNone.FAIL)
        return await self.run.within("claim", LAST_LOOK_SECONDS, "a last look", self._claim("the wait is over; ", now))

    async def _claim(self, again: str, request: MachineRequest) -> Claim:
        wanted = self._claim_in(request)
        self.run.undo_with(steps.RELEASE_CLAIM, calls.ClaimRef(wanted.claim_id), "Give the claim back")
        return (await self._unless_in_service(wanted, f"{again}claim a provider in {request.partition}")).claim

    def _claim_in(self, request: MachineRequest) -> calls.ClaimIn:
        asked, info = self.asked, workflow.info()
        return calls.ClaimIn(
            request=request,
            image=asked.image,
            machine_id=asked.machine_id,
            claim_id=f"{asked.machine_id}.{self.run.try_number}",
            workflow_id=info.workflow_id,
            run_id=info.run_id,
            fingerprint=asked.fingerprint,
            avoid=tuple(self.tried),
            lease_seconds=asked.lease_seconds,
        )

    async def _is_another(self) -> bool:
        """Whether another provider could be tried: if not, this try is the last, and is what there is to hold."""
        try:
            asked = self._claim_in(self.request)
            return (await self.run.act(steps.LOOK_FOR_ANOTHER, asked, "Look for another provider")).fits
        except ActivityError:
            return False

    async def _unless_in_service(self, asked: calls.ClaimIn, said: str) -> calls.Claimed:
        """A run that was reset after its machine was handed over must not undo what is its user's."""
        try:
            return await self.run.act(steps.CLAIM, asked, said)
        except ActivityError as error:
            if Failure.of(error).reason == calls.IN_SERVICE:
                self.run.forget_undo()
            raise

    async def _image(self, claim: Claim, made: calls.MadeFor) -> None:
        asked, target = self.asked, claim.target
        prepare = calls.ImageIn(target, asked.image)
        said = f"Bring image {asked.image.name} to {target.name}"
        await self.run.act(steps.PREPARE_IMAGE, prepare, said, partition=target.partition)
        self.run.undo_with(steps.REMOVE_DISKS, made, "Remove disk and seed", partition=target.partition)
        self.awaiting_call = True
        disks = calls.DisksIn(
            target=target,
            mark=made.mark,
            image=asked.image,
            request=self.request,
            workflow_id=workflow.info().workflow_id,
            try_number=self.run.try_number,
            token_seconds=self.request.deadlines.run_seconds,
        )
        await self.run.act(steps.PLACE_DISKS, disks, "Make the disk and its seed", partition=target.partition)

    async def _boot(self, claim: Claim, made: calls.MadeFor) -> None:
        self.run.undo_with(steps.TEAR_DOWN, made, "Switch off and remove the machine", partition=claim.target.partition)
        boot = calls.BootIn(claim.target, made.mark, claim, self.asked.image, self.request)
        booted = await self.run.act(
            steps.BOOT, boot, "Make the machine and switch it on", partition=claim.target.partition
        )
        self.booted_at = booted.at

    async def _verify(self, made: calls.MadeFor) -> tuple[calls.Observed, tuple[Evidence, ...]]:
        level, partition = self.request.verify, made.target.partition
        seconds = max(1, self.request.deadlines.verify_seconds - 2)
        up_to = VerifyLevel.ADDRESS if level.includes(VerifyLevel.ADDRESS) else level
        look = calls.ObserveIn(made.target, made.mark, up_to, self.booted_at, seconds)
        observed = await self.run.act(steps.OBSERVE, look, f"Look for {up_to}", partition=partition)
        evidence = observed.evidence
        if level.includes(VerifyLevel.GUEST):
            evidence += (await self._called_home(),)
        if level.includes(VerifyLevel.SERVICE):
            service = self.request.service
            self.run.awaiting = f"{service.kind} on port {service.port}"
            ask = calls.ProbeIn(observed.addresses, service, seconds)
            probed = await self.run.act(
                steps.PROBE_SERVICE, ask, f"Ask for {service.kind} on port {service.port}", partition=partition
            )
            evidence += probed.evidence
        return observed, evidence

    async def _called_home(self) -> Evidence:
        self.run.awaiting = "the guest's call home (its console and its cloud-init log say why there is none)"
        await self.run.until(lambda: self.called is not None)
        assert self.called is not None
        evidence = call_home_evidence(self.called)
        if self.called.status != "done":
            message = f"the guest says that its set-up did not end well: {evidence.observed}"
            raise ApplicationError(message, type=GUEST_FAILED, non_retryable=True)
        return evidence

    async def _ready(self, observed: calls.Observed, evidence: tuple[Evidence, ...]) -> runs.ProvisionOut:
        """From here on the machine is its user's: success wins over a cancel that comes later."""
        assert self.claim is not None
        update = calls.MachineUpdate(
            machine_id=self.asked.machine_id,
            state=MachineState.READY,
            claim_id=self.claim.id,
            provider=self.claim.target.name,
            addresses=observed.addresses,
            login=self.asked.image.login,
            evidence=evidence,
        )
        await self.run.act(steps.RECORD_READY, update, "Hand the machine over")
        self.run.forget_undo()
        await self._keep_story(Outcome.READY, "")
        said = f"{self.request.name} is up on {self.claim.target.name}: {evidence[-1].observed}"
        return runs.ProvisionOut(said, self.asked.machine_id, self.claim.target.name, observed.addresses, evidence)

    async def _hold(self, failure: Failure) -> None:
        """Keep everything as it is until someone cancels the run, which undoes it. No lease is needed meanwhile."""
        await shielded(self._record(MachineState.HELD, failure.message, steps.RECORD_HELD, "Held for inspection"))
        self.lease.cancel()
        raise_if_cancelled()
        await workflow.wait_condition(lambda: False)

    async def _end(self, failure: Failure | None) -> None:
        """Record how it ended. What cannot be recorded is said in the log: the run has ended so all the same."""
        outcome = Outcome.CANCELLED if failure is None else Outcome.FAILED
        reason = failure.message if failure is not None else f"cancelled {workflow.cancellation_reason() or ''}".strip()
        if failure is None or failure.reason != calls.IN_SERVICE:
            try:
                await self._record(MachineState.FAILED, reason, steps.RECORD_ENDED, "Record how it ended")
            except ActivityError as error:
                workflow.logger.warning("the end could not be recorded: %s", Failure.of(error).message)
        await self._keep_story(outcome, reason)

    async def _quarantine(self, failure: Failure) -> str:
        """Keep the claim, and say why. Empty when the claim turns out to be given back: nothing is left after all."""
        claim_id = f"{self.asked.machine_id}.{self.run.try_number}"
        request = self.request
        reason = await self.run.quarantine(claim_id, self.asked.machine_id, request.project, request.name, failure)
        if reason:
            await self._keep_story(Outcome.QUARANTINED, reason)
        return reason

    async def _record(
        self, state: MachineState, reason: str, action: steps.Action[calls.MachineUpdate, calls.Done], said: str
    ) -> None:
        provider, claim_id = (self.claim.target.name, self.claim.id) if self.claim is not None else ("", "")
        update = calls.MachineUpdate(self.asked.machine_id, state, claim_id, provider, reason=reason)
        await self.run.act(action, update, said)

    async def _keep_story(self, outcome: Outcome, reason: str) -> None:
        story = calls.StoryIn(self.request.project, self.request.name, self.asked.machine_id, outcome, reason)
        await self.run.keep_story(story)

    async def _keep_lease(self) -> None:
        """Extend the claim's lease for as long as the run works on it."""
        seconds = self.asked.lease_seconds
        while True:
            await workflow.sleep(timedelta(seconds=seconds / 3))
            claim = self.claim
            if claim is None:
                continue
            try:
                await self.run.act(steps.EXTEND_LEASE, calls.LeaseIn(claim.id, seconds), "Extend the lease")
            except ActivityError as error:
                if self.claim is claim:  # not one that was given up meanwhile
                    self.run.lost = Failure.of(error).message

    def _mark(self, claim: Claim) -> Mark:
        request = self.request
        return Mark(request.project, request.name, self.asked.machine_id, workflow.info().run_id, claim.fence)
