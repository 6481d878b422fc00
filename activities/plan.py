"""The part of planning that needs the database: which provider would be claimed, and keeping the plan.

Runs on control workers. Claims nothing.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

from pydantic import TypeAdapter
from temporalio import activity

from mulligan.activities import planning
from mulligan.activities.calls import ClaimIn
from mulligan.activities.claim import claim_request_of
from mulligan.activities.inventory import Choice, ClaimRequest, Explanation, Inventory, driver_of, model_of
from mulligan.activities.threads import run_blocking
from mulligan.activities.values import Kind, Placement, Provider, StepEstimate

_EXPLANATION = TypeAdapter(Explanation)


class PlanActivities:
    """What would be chosen, and plans that are kept."""

    def __init__(self, inventory: Inventory) -> None:
        self._inventory = inventory

    @activity.defn(name=planning.CHOOSE.name)
    async def choose(self, asked: ClaimIn) -> planning.Chosen:
        """The provider that a claim would take now, why, and how long the steps usually take there."""
        request = claim_request_of(asked)
        choice = await run_blocking(self._inventory.choose, request)
        estimates = await run_blocking(self._estimates, asked, choice.provider)
        explanation, provider = choice.explanation, choice.provider
        told = _EXPLANATION.dump_python(explanation, mode="json")
        if provider is None:
            return planning.Chosen(explanation.summary, explanation.verdict, told, estimates=estimates)
        return planning.Chosen(
            said=f"{provider.name} would be claimed",
            verdict=explanation.verdict,
            explanation=told,
            target=provider.target,
            kind=provider.kind,
            generation=provider.generation,
            why=why(request, choice, provider),
            estimates=estimates,
        )

    def _estimates(self, asked: ClaimIn, provider: Provider | None) -> tuple[StepEstimate, ...]:
        group = (driver_of(provider), model_of(provider)) if provider is not None else ("", "")
        return self._inventory.estimates(asked.image.name, *group, asked.request.verify)

    @activity.defn(name=planning.KEEP_PLAN.name)
    async def keep(self, plan: planning.Plan) -> planning.Plan:
        """Date the plan, and keep it under its hash if it can be applied."""
        made = replace(plan, made_at=datetime.now(UTC))
        if made.hash:
            await run_blocking(self._inventory.keep_plan, made)
        return made


def why(request: ClaimRequest, choice: Choice, provider: Provider) -> str:
    """Why this provider comes first, for people. The order is that of `inventory.search.candidates`."""
    fits = choice.explanation.fits_count
    if request.provider:
        reason = "it was asked for by name, and can hold it now"
    elif fits == 1:
        reason = "no other provider can hold it now"
    else:
        lot = f"{choice.alike} rank the same, and lots are drawn" if choice.alike > 1 else "no other ranks the same"
        reason = f"of {fits} that can hold it now it comes first: {_order(request, provider)}; {lot}"
    if not provider.suspect_count:
        return reason
    return f"{reason}; suspect: {provider.suspect_count} runs failed on it since a machine last came up there"


def _order(request: ClaimRequest, provider: Provider) -> str:
    if provider.kind is Kind.BARE_METAL:
        return "the one given whole that fits most tightly"
    fullest = "the emptiest" if request.placement is Placement.SPREAD else "the fullest"
    return f"unsuspected before suspect, virtual before bare metal, then {fullest} ({request.placement})"
