"""Claiming and giving back: guarded counters, fences, leases and tombstones.

A claim is one short transaction per candidate, the same on both databases: insert the claim, lock the provider's row
(which draws the fence), look again at the same conditions that found it, move the counters by guarded updates in a
fixed order, write the items, tell the machine where it is. Whatever fails undoes it all. Giving back takes the same
locks in the same order.
"""

from __future__ import annotations

from typing import Any, NoReturn

from sqlalchemy import Connection, case, insert, select, update

from mulligan.activities.errors import Busy, Conflict, InvalidRequest, NeverFits, NotNow, StaleFence
from mulligan.activities.inventory import providers as store
from mulligan.activities.inventory.claims import ClaimRequest, ClaimRow, ClaimState
from mulligan.activities.inventory.database import Database, insert_if_new, now
from mulligan.activities.inventory.explain import explain
from mulligan.activities.inventory.explanation import Explanation, Verdict
from mulligan.activities.inventory.names import no_provider, not_found, require_partition
from mulligan.activities.inventory.search import SEARCHED, Candidate, candidates, capacity, conditions, in_trying_order
from mulligan.activities.inventory.tables import (
    FINAL,
    LIVE_CLAIM,
    claim_items,
    claims,
    inventories,
    machines,
    providers,
)
from mulligan.activities.values import RESOURCES, Claim, Resources

_CANDIDATES = 32
_ROUNDS = 50


class _LostRaceError(Exception):
    """Another claim took the candidate between the search and the lock: undo, and try the next."""


def claim(database: Database, request: ClaimRequest) -> Claim:
    """Find a provider and claim it; see `Inventory.claim`."""
    for _ in range(_ROUNDS):
        with database.read() as connection:
            check(connection, request)
            made = _made(connection, request)
            if made is not None:
                return made
            found = candidates(connection, request, _CANDIDATES)
            explanation = None if found else explain(connection, request)
        if explanation is not None:
            _refuse(explanation)
        for candidate in in_trying_order(found):
            try:
                with database.write() as connection:
                    return _attempt(connection, request, candidate)
            except _LostRaceError:
                continue
    raise Busy(
        f"claim {request.claim_id!r}: lost {_ROUNDS} rounds of races for providers to other claims; "
        "it will be tried again",
        after_seconds=1,
        claim_id=request.claim_id,
    )


def check(connection: Connection, request: ClaimRequest) -> None:
    """Raise `InvalidRequest` or `NotFound` for a request that names or asks for what cannot be."""
    if not request.resources.rows():
        wrong = ("resources", "at least one must be above 0")
        raise InvalidRequest("claim: asks for no resource; give at least one", violations=[wrong])
    if request.lease_seconds < 1:
        wrong = ("lease_seconds", "must be at least 1")
        raise InvalidRequest("claim: needs a lease of at least 1 second", violations=[wrong])
    require_partition(connection, request.partition)
    if request.provider:
        named = select(providers.c.name).where(providers.c.name == request.provider)
        if connection.execute(named).first() is None:
            raise no_provider(connection, request.provider)


def _refuse(explanation: Explanation) -> NoReturn:
    error = NotNow if explanation.verdict is Verdict.NOT_NOW else NeverFits
    counts = {"never": explanation.never_count, "not_now": explanation.not_now_count}
    raise error(explanation.summary, explanation=explanation, **counts)


def _made(connection: Connection, request: ClaimRequest) -> Claim | None:
    """The claim of this id when it was made before, by another attempt of the same request."""
    row = connection.execute(select(claims).where(claims.c.id == request.claim_id)).first()
    if row is None:
        return None
    what = f"claim {request.claim_id!r}"
    if row.state is ClaimState.RELEASED:
        message = f"{what} was released before; whoever asks for it came late and must stop"
        raise StaleFence(message, claim_id=request.claim_id)
    if row.fingerprint != request.fingerprint:
        raise Conflict(
            f"{what} exists for another request: its fingerprint is {row.fingerprint}, asked was "
            f"{request.fingerprint}; claim under another id",
            claim_id=request.claim_id,
            fingerprint=row.fingerprint,
            asked=request.fingerprint,
        )
    if row.state is ClaimState.QUARANTINED:
        message = f"{what} is quarantined: {row.reason}; mend it first: {row.mend}"
        raise Conflict(message, claim_id=request.claim_id)
    return _claim(connection, row)


def _claim(connection: Connection, row: Any) -> Claim:
    provider = store.get(connection, row.provider)
    return Claim(
        id=row.id,
        machine_id=row.machine_id,
        project=row.project,
        machine=row.machine,
        target=provider.target,
        kind=provider.kind,
        resources=_held(connection, [row.id])[row.id],
        fence=row.fence,
        capabilities=provider.capabilities,
    )


def _attempt(connection: Connection, request: ClaimRequest, candidate: Candidate) -> Claim:
    """Claim the candidate in the given transaction, or raise `_LostRaceError` to undo it."""
    if not insert_if_new(connection, claims, _row(request, candidate)):
        made = _made(connection, request)
        if made is None:
            raise _LostRaceError
        return made
    fence = _lock(connection, request, candidate)
    taken = _take_whole(connection, candidate) if candidate.whole else _take_slice(connection, request, candidate)
    mine = claims.c.id == request.claim_id
    connection.execute(update(claims).where(mine).values(fence=fence))
    items = [{"claim_id": request.claim_id, "resource": name, "amount": amount} for name, amount in taken]
    connection.execute(insert(claim_items), items)
    _tell_machine(connection, request, candidate)
    return _claim(connection, connection.execute(select(claims).where(mine)).one())


def _tell_machine(connection: Connection, request: ClaimRequest, candidate: Candidate) -> None:
    """Say where the machine is. One that is no more, because its run was given up meanwhile, gets no claim."""
    mine = update(machines).where(machines.c.id == request.machine_id)
    told = mine.values(provider=candidate.name, claim_id=request.claim_id).returning(machines.c.state)
    state = connection.execute(told).scalar()
    if state in FINAL:
        message = f"claim {request.claim_id!r}: its machine is {state}; whoever asks for it came late and must stop"
        raise StaleFence(message, claim_id=request.claim_id, machine_id=request.machine_id, state=state)


def _row(request: ClaimRequest, candidate: Candidate) -> dict[str, Any]:
    return {
        "id": request.claim_id,
        "machine_id": request.machine_id,
        "project": request.project,
        "machine": request.machine,
        "run_id": request.run_id,
        "partition": request.partition,
        "provider": candidate.name,
        "whole": candidate.whole,
        "fence": 0,
        "state": ClaimState.HELD,
        "lease_expires_at": now(request.lease_seconds),
        "fingerprint": request.fingerprint,
        "reason": "",
        "mend": "",
        "created_at": now(),
    }


def _lock(connection: Connection, request: ClaimRequest, candidate: Candidate) -> int:
    """Lock the provider and draw the fence, then decide anew: others may have changed it since the search."""
    mine = providers.c.name == candidate.name
    draw = update(providers).where(mine).values(claim_seq=providers.c.claim_seq + 1)
    fence: int = connection.execute(draw.returning(providers.c.claim_seq)).scalar_one()
    holds = [condition.holds for condition in conditions(request)]
    if connection.execute(select(providers.c.name).select_from(SEARCHED).where(mine, *holds)).first() is None:
        raise _LostRaceError
    return fence


def _take_slice(connection: Connection, request: ClaimRequest, candidate: Candidate) -> list[tuple[str, int]]:
    for resource, amount in request.resources.rows():
        row = (inventories.c.provider == candidate.name) & (inventories.c.resource == resource)
        guarded = update(inventories).where(row, inventories.c.used + amount <= capacity())
        if connection.execute(guarded.values(used=inventories.c.used + amount)).rowcount != 1:
            raise _LostRaceError
    return list(request.resources.rows())


def _take_whole(connection: Connection, candidate: Candidate) -> list[tuple[str, int]]:
    rows = connection.execute(
        select(inventories.c.resource, capacity().label("capacity")).where(inventories.c.provider == candidate.name)
    )
    amounts = {row.resource: row.capacity for row in rows if row.capacity > 0}
    taken = [(name, amounts[name]) for name in RESOURCES if name in amounts]
    for resource, amount in taken:
        row = (inventories.c.provider == candidate.name) & (inventories.c.resource == resource)
        guarded = update(inventories).where(row, inventories.c.used == 0)
        if connection.execute(guarded.values(used=amount)).rowcount != 1:
            raise _LostRaceError
    return taken


def release(connection: Connection, claim_id: str, dirty: bool) -> None:
    """Give back what the claim holds, exactly once, and leave a tombstone; see `Inventory.release_claim`."""
    if insert_if_new(connection, claims, _tombstone(claim_id)):
        return
    done = update(claims).where(claims.c.id == claim_id, LIVE_CLAIM)
    done = done.values(state=ClaimState.RELEASED, released_at=now(), lease_expires_at=None)
    row = connection.execute(done.returning(claims.c.provider)).first()
    if row is None:
        return
    store.lock(connection, row.provider)
    if dirty:
        store.change(connection, row.provider, {"dirty": True})
    items = select(claim_items.c.resource, claim_items.c.amount).where(claim_items.c.claim_id == claim_id)
    amounts: dict[str, int] = {item.resource: item.amount for item in connection.execute(items)}
    for resource in (name for name in RESOURCES if name in amounts):
        used, amount = inventories.c.used, amounts[resource]
        mine = (inventories.c.provider == row.provider) & (inventories.c.resource == resource)
        # Only a counter that drifted is below the amount; the audit shows it, and the machine must go all the same.
        given = update(inventories).where(mine).values(used=case((used >= amount, used - amount), else_=0))
        connection.execute(given)


def _tombstone(claim_id: str) -> dict[str, Any]:
    unknown = dict.fromkeys(("machine_id", "project", "machine", "run_id", "partition", "fingerprint"), "")
    state = {"state": ClaimState.RELEASED, "reason": "", "mend": "", "whole": False, "fence": 0}
    return {"id": claim_id, "created_at": now(), "released_at": now(), **unknown, **state}


def extend(connection: Connection, claim_id: str, seconds: int) -> ClaimRow:
    """Make the lease end no sooner than so many seconds from now; see `Inventory.extend_lease`."""
    later = case((claims.c.lease_expires_at > now(seconds), claims.c.lease_expires_at), else_=now(seconds))
    mine = (claims.c.id == claim_id) & (claims.c.state == ClaimState.HELD)
    connection.execute(update(claims).where(mine).values(lease_expires_at=later))
    return _live(connection, claim_id)


def make_permanent(connection: Connection, claim_id: str) -> ClaimRow:
    """End the lease for good; see `Inventory.make_permanent`."""
    mine = (claims.c.id == claim_id) & (claims.c.state == ClaimState.HELD)
    values = {"state": ClaimState.PERMANENT, "lease_expires_at": None}
    connection.execute(update(claims).where(mine).values(values))
    row = _live(connection, claim_id)
    if row.state is not ClaimState.PERMANENT:
        raise Conflict(f"claim {claim_id!r} is quarantined: {row.reason}; mend it first: {row.mend}")
    return row


def quarantine(connection: Connection, claim_id: str, reason: str, mend: str) -> ClaimRow:
    """Keep what it holds out of service until someone mends it; see `Inventory.quarantine_claim`."""
    values = {"state": ClaimState.QUARANTINED, "lease_expires_at": None, "reason": reason, "mend": mend}
    connection.execute(update(claims).where(claims.c.id == claim_id, LIVE_CLAIM).values(values))
    return _live(connection, claim_id)


def _live(connection: Connection, claim_id: str) -> ClaimRow:
    row = get(connection, claim_id)
    if row.state is ClaimState.RELEASED:
        message = f"claim {claim_id!r} was released; whoever still acts for it must stop"
        raise StaleFence(message, claim_id=claim_id)
    return row


def get(connection: Connection, claim_id: str) -> ClaimRow:
    """The claim, live or released, or `NotFound`."""
    found = _rows(connection, claims.c.id == claim_id)
    if not found:
        raise not_found(connection, "claim", claim_id, claims.c.id, LIVE_CLAIM)
    return found[0]


def live_of(connection: Connection, machine_id: str) -> ClaimRow | None:
    """The newest claim that holds something for the machine, or None."""
    rows = _rows(connection, claims.c.machine_id == machine_id, LIVE_CLAIM)
    return rows[-1] if rows else None


def listed(connection: Connection, partition: str, project: str, state: str) -> list[ClaimRow]:
    """Claims in the order in which they were made; without a state, those that hold something."""
    if state and state not in set(ClaimState):
        allowed = ", ".join(ClaimState)
        wrong = ("state", f"must be one of {allowed}")
        raise InvalidRequest(f"claims: no state {state!r}; use one of {allowed}", violations=[wrong])
    where = [claims.c.state == state if state else LIVE_CLAIM]
    if partition:
        where.append(claims.c.partition == partition)
    if project:
        where.append(claims.c.project == project)
    return _rows(connection, *where)


def expired(connection: Connection, limit: int) -> list[ClaimRow]:
    """Claims whose lease has passed, by the database's clock, the longest passed first."""
    passed = (claims.c.state == ClaimState.HELD) & (claims.c.lease_expires_at <= now())
    return _rows(connection, passed, order=claims.c.lease_expires_at, limit=limit)


def _rows(
    connection: Connection, *where: Any, order: Any = claims.c.created_at, limit: int | None = None
) -> list[ClaimRow]:
    chosen = select(claims).where(*where).order_by(order, claims.c.id).limit(limit)
    rows = connection.execute(chosen).all()
    held = _held(connection, [row.id for row in rows])
    return [
        ClaimRow(
            id=row.id,
            machine_id=row.machine_id,
            project=row.project,
            machine=row.machine,
            partition=row.partition,
            provider=row.provider or "",
            resources=held[row.id],
            fence=row.fence,
            state=row.state,
            lease_expires_at=row.lease_expires_at,
            run_id=row.run_id,
            reason=row.reason,
            mend=row.mend,
            created_at=row.created_at,
        )
        for row in rows
    ]


def _held(connection: Connection, claim_ids: list[str]) -> dict[str, Resources]:
    amounts: dict[str, dict[str, int]] = {claim_id: dict.fromkeys(RESOURCES, 0) for claim_id in claim_ids}
    for start in range(0, len(claim_ids), 1000):
        some = claim_items.c.claim_id.in_(claim_ids[start : start + 1000])
        for item in connection.execute(select(claim_items).where(some)):
            amounts[item.claim_id][item.resource] = item.amount
    return {claim_id: Resources(**each) for claim_id, each in amounts.items()}
