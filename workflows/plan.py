"""A plan: what a run would do, as the world is now. Claims nothing and changes nothing."""

from __future__ import annotations

from temporalio import exceptions, workflow
from temporalio.exceptions import ActivityError, TimeoutType

with workflow.unsafe.imports_passed_through():
    from datetime import timedelta

    from mulligan.activities import calls, planning
    from mulligan.activities.planning import Plan, PlanIn, Surveyed
    from mulligan.workflows import runs, steps
    from mulligan.workflows.execution import Execution
    from mulligan.workflows.failures import Failure

SURVEY_WITHIN = timedelta(seconds=20)
"""Someone waits for the plan: a provider that does not answer by then is itself something to tell."""

BEGIN_WITHIN = timedelta(seconds=8)
"""So soon a worker of the partition must have begun to look; no worker does that, or all have too much to do."""

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
            where = chosen.target.partition
            try:
                survey = await run.act(
                    steps.SURVEY, look, said, partition=where, limit=SURVEY_WITHIN, begin_within=BEGIN_WITHIN
                )
            except ActivityError as error:
                why = f"{chosen.target.name} could not be looked at: {_why(error, where)}"
                survey = Surveyed(why, lacks=(why,))
        made = planning.plan_of(asked, chosen, survey)
        return await run.act(steps.KEEP_PLAN, made, "Keep the plan", limit=CHOOSE_WITHIN)


def _why(error: ActivityError, partition: str) -> str:
    """Why the provider was not looked at, in words that say what to do."""
    found, cause = Failure.of(error), error.cause
    if found.reason != "NO_ANSWER" or not isinstance(cause, exceptions.TimeoutError):
        return found.message
    if cause.type is TimeoutType.SCHEDULE_TO_START:
        return (
            f"no worker of partition {partition} began within {BEGIN_WITHIN.total_seconds():.0f} s; see that one runs "
            f"there (`mulligan worker --partition {partition}`), and plan again"
        )
    return f"it did not answer within {SURVEY_WITHIN.total_seconds():.0f} s; see that it is up, and plan again"


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
