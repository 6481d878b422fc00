"""The steps of one try: claim a provider, bring the image, boot, verify. Each registers its undo before it acts."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import replace
from datetime import timedelta
from typing import Any

from temporalio import workflow
from temporalio.exceptions import ActivityError, ApplicationError

with workflow.unsafe.imports_passed_through():
    from mulligan.activities import calls
    from mulligan.activities.home_evidence import booted_elsewhere, call_home_evidence, disk_evidence
    from mulligan.activities.values import (
        CallHome,
        Claim,
        DiskIdentity,
        Erase,
        Evidence,
        MachineRequest,
        Mark,
        VerifyLevel,
        WhenNone,
    )
    from mulligan.workflows import runs, steps
    from mulligan.workflows.erasing import erasing, undo_by_erasing
    from mulligan.workflows.execution import Execution
    from mulligan.workflows.failures import DEADLINE_PASSED, Failure
    from mulligan.workflows.shielding import shielded_until

GUEST_FAILED = "GUEST_FAILED"
"""The guest called home to say that its own set-up failed: the user data's fault or the image's."""

WRONG_DISK = "WRONG_DISK"
"""A server came up from another disk than the one that was written."""

NOT_NOW = "NOT_NOW"
"""No provider has room at this moment."""

NOT_UP = "VERIFY_FAILED"
"""What was looked for was not seen, or the opposite was."""

UNWATCHED = timedelta(seconds=10)
"""So long a guest is awaited before its machine is looked at again: most have called by then."""

LAST_LOOK_SECONDS = 60.0

TOKEN_SECONDS = timedelta(days=30).total_seconds()
"""How long after the run's own deadline a token of its guest is taken: a run may be held, or be given more time. That a
token is used once, and for the boot that it was made for, is decided by the run itself.
"""

GIVES_UP_BEFORE = 2.0
"""Seconds by which a look gives up before its step's deadline, so that it can say what it last saw."""


class Making:
    """One try to make a machine, on one provider."""

    def __init__(self, run: Execution, asked: runs.ProvisionIn, tried: tuple[str, ...]) -> None:
        self.run = run
        self.asked = asked
        self.request = asked.request
        self.tried = tried
        """The providers that this run tried before."""
        self.claim: Claim | None = None
        self.awaiting_call = False
        self.watching = ""
        """The action that tells what is seen of the machine while its guest is awaited; empty while none does."""
        self.called: CallHome | None = None
        self.written: DiskIdentity | None = None
        """The disk that the deploy agent wrote; None where none was, or where it was not told."""
        self.booted_at = workflow.now()
        self.read: tuple[Evidence, ...] = ()
        """That what a live machine boots was read."""
        self.observed = calls.Observed("")
        self.evidence: tuple[Evidence, ...] = ()

    @property
    def by_agent(self) -> bool:
        """Whether the deploy agent writes this provider's disk."""
        return self.claim is not None and calls.BY_AGENT in self.claim.capabilities

    @property
    def provider(self) -> str:
        """The provider of this try; empty before it is claimed."""
        return self.claim.target.name if self.claim is not None else ""

    def step(self, name: str) -> Callable[[], Coroutine[Any, Any, None]]:
        """What a step does."""
        return {"image": self._image, "boot": self._boot, "verify": self._verify}[name]

    def take_call(self, told: calls.CallHomeIn) -> None:
        """The guest called home."""
        self.called, self.awaiting_call = told.call, False

    def may_call_home(self, told: calls.CallHomeIn) -> bool:
        """Whether this call is the one that is awaited."""
        mine = told.machine_id == self.asked.machine_id and told.try_number == self.run.try_number
        return mine and self.awaiting_call

    def hear_again(self, step: str) -> None:
        """It goes on with this step. A guest that is kept may call once more if its set-up failed, or if another disk
        than its own was booted: someone may have mended it. One that is torn down has nothing more to say."""
        if step != "verify":
            self.awaiting_call = False
        elif self.called is not None and (self.called.status != "done" or booted_elsewhere(self.called, self.written)):
            self.called, self.awaiting_call = None, True

    async def claim_within(self, seconds: float, again: str) -> None:
        """Claim, waiting for room if that was asked for. When the wait is over it asks once more, so that the run ends
        with why there is no room rather than with the deadline that passed."""
        self.run.step = "claim"
        try:
            await self.run.within("claim", seconds, "room on a provider", self._claim(again, self.request))
        except ApplicationError as error:
            if error.type != DEADLINE_PASSED or self.request.when_none is not WhenNone.WAIT:
                raise
        else:
            return
        now = replace(self.request, when_none=WhenNone.FAIL)
        look = self._claim("the wait is over; ", now)
        try:
            await self.run.within("claim", LAST_LOOK_SECONDS, "a last look", look)
        except ActivityError as error:
            failure = Failure.of(error)
            if failure.reason != NOT_NOW:
                raise
            message = f"waited {seconds:.0f} s for room, and there is none: {failure.message}"
            raise ApplicationError(message, type=NOT_NOW, non_retryable=True) from None

    async def _claim(self, again: str, request: MachineRequest) -> None:
        wanted = self.claim_in(request)
        self.run.undo_with(steps.RELEASE_CLAIM, calls.ClaimRef(wanted.claim_id), "Give the claim back")
        try:
            said = f"{again}claim {wanted.only or 'a provider'} in {request.partition}"
            self.claim = (await self.run.act(steps.CLAIM, wanted, said)).claim
        except ActivityError as error:
            if Failure.of(error).reason == calls.IN_SERVICE:
                # A run that was reset after its machine was handed over must not undo what is its user's.
                self.run.forget_undo()
            raise

    def claim_in(self, request: MachineRequest) -> calls.ClaimIn:
        """The claim of this try. A plan's provider is asked for once: another try may go anywhere."""
        asked, info = self.asked, workflow.info()
        return calls.ClaimIn(
            request=request,
            image=asked.image,
            machine_id=asked.machine_id,
            claim_id=f"{asked.machine_id}.{self.run.try_number}",
            workflow_id=info.workflow_id,
            run_id=info.run_id,
            fingerprint=asked.fingerprint,
            avoid=self.tried,
            lease_seconds=self.run.leased(asked.lease_seconds),
            only="" if self.tried else asked.first_provider,
        )

    async def _image(self) -> None:
        claim, made = self._claimed()
        asked, target = self.asked, claim.target
        prepare = calls.ImageIn(target, asked.image)
        said = f"Bring image {asked.image.name} to {target.name}"
        await self.run.act(steps.PREPARE_IMAGE, prepare, said, partition=target.partition)
        disks = self._disks_in(made)
        if self.by_agent and asked.image.live:
            return  # it boots what is on the partition's worker, and no disk is touched
        if self.by_agent:
            erase = erasing(made, Erase.METADATA, disks.request.root_disk, disks.token_seconds, only_if_written=True)
            undo_by_erasing(self.run, erase, "Erase what was written to the disk")
            done = await self.run.act(steps.DEPLOY, disks, "Write the image to the disk", partition=target.partition)
            self.written = done.written
        else:
            self.run.undo_with(steps.REMOVE_DISKS, made, "Remove disk and seed", partition=target.partition)
            said = "Place what it boots, and its seed" if asked.image.live else "Make the disk and its seed"
            await self.run.act(steps.PLACE_DISKS, disks, said, partition=target.partition)

    def _disks_in(self, made: calls.MadeFor) -> calls.DisksIn:
        return calls.DisksIn(
            target=made.target,
            mark=made.mark,
            image=self.asked.image,
            request=self.request,
            workflow_id=workflow.info().workflow_id,
            try_number=self.run.try_number,
            token_seconds=int(self.request.deadlines.run_seconds + TOKEN_SECONDS),
        )

    async def _boot(self) -> None:
        claim, made = self._claimed()
        partition = claim.target.partition
        self.run.undo_with(steps.TEAR_DOWN, made, "Switch off and remove the machine", partition=partition)
        self.called, self.awaiting_call = None, True
        if self.by_agent and self.asked.image.live:
            said = f"Boot {self.asked.image.name} without a disk"
            booted = await self.run.act(steps.BOOT_LIVE, self._disks_in(made), said, partition=partition)
            self.booted_at, self.read = booted.at, booted.evidence
            return
        boot = calls.BootIn(claim.target, made.mark, claim, self.asked.image, self.request)
        self.booted_at = (
            await self.run.act(steps.BOOT, boot, "Make the machine and switch it on", partition=partition)
        ).at

    async def _verify(self) -> None:
        claim, made = self._claimed()
        level, partition = self.request.verify, claim.target.partition
        up_to = VerifyLevel.ADDRESS if level.includes(VerifyLevel.ADDRESS) else level
        if self.by_agent:  # nobody but the guest itself sees a server's console and addresses
            up_to = VerifyLevel.POWER

        def look(seconds: int) -> Awaitable[calls.Observed]:
            asked = calls.ObserveIn(made.target, made.mark, up_to, self.booted_at, seconds, self.run.allowed)
            return self.run.act(steps.OBSERVE, asked, f"Look for {up_to}", partition=partition)

        self.observed = await self._look_until_the_deadline(look)
        self.evidence = self.read + self.observed.evidence
        if level.includes(VerifyLevel.GUEST) or (self.by_agent and level is not VerifyLevel.POWER):
            self.evidence += await self._called_home()
        if self.by_agent and self.called is not None:
            self.observed = replace(self.observed, addresses=addresses_of(self.called))
        if level.includes(VerifyLevel.SERVICE):
            service = self.request.service

            def ask(seconds: int) -> Awaitable[calls.Observed]:
                asked = calls.ProbeIn(self.observed.addresses, service, seconds, self.run.allowed)
                said = f"Ask for {service.kind} on port {service.port}"
                return self.run.act(steps.PROBE_SERVICE, asked, said, partition=partition)

            self.run.awaits(f"{service.kind} on port {service.port}")
            self.evidence += (await self._look_until_the_deadline(ask)).evidence

    async def _look_until_the_deadline(self, look: Callable[[int], Awaitable[calls.Observed]]) -> calls.Observed:
        """Look for as long as the step has; again, when it was given more time meanwhile."""
        while True:
            deadline = self.run.deadline
            try:
                return await look(max(1, int(self.run.left - GIVES_UP_BEFORE)))
            except ActivityError as error:
                if Failure.of(error).reason != NOT_UP or self.run.deadline == deadline:
                    raise

    async def _called_home(self) -> tuple[Evidence, ...]:
        seen = () if self.called is not None else await self._await_call()
        assert self.called is not None
        evidence = call_home_evidence(self.called)
        if self.called.status != "done":
            message = f"the guest says that its set-up did not end well: {evidence.observed}"
            raise ApplicationError(message, type=GUEST_FAILED, non_retryable=True)
        if elsewhere := booted_elsewhere(self.called, self.written):
            raise ApplicationError(elsewhere, type=WRONG_DISK, non_retryable=True)
        return (*seen, *disk_evidence(self.called, self.written), evidence)

    async def _await_call(self) -> tuple[Evidence, ...]:
        """Wait for the guest's call home, and look at its machine meanwhile: what is off will not call. Where a BMC
        says how far a boot came, it is asked: what it said last is evidence, if it is newer than the boot."""
        awaited = "the guest's call home (its console and its cloud-init log say why there is none)"
        claim, _ = self._claimed()
        if calls.TELLS_PROGRESS not in claim.capabilities and await self.run.until(
            self._has_called, awaited, at_first=UNWATCHED
        ):
            return ()
        watch = self._watch(claim)
        try:
            await asyncio.sleep(0)  # the watch begins before the wait: in the story, what begins later ends a wait
            await self.run.until(lambda: self._has_called() or _saw_it_off(watch), awaited)
        except (asyncio.CancelledError, TimeoutError):  # no `finally`: a run that is evicted can await nothing more
            await self._end(watch)
            raise
        await self._end(watch)
        if not self._has_called():
            watch.result()  # raises what it saw
        told = not watch.cancelled() and watch.exception() is None
        return watch.result().evidence if told else ()

    def _has_called(self) -> bool:
        return self.called is not None

    def _watch(self, claim: Claim) -> asyncio.Task[calls.Observed] | asyncio.Task[calls.Done]:
        """Look at a machine whose guest is awaited."""
        _, made = self._claimed()
        awaiting, partition = "the guest's call home", claim.target.partition
        if calls.TELLS_PROGRESS in claim.capabilities:
            self.watching = steps.WATCH_BOOT.name
            boot = calls.WatchBootIn(made.target, made.mark, self.booted_at, awaiting)
            said = "Look how far the boot came"
            return asyncio.create_task(self.run.act(steps.WATCH_BOOT, boot, said, partition=partition))
        self.watching = steps.WATCH_GUEST.name
        guest = calls.WatchGuestIn(made.target, made.mark, awaiting)
        said = "Look whether the machine is still on, and what its console says"
        return asyncio.create_task(self.run.act(steps.WATCH_GUEST, guest, said, partition=partition))

    async def _end(self, watch: asyncio.Task[Any]) -> None:
        self.watching = ""
        watch.cancel()
        await shielded_until(watch.done)
        if not watch.cancelled():
            watch.exception()  # an action that was stopped ends as a failure: what nobody reads is logged as an error

    def _claimed(self) -> tuple[Claim, calls.MadeFor]:
        assert self.claim is not None
        request = self.request
        mark = Mark(request.project, request.name, self.asked.machine_id, workflow.info().run_id, self.claim.fence)
        return self.claim, calls.MadeFor(self.claim.target, mark)


def _saw_it_off(watch: asyncio.Task[Any]) -> bool:
    """Whether a watch ended because the machine is off. Without a watch that ended otherwise the wait goes on."""
    if not watch.done() or watch.cancelled() or (error := watch.exception()) is None:
        return False
    return Failure.of(error).reason == NOT_UP


def addresses_of(called: CallHome) -> tuple[str, ...]:
    """The addresses that a guest says it has; first the one that its call came from, which is known to be reached."""
    return tuple(sorted(called.addresses, key=lambda address: address != called.peer))
