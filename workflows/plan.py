"""A plan: what a run would do, as the world is now. Claims nothing and changes nothing."""

from __future__ import annotations

from temporalio import workflow
from temporalio.exceptions import ActivityError

with workflow.unsafe.imports_passed_through():
    from datetime import timedelta

    from mulligan.activities import calls, planning
    from mulligan.activities.planning import Plan, PlanIn, Surveyed
    from mulligan.workflows import runs, steps
    from mulligan.workflows.execution import Execution, Failure

SURVEY_WITHIN = timedelta(seconds=20)
"""Someone waits for the plan: a provider that does not answer by then is itself something to tell."""

CHOOSE_WITHIN = timedelta(seconds=20)


@workflow.defn(name=runs.PLAN)
class PlanMachine:
    """Asks the inventory which provider would be claimed, and that provider what a run would find."""

    @workflow.run
    async def plan(self, asked: PlanIn) -> Plan:
        """Choose, survey, keep."""
        run = Execution(undo_seconds=0)
        said = f"Choose a provider in {asked.request.partition}"
        chosen = await run.act(steps.CHOOSE, _claim_in(asked), said, limit=CHOOSE_WITHIN)
        survey = Surveyed("there is no provider to look at")
        if chosen.target is not None:
            look = planning.SurveyIn(chosen.target, chosen.kind, asked.image, asked.request)
            said = f"See what a run would find on {chosen.target.name}"
            try:
                survey = await run.act(steps.SURVEY, look, said, partition=chosen.target.partition, limit=SURVEY_WITHIN)
            except ActivityError as error:
                why = f"{chosen.target.name} could not be looked at: {Failure.of(error).message}"
                survey = Surveyed(why, lacks=(why,))
        made = planning.plan_of(asked, chosen, survey)
        return await run.act(steps.KEEP_PLAN, made, "Keep the plan", limit=CHOOSE_WITHIN)


def _claim_in(asked: PlanIn) -> calls.ClaimIn:
    """What a run would claim; without ids, for nothing is claimed."""
    return calls.ClaimIn(
        request=asked.request,
        image=asked.image,
        machine_id="",
        claim_id="",
        workflow_id="",
        run_id="",
        fingerprint=asked.fingerprint,
        avoid=(),
        lease_seconds=1,
        only=asked.only,
    )
