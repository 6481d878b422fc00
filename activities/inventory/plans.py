"""Plans by the hash that applies them, kept for a day."""

from __future__ import annotations

from sqlalchemy import Connection, delete, select, update

from mulligan.activities.errors import NotFound
from mulligan.activities.inventory.claims import ClaimRequest
from mulligan.activities.inventory.database import insert_if_new, now
from mulligan.activities.inventory.explain import explain
from mulligan.activities.inventory.explanation import Choice
from mulligan.activities.inventory.providers import get as get_provider
from mulligan.activities.inventory.search import candidates
from mulligan.activities.inventory.tables import plans
from mulligan.activities.planning import Plan

KEPT_SECONDS = 86_400


def choose(connection: Connection, request: ClaimRequest) -> Choice:
    """What a claim would take now, and why; see `Inventory.choose`."""
    explanation = explain(connection, request)
    found = candidates(connection, request, max(1, explanation.fits_count))
    if not found:
        return Choice(explanation)
    ranks = [(each.suspect_count, each.whole, each.rank) for each in found]
    return Choice(explanation, get_provider(connection, found[0].name), ranks.count(ranks[0]))


def keep(connection: Connection, plan: Plan) -> None:
    """Keep a plan that can be applied; the same plan again is kept longer. Old ones go."""
    connection.execute(delete(plans).where(plans.c.made_at < now(-KEPT_SECONDS)))
    row = {
        "hash": plan.hash,
        "project": plan.request.project,
        "machine": plan.request.name,
        "plan": plan,
        "made_at": now(),
    }
    if not insert_if_new(connection, plans, row):
        connection.execute(update(plans).where(plans.c.hash == plan.hash).values(row))


def get(connection: Connection, plan_hash: str) -> Plan:
    """The plan of this hash, or `NotFound`."""
    kept = (plans.c.hash == plan_hash) & (plans.c.made_at >= now(-KEPT_SECONDS))
    found: Plan | None = connection.execute(select(plans.c.plan).where(kept)).scalar()
    if found is None:
        raise NotFound(
            f"no plan {plan_hash[:80]!r}: plans are kept for a day; plan again with `mulligan machine plan`",
            what="plan",
            name=plan_hash[:80],
        )
    return found
