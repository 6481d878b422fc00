"""Taking machines down: by their user's wish, or because the run that made them was abandoned."""

from __future__ import annotations

from temporalio import workflow
from temporalio.exceptions import ActivityError, ApplicationError

with workflow.unsafe.imports_passed_through():
    from mulligan.activities import calls
    from mulligan.activities.levers import cause_of_cancel
    from mulligan.activities.values import Erase, MachineState, Mark, Outcome, RootDisk
    from mulligan.workflows import runs, search, steps
    from mulligan.workflows.erasing import TRIED_FOR, erasing, undo_by_erasing
    from mulligan.workflows.execution import Execution
    from mulligan.workflows.failures import Failure, UndoFailed
    from mulligan.workflows.shielding import shielded
    from mulligan.workflows.steering import Phase, Undoing

UNDO_SECONDS = 900

GONE = "CONFLICT"
"""How it is said that a machine whose state is to change has ended."""


class TakeDown(Undoing):
    """Switches off, removes, gives the claim back: in this order, to the end, whoever cancels meanwhile."""

    is_asked_for = False
    """Whether somebody wants it, who was told how the last one ended."""

    def __init__(self) -> None:
        self.run = Execution(UNDO_SECONDS)

    async def take_down(self, asked: runs.ReleaseIn, ends_as: MachineState, reason: str) -> runs.ReleaseOut:
        """Take it down, and record that it is gone."""
        run = self.run
        if asked.forget:
            by = cause_of_cancel(asked.actor, asked.reason)
            where = asked.target.name
            reason = f"forgotten {by}; nothing was undone on {where}, where it may still run"
        mark = Mark(asked.project, asked.machine, asked.machine_id, asked.run_id, asked.fence)
        made, partition = calls.MadeFor(asked.target, mark), asked.target.partition
        search.upsert(step="undo", provider=asked.target.name)
        workflow.set_current_details(f"Takes **{asked.machine}** of project {asked.project} down: {reason}")
        if not await self._begins(asked, reason):
            self.phase = Phase.ENDING
            await self._keep_story(asked, Outcome.RELEASED, "")
            return runs.ReleaseOut(f"{asked.machine} was gone already", asked.machine_id)
        claim = calls.ClaimRef(asked.claim_id, asked.dirty, asked.forget, asked.actor, asked.reason)
        run.undo_with(steps.RELEASE_CLAIM, claim, "Give the claim back", step="claim")
        if not asked.forget:
            self._clear_disks(asked, made)
            run.undo_with(steps.TEAR_DOWN, made, "Switch off and remove the machine", partition=partition, step="boot")
        try:
            await run.roll_back()
        except UndoFailed as error:
            self.phase = Phase.ENDING
            left = await run.quarantine(asked.claim_id, asked.machine_id, asked.project, asked.machine, error.failure)
            if left:
                await run.suspect_undo(asked.target.name, error.failure)
                await self._keep_story(asked, Outcome.QUARANTINED, left)
                raise ApplicationError(left, type="QUARANTINED", non_retryable=True) from None
        self.phase = Phase.ENDING
        tells = asked.forget or ends_as is MachineState.FAILED
        await run.act(
            steps.RECORD_ENDED,
            calls.MachineUpdate(asked.machine_id, ends_as, reason=reason if tells else ""),
            "Record that it is gone",
        )
        await self._keep_story(asked, Outcome.RELEASED, "")
        said = f"{asked.machine} is gone, and nothing of it is left"
        if asked.forget:
            said = f"{asked.machine} is forgotten; nothing was asked of {asked.target.name}, and nothing removed there"
        return runs.ReleaseOut(said, asked.machine_id)

    async def _begins(self, asked: runs.ReleaseIn, reason: str) -> bool:
        """Record that it begins; False when another run has taken the machine down since this one was asked for."""
        what = "Only give back what is claimed for" if asked.forget else "Take"
        said = f"{what} {asked.machine}{'' if asked.forget else ' down'}: {reason}"
        try:
            update = calls.MachineUpdate(asked.machine_id, MachineState.RELEASING)
            await self.run.act(steps.RECORD_RELEASING, update, said)
        except ActivityError as error:
            if Failure.of(error).reason != GONE:
                raise
            return False
        return True

    def _clear_disks(self, asked: runs.ReleaseIn, made: calls.MadeFor) -> None:
        if not asked.by_agent:
            partition = asked.target.partition
            self.run.undo_with(steps.REMOVE_DISKS, made, "Remove disk and seed", partition=partition, step="image")
        elif asked.erase is not Erase.NONE:
            seconds = int(TRIED_FOR[asked.erase].total_seconds())
            erase = erasing(made, asked.erase, RootDisk(), seconds, without_missing=self.is_asked_for)
            undo_by_erasing(self.run, erase, f"Erase the disks ({asked.erase})")

    async def _keep_story(self, asked: runs.ReleaseIn, outcome: Outcome, reason: str) -> None:
        search.upsert(outcome=outcome)
        await self.run.keep_story(calls.StoryIn(asked.project, asked.machine, asked.machine_id, outcome, reason))


@workflow.defn(name=runs.RELEASE)
class ReleaseMachine(TakeDown):
    """Takes a machine down. Once begun it goes on to its end: half a machine is of no use to anyone."""

    is_asked_for = True

    @workflow.run
    async def release(self, asked: runs.ReleaseIn) -> runs.ReleaseOut:
        """Take it down, shielded from cancellation."""
        return await shielded(self.take_down(asked, MachineState.RELEASED, "released"))


@workflow.defn(name=runs.RECLAIM)
class ReclaimClaim(TakeDown):
    """Takes down what an abandoned run left on a claim whose lease has passed."""

    @workflow.run
    async def reclaim(self, asked: runs.ReleaseIn) -> runs.ReleaseOut:
        """Take it down, shielded from cancellation."""
        if asked.given_back:
            return await shielded(self.take_down(asked, MachineState.RELEASED, "its release was ended from outside"))
        reason = "its run ended without undo, and the claim's lease has passed"
        return await shielded(self.take_down(asked, MachineState.FAILED, reason))
