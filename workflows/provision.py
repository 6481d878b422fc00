"""The life of one machine's making: tries on one provider after another, held and steered, and how it all ends."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

from temporalio import exceptions, workflow
from temporalio.exceptions import ActivityError, ApplicationError

with workflow.unsafe.imports_passed_through():
    from mulligan.activities import calls
    from mulligan.activities.levers import HOLDABLE, LeverKind
    from mulligan.activities.values import MachineState, OnFailure, Outcome
    from mulligan.workflows import runs, search, steps
    from mulligan.workflows.details import details
    from mulligan.workflows.execution import Execution
    from mulligan.workflows.failures import ABORTED, CLAIM_LOST, MULLIGAN_ASKED, Failure, UndoFailed
    from mulligan.workflows.making import GUEST_FAILED, Making
    from mulligan.workflows.shielding import raise_if_cancelled, shielded, shielded_until
    from mulligan.workflows.steering import Decision, Phase, Steering, why

NOT_THE_PROVIDERS_FAULT = frozenset(
    {"IMAGE_REJECTED", "INVALID_REQUEST", "NOT_FOUND", CLAIM_LOST, GUEST_FAILED, MULLIGAN_ASKED, ABORTED}
)
"""Reasons for which another provider would fail just as well, or which say nothing against this one."""

DECIDED = frozenset({MULLIGAN_ASKED, ABORTED, CLAIM_LOST})
"""Reasons after which nobody needs to be asked how to go on."""

ENDS_BY_A_LATE_LEVER = "ends-by-a-lever-while-a-failure-is-noted"
"""Of a failed run: a lever that is answered while that is noted ends the try, which is not held."""

GOES_BACK_FOR_A_LATE_CALL = "goes-back-for-a-late-call-home"
"""Of a held run: a guest that calls home while its resume is recorded gets its disk made anew."""

LOOK_WITHIN = timedelta(seconds=8)
"""So long it is looked for another provider while a step, or an operator, waits for the answer."""


class StepFailed(Exception):
    """A step failed for good."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


@workflow.defn(name=runs.PROVISION)
class ProvisionMachine(Steering):
    """Makes one machine, or undoes whatever it did."""

    @workflow.init
    def __init__(self, asked: runs.ProvisionIn) -> None:
        super().__init__()
        self.asked = asked
        self.request = asked.request
        self.run = Execution(asked.request.deadlines.undo_seconds)
        self.run.changed = lambda: self._show(self.shown)
        self.shown = "claim"
        self.tried: list[str] = []
        self.run.when_slow = self._when_slow
        self.making = Making(self.run, asked, ())
        self.failure: Failure | None = None
        self.lease: asyncio.Task[None]
        self.ends_at = workflow.now() + timedelta(seconds=asked.request.deadlines.run_seconds)

    @workflow.update(name=calls.CALL_HOME, description="Sent by the boot server when the guest calls home")
    async def call_home(self, told: calls.CallHomeIn) -> None:
        """The boot server says that the guest called home."""
        self.making.take_call(told)

    @call_home.validator
    def _may_call_home(self, told: calls.CallHomeIn) -> None:
        if not self.making.may_call_home(told):
            raise ApplicationError("this token was used before, or belongs to another boot", type="CONFLICT")

    @workflow.query(name="phase", description="What it is at: working, held, resuming, undoing or ending")
    def what_phase(self) -> str:
        """What it is at."""
        return "resuming" if self.phase is Phase.HELD and self.decision is not None else self.phase

    @workflow.query(name="undo", description="What would be undone now, in that order")
    def undo_list(self) -> list[str]:
        """What would be undone now, in that order."""
        return [undo.said for undo in self.run.to_undo()]

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
            if self.failure is None and workflow.cancellation_reason() is None:
                self.failure = error.failure
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
            await shielded(self._roll_back())
            raise_if_cancelled()
            raise StepFailed(self.failure or Failure.of(error, step=self.run.step)) from None
        except asyncio.CancelledError:
            await shielded(self._roll_back())
            raise

    async def _until_ready(self) -> runs.ProvisionOut:
        while True:
            try:
                await self._attempt(self.failure)
                self.phase = Phase.ENDING
                return await shielded(self._ready())
            except (ApplicationError, ActivityError) as error:
                self.failure = self._after(Failure.of(error, step=self.run.step), self.failure)
            await self._give_up_try(self.failure)

    def _after(self, failure: Failure, earlier: Failure | None) -> Failure:
        """When no second provider is found, the run failed for the first one's reason."""
        if failure.step == "claim" and earlier is not None and failure.reason not in DECIDED:
            left = "has room now" if failure.reason == "NOT_NOW" else "is left to try"
            return Failure("claim", earlier.action, earlier.reason, f"{earlier.message}; no other provider {left}")
        return failure

    async def _give_up_try(self, failure: Failure) -> None:
        """Undo the failed try. Returns when another provider may be tried, raises when the run is over."""
        raise_if_cancelled()
        provider, last = self.making.provider, self._is_last(failure)
        self.phase = Phase.UNDOING
        await shielded(self._roll_back())
        if self._is_blamed(failure):
            await shielded(self._suspect(provider, failure))
        raise_if_cancelled()
        if self.run.given_up:  # and yet the undo was done
            raise StepFailed(Failure(failure.step, failure.action, ABORTED, f"{self.run.given_up}; {failure.message}"))
        if last:
            raise StepFailed(failure)
        self.run.try_number += 1
        self.run.ended_by = None

    async def _suspect(self, provider: str, failure: Failure) -> None:
        image = self.asked.image
        suspicion = calls.Suspicion(provider, failure.message, image.name, image.digest, failure.step)
        await self.run.suspect(suspicion)

    def _is_blamed(self, failure: Failure) -> bool:
        """Whether the provider, or the image on it, may be at fault."""
        innocent = failure.reason in NOT_THE_PROVIDERS_FAULT or bool(failure.blame)
        return bool(self.making.provider) and failure.step in HOLDABLE and not innocent

    def _is_last(self, failure: Failure) -> bool:
        """Whether no other provider is to be tried after this failure."""
        if failure.reason == MULLIGAN_ASKED:
            return False
        used_up = len(self.tried) > self.request.mulligans or workflow.now() >= self.ends_at
        return not self._is_blamed(failure) or used_up

    async def _attempt(self, earlier: Failure | None) -> None:
        """One try, on one provider: its steps in order, held where that is asked for, gone back to where that is."""
        raise_if_cancelled()
        self.phase = Phase.WORKING
        again = f"taking a mulligan after: {earlier.message}; " if earlier is not None else ""
        self.making = Making(self.run, self.asked, tuple(self.tried))
        self._show("claim")
        await self.making.claim_within(self._seconds("claim"), again)
        self.tried.append(self.making.provider)
        step = HOLDABLE[0]
        while step:
            if asked := self.holds_ahead.take(step):
                self.run.step = step
                step = await self._decided(asked)
            try:
                self._show(step)
                await self.run.within(step, self._seconds(step), self._awaited(step), self.making.step(step)())
            except (ApplicationError, ActivityError) as error:
                self.run.raise_if_ended()  # also when it failed by itself just then
                failure = Failure.of(error, step=step)
                is_to_be_held = await self._is_to_be_held(failure)
                self.run.raise_if_ended()
                if not is_to_be_held:
                    raise
                self.failure = failure
                if self._is_blamed(failure):
                    await shielded(self._suspect(self.making.provider, failure))
                if self.run.ended_by is not None and workflow.patched(ENDS_BY_A_LATE_LEVER):
                    self.run.raise_if_ended()
                step = await self._decided(failure.message)
            else:
                step = next(iter(HOLDABLE[HOLDABLE.index(step) + 1 :]), "")
        self.failure = earlier

    async def _when_slow(self) -> Failure | None:
        """Leave a provider that does not answer while another one could make the machine: a step that moves an image
        may take hours, and a host that is dead does not come back by being asked."""
        step, provider = self.run.step, self.making.provider
        if step not in HOLDABLE or self.phase is not Phase.WORKING or len(self.tried) > self.request.mulligans:
            return None
        why_slow = await shielded(self.run.why())
        if why_slow.reason != "UNREACHABLE" or why_slow.blame:
            return None
        async with self.run.asking:
            found = await self.is_another()
        said = f"{provider} does not answer, and another provider could make it; last: {why_slow.said}"
        return Failure(step, "", why_slow.reason, said) if found.fits else None

    def _awaited(self, step: str) -> str:
        proving = f"proving level {self.request.verify}"
        return {"image": "bringing the image", "boot": "switching on", "verify": proving}[step]

    def _seconds(self, step: str) -> float:
        """What a step may take: its own deadline, within the run's."""
        own: int = getattr(self.request.deadlines, f"{step}_seconds")
        return max(1.0, min(own, (self.ends_at - workflow.now()).total_seconds()))

    async def _is_to_be_held(self, failure: Failure) -> bool:
        """Whether this try is kept as it is: it was asked for, and there is no other provider to try by itself."""
        raise_if_cancelled()
        if self.request.on_failure is not OnFailure.HOLD or failure.reason in DECIDED:
            return False
        if self._is_last(failure):
            return True
        async with self.run.asking:
            found = await self.is_another(limit=None)
        raise_if_cancelled()
        return not found.fits

    async def _decided(self, reason: str) -> str:
        """Hold, until an operator decides; the step with which to go on. A lever that ends the try is raised."""
        decision = await self._hold(reason)
        if decision.lever is LeverKind.RESUME:
            again = self.step_to_resume(decision.step)
            if again != decision.step and workflow.patched(GOES_BACK_FOR_A_LATE_CALL):
                decision = replace(decision, step=again)
            self.making.hear_again(decision.step)
            self.phase = Phase.UNDOING
            await shielded(self._roll_back(decision.step))
            raise_if_cancelled()
            if self.run.given_up:  # and yet the undo was done
                raise ApplicationError(self.run.given_up, type=ABORTED, non_retryable=True)
            self.phase = Phase.WORKING
            more = timedelta(seconds=getattr(self.request.deadlines, f"{decision.step}_seconds"))
            self.ends_at = max(self.ends_at, workflow.now() + more)
            return decision.step
        kind = MULLIGAN_ASKED if decision.lever is LeverKind.MULLIGAN else ABORTED
        said = why(decision.by, "given up" if kind == MULLIGAN_ASKED else "aborted")
        raise ApplicationError(f"{said}; it was held: {reason}", type=kind, non_retryable=True)

    async def _hold(self, reason: str) -> Decision:
        """Keep everything as it is until someone decides. Deadlines stand still, and no lease is needed meanwhile."""
        began, step = workflow.now(), self.run.step
        self.phase, self.decision = Phase.HELD, None
        self.holds += 1
        self._show(step, f"held: {reason}")
        await shielded(self._record(MachineState.HELD, reason, steps.RECORD_HELD, "Held for inspection"))
        self.lease.cancel()
        await shielded_until(self.lease.done)
        raise_if_cancelled()
        await workflow.wait_condition(lambda: self.decision is not None)
        assert self.decision is not None
        await shielded(self._resumed(self.decision))
        self.lease = asyncio.create_task(self._keep_lease())
        self.ends_at += workflow.now() - began
        raise_if_cancelled()
        self.phase = Phase.WORKING
        return self.decision  # an abort may have come while the one before it was recorded

    async def _resumed(self, decision: Decision) -> None:
        """The claim is leased again, and the provider is asked for as it is now: someone may have mended it."""
        assert self.making.claim is not None
        what = {LeverKind.RESUME: f"with {decision.step}", LeverKind.MULLIGAN: "on another provider"}
        said = why(decision.by, f"goes on {what.get(decision.lever, 'to its end')}")
        asked = calls.ResumeIn(self.asked.machine_id, self.making.claim.id, self._leased(), said)
        self.making.claim = (await self.run.act(steps.RECORD_RESUMED, asked, said)).claim
        self.run.targets.learn(self.making.claim.target)

    def step_to_resume(self, step: str) -> str:
        """A guest calls home once: one that did is booted again only with its disk made anew."""
        return "image" if step == "boot" and self.making.called is not None else step

    async def is_another(self, limit: timedelta | None = LOOK_WITHIN) -> calls.Another:
        """Whether another provider could be tried: if not, this try is the last, and is what there is to hold."""
        asked = Making(self.run, self.asked, tuple(self.tried)).claim_in(self.request)
        try:
            return await self.run.act(steps.LOOK_FOR_ANOTHER, asked, "Look for another provider", limit=limit)
        except ActivityError as error:
            if isinstance(error.cause, exceptions.TimeoutError):
                return calls.Another("the database takes its time; ask again in a moment", fits=False, known=False)
            return calls.Another(Failure.of(error).message, fits=False)

    async def _roll_back(self, to: str = "claim") -> None:
        self.phase = Phase.UNDOING
        if self.run.to_undo():
            self._show("undo")
        await self.run.roll_back(to)

    async def _ready(self) -> runs.ProvisionOut:
        """From here on the machine is its user's: success wins over a cancel that comes later."""
        claim, evidence, addresses = self.making.claim, self.making.evidence, self.making.observed.addresses
        assert claim is not None
        update = calls.MachineUpdate(
            machine_id=self.asked.machine_id,
            state=MachineState.READY,
            claim_id=claim.id,
            provider=claim.target.name,
            addresses=addresses,
            login=self.asked.image.login,
            evidence=evidence,
        )
        await self.run.act(steps.RECORD_READY, update, "Hand the machine over")
        self.run.forget_undo()
        await self._keep_story(Outcome.READY, "")
        said = f"{self.request.name} is up on {claim.target.name}: {evidence[-1].observed}"
        return runs.ProvisionOut(said, self.asked.machine_id, claim.target.name, addresses, evidence)

    async def _end(self, failure: Failure | None) -> None:
        """Record how it ended. What cannot be recorded is said in the log: the run has ended so all the same."""
        self.phase = Phase.ENDING
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
        self.phase = Phase.ENDING
        claim_id = f"{self.asked.machine_id}.{self.run.try_number}"
        request = self.request
        reason = await self.run.quarantine(claim_id, self.asked.machine_id, request.project, request.name, failure)
        if reason:
            await self.run.suspect_undo(self.making.provider, failure)
            await self._keep_story(Outcome.QUARANTINED, reason)
        return reason

    async def _record(
        self, state: MachineState, reason: str, action: steps.Action[calls.MachineUpdate, calls.Done], said: str
    ) -> None:
        claim = self.making.claim
        provider, claim_id = (claim.target.name, claim.id) if claim is not None else ("", "")
        update = calls.MachineUpdate(self.asked.machine_id, state, claim_id, provider, reason=reason)
        await self.run.act(action, update, said)

    async def _keep_story(self, outcome: Outcome, reason: str) -> None:
        search.upsert(outcome=outcome)
        self._show(self.run.step, reason, outcome)
        story = calls.StoryIn(self.request.project, self.request.name, self.asked.machine_id, outcome, reason)
        await self.run.keep_story(story)

    def _show(self, step: str, note: str = "", outcome: Outcome | None = None) -> None:
        """Say to Temporal's lists and its Web UI what the run is at, or how it ended."""
        self.shown = step
        search.upsert(step=step, provider=self.making.provider)
        workflow.set_current_details(details(self, step, note, outcome))

    def _leased(self) -> int:
        return self.run.leased(self.asked.lease_seconds)

    async def _keep_lease(self) -> None:
        """Extend the claim's lease for as long as the run works on it."""
        me = asyncio.current_task()
        while me is not None and not me.cancelling():  # an action that ends well swallows the cancel
            seconds = self._leased()
            await workflow.sleep(timedelta(seconds=seconds / 3), summary="Extend the lease when this is over")
            claim = self.making.claim
            if claim is None:
                continue
            try:
                await self.run.act(steps.EXTEND_LEASE, calls.LeaseIn(claim.id, seconds), "Extend the lease")
            except ActivityError as error:
                if self.making.claim is claim and not me.cancelling():  # not one that was given up meanwhile
                    self.run.ended_by = Failure(self.run.step, "lease", CLAIM_LOST, Failure.of(error).message)
