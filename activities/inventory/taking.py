"""The transaction that makes a claim on one candidate.

Its statements are the same on both databases, and made once for all requests that are alike but for their values:

1. take the room at the provider: one update, guarded by the same conditions that found it, which locks the provider's
   row and draws the fence. What others changed since the search makes it miss;
2. insert the claim, unless one of its id is there, also one that another transaction is just committing;
3. move the counters of the inventory rows, guarded too: they have the last word;
4. write what is held, and tell the machine where it is.

Whatever fails undoes it all.
"""

from __future__ import annotations

from functools import cache, lru_cache
from typing import Any

from sqlalchemy import BigInteger, Connection, Update, bindparam, case, insert, select, update
from sqlalchemy.dialects.postgresql import Insert

from mulligan.activities.errors import StaleFence
from mulligan.activities.inventory.claims import ClaimRequest, ClaimState
from mulligan.activities.inventory.database import inserting, now
from mulligan.activities.inventory.room import CAPACITY, FREE, capacity, slices_left
from mulligan.activities.inventory.search import SHAPES, Candidate, asked, conditions, parameters, shape
from mulligan.activities.inventory.tables import (
    FINAL,
    claim_items,
    claims,
    inventories,
    machines,
    provider_capabilities,
    providers,
)
from mulligan.activities.values import RESOURCES, Claim, Identity, Resources, Target


class LostRaceError(Exception):
    """Another claim took the candidate between the search and now: undo, and try the next."""


class TakenBeforeError(Exception):
    """A claim of this id came to be between the look for it and now: undo, and look again."""


def take(connection: Connection, request: ClaimRequest, candidate: Candidate) -> Claim:
    """Claim the candidate in the given transaction, or raise `LostRaceError` or `TakenBeforeError` to undo it."""
    values = {**parameters(request), "candidate": candidate.name}
    provider = connection.execute(_taking(shape(request), candidate.whole), values).first()
    if provider is None:
        raise LostRaceError
    held = _held(request, candidate, provider)
    row = _row(request, candidate, provider.claim_seq)
    if connection.execute(_claiming(connection.dialect.name), row).first() is None:
        raise TakenBeforeError
    counted = {"candidate": candidate.name, **{asked(name).key: getattr(held, name) for name in RESOURCES}}
    if connection.execute(_COUNTING[candidate.whole], counted).rowcount != len(held.rows()):
        raise LostRaceError
    items = [{"claim_id": request.claim_id, "resource": name, "amount": amount} for name, amount in held.rows()]
    connection.execute(_ITEMS, items)
    _tell_machine(connection, request, candidate)
    return Claim(
        id=request.claim_id,
        machine_id=request.machine_id,
        project=request.project,
        machine=request.machine,
        target=_target(provider),
        kind=provider.kind,
        resources=held,
        fence=provider.claim_seq,
        capabilities=tuple(connection.execute(_CAPABILITIES, {"candidate": candidate.name}).scalars()),
    )


def _target(provider: Any) -> Target:
    who = Identity.of(provider.kind, provider.url, provider.facts)
    return Target(provider.name, provider.partition, provider.url, provider.settings, provider.credential, who)


def _held(request: ClaimRequest, candidate: Candidate, provider: Any) -> Resources:
    if not candidate.whole:
        return request.resources
    return Resources(**{resource: getattr(provider, CAPACITY[resource].name) for resource in RESOURCES})


@lru_cache(maxsize=SHAPES)
def _taking(request: ClaimRequest, whole: bool) -> Update:
    """Take the room, for every request of this shape; misses when a condition does not hold any more."""
    holds = [condition.holds for condition in conditions(request)]
    taken = {resource: asked(resource) for resource, _ in request.resources.rows()}
    values: dict[Any, Any] = {providers.c.claim_seq: providers.c.claim_seq + 1}
    if whole:
        values |= dict.fromkeys(FREE.values(), 0)
    else:
        values |= {FREE[resource]: FREE[resource] - amount for resource, amount in taken.items()}
        values |= {providers.c.fill_rank: slices_left(taken)}
    mine = update(providers).where(providers.c.name == bindparam("candidate"), *holds).values(values)
    return mine.returning(*(providers.c[name] for name in _TOLD), *CAPACITY.values())


_TOLD = ("claim_seq", "name", "partition", "kind", "url", "settings", "credential", "facts")


_CAPABILITIES = (
    select(provider_capabilities.c.capability)
    .where(provider_capabilities.c.provider == bindparam("candidate"))
    .order_by(provider_capabilities.c.capability)
)


@cache
def _claiming(dialect: str) -> Insert:
    lease = now(bindparam("lease_seconds", type_=BigInteger()))
    return inserting(dialect, claims).values(created_at=now(), lease_expires_at=lease)


def _row(request: ClaimRequest, candidate: Candidate, fence: int) -> dict[str, Any]:
    return {
        "id": request.claim_id,
        "machine_id": request.machine_id,
        "project": request.project,
        "machine": request.machine,
        "run_id": request.run_id,
        "partition": request.partition,
        "provider": candidate.name,
        "whole": candidate.whole,
        "fence": fence,
        "state": ClaimState.HELD,
        "lease_seconds": request.lease_seconds,
        "fingerprint": request.fingerprint,
        "reason": "",
        "mend": "",
    }


def _counting(whole: bool) -> Update:
    """Move the counters of what is asked for."""
    amount = case({resource: asked(resource) for resource in RESOURCES}, value=inventories.c.resource, else_=0)
    mine = update(inventories).where(inventories.c.provider == bindparam("candidate"), amount > 0)
    if whole:
        return mine.where(inventories.c.used == 0).values(used=amount)
    return mine.where(inventories.c.used + amount <= capacity()).values(used=inventories.c.used + amount)


_COUNTING = {whole: _counting(whole) for whole in (True, False)}
_ITEMS = insert(claim_items)
_TELLING = (
    update(machines)
    .where(machines.c.id == bindparam("told_machine"))
    .values(provider=bindparam("told_provider"), claim_id=bindparam("told_claim"))
    .returning(machines.c.state)
)


def _tell_machine(connection: Connection, request: ClaimRequest, candidate: Candidate) -> None:
    """Say where the machine is. One that is no more, because its run was given up meanwhile, gets no claim."""
    values = {"told_machine": request.machine_id, "told_provider": candidate.name, "told_claim": request.claim_id}
    state = connection.execute(_TELLING, values).scalar()
    if state in FINAL:
        message = f"claim {request.claim_id!r}: its machine is {state}; whoever asks for it came late and must stop"
        raise StaleFence(message, claim_id=request.claim_id, machine_id=request.machine_id, state=state)
