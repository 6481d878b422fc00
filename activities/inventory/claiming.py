"""Claiming and giving back: guarded counters, fences, leases and tombstones.

A claim is a search on one snapshot and then, for each candidate until one succeeds, the short transaction of `taking`.
Giving back takes the same locks in the same order: provider, claim, inventory rows.
"""

from __future__ import annotations

from typing import Any, NoReturn

from sqlalchemy import Connection, Update, bindparam, case, func, select, update

from mulligan.activities.errors import Busy, Conflict, InvalidRequest, NeverFits, NotNow, StaleFence
from mulligan.activities.inventory import providers as store
from mulligan.activities.inventory import room
from mulligan.activities.inventory.claims import ClaimRequest, ClaimRow, ClaimState
from mulligan.activities.inventory.database import Database, insert_if_new, now
from mulligan.activities.inventory.explain import explain
from mulligan.activities.inventory.explanation import Explanation, Verdict
from mulligan.activities.inventory.names import no_provider, not_found, require_partition
from mulligan.activities.inventory.search import candidates, in_trying_order
from mulligan.activities.inventory.tables import (
    LIVE_CLAIM,
    NOT_FINAL,
    claim_items,
    claims,
    inventories,
    machines,
    providers,
)
from mulligan.activities.inventory.taking import LostRaceError, TakenBeforeError, take
from mulligan.activities.values import RESOURCES, Claim, MachineState, Resources

_CANDIDATES = 32
_ROUNDS = 50
_MADE = select(claims).where(claims.c.id == bindparam("claim_id"))


def claim(database: Database, request: ClaimRequest) -> Claim:
    """Find a provider and claim it; see `Inventory.claim`."""
    _check_amounts(request)
    for _ in range(_ROUNDS):
        with database.read() as connection:
            made = _made(connection, request)
            if made is not None:
                return made
            found = candidates(connection, request, _CANDIDATES)
            explanation = None if found else _explained(connection, request)
        if explanation is not None:
            _refuse(explanation)
        for candidate in in_trying_order(found):
            try:
                with database.write() as connection:
                    return take(connection, request, candidate)
            except LostRaceError:
                continue
            except TakenBeforeError:
                break
    raise Busy(
        f"claim {request.claim_id!r}: lost {_ROUNDS} rounds of races for providers to other claims; "
        "it will be tried again",
        after_seconds=1,
        claim_id=request.claim_id,
    )


def check(connection: Connection, request: ClaimRequest) -> None:
    """Raise `InvalidRequest` or `NotFound` for a request that names or asks for what cannot be."""
    _check_amounts(request)
    require_partition(connection, request.partition)
    if request.provider:
        named = select(providers.c.name).where(providers.c.name == request.provider)
        if connection.execute(named).first() is None:
            raise no_provider(connection, request.provider)


def _check_amounts(request: ClaimRequest) -> None:
    if not request.resources.rows():
        wrong = ("resources", "at least one must be above 0")
        raise InvalidRequest("claim: asks for no resource; give at least one", violations=[wrong])
    if request.lease_seconds < 1:
        wrong = ("lease_seconds", "must be at least 1")
        raise InvalidRequest("claim: needs a lease of at least 1 second", violations=[wrong])


def _explained(connection: Connection, request: ClaimRequest) -> Explanation:
    """Why nothing was found; a name that does not exist is told first."""
    check(connection, request)
    return explain(connection, request)


def _refuse(explanation: Explanation) -> NoReturn:
    error = NotNow if explanation.verdict is Verdict.NOT_NOW else NeverFits
    counts = {"never": explanation.never_count, "not_now": explanation.not_now_count}
    raise error(explanation.summary, explanation=explanation, **counts)


def _made(connection: Connection, request: ClaimRequest) -> Claim | None:
    """The claim of this id when it was made before, by another attempt of the same request."""
    row = connection.execute(_MADE, {"claim_id": request.claim_id}).first()
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


def release(connection: Connection, claim_id: str, dirty: bool) -> bool:
    """Give back what the claim holds, exactly once, and leave a tombstone; see `Inventory.release_claim`.

    Returns whether it held something until now.
    """
    if insert_if_new(connection, claims, _tombstone(claim_id)):
        return False
    mine = {"released_id": claim_id}
    provider = connection.execute(_LOCK_HOLDER, mine).scalar()
    if provider is None or connection.execute(_RELEASE, mine).rowcount == 0:
        return False
    if dirty:
        store.change(connection, provider, {"dirty": True})
    connection.execute(_GIVE_BACK, {**mine, "its_provider": provider})
    room.note(connection, provider)
    return True


_RELEASED = (claims.c.id == bindparam("released_id")) & LIVE_CLAIM
_LOCK_HOLDER = (
    select(providers.c.name)
    .join(claims, claims.c.provider == providers.c.name)
    .where(_RELEASED)
    .with_for_update(of=providers)
)
_RELEASE = update(claims).where(_RELEASED)
_RELEASE = _RELEASE.values(state=ClaimState.RELEASED, released_at=now(), lease_expires_at=None)


def _giving_back() -> Update:
    """Lower the counters by what the claim held.

    Only a counter that drifted is below the amount; the audit shows it, and the machine must go all the same.
    """
    given = claim_items.c.claim_id == bindparam("released_id"), claim_items.c.resource == inventories.c.resource
    amount = func.coalesce(select(claim_items.c.amount).where(*given).scalar_subquery(), 0)
    rest = case((inventories.c.used >= amount, inventories.c.used - amount), else_=0)
    return update(inventories).where(inventories.c.provider == bindparam("its_provider")).values(used=rest)


_GIVE_BACK = _giving_back()


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


def lease_again(connection: Connection, claim_id: str, seconds: int) -> Claim:
    """Give a claim that needed none a lease; see `Inventory.lease_again`."""
    machine = select(machines.c.state).join(claims, claims.c.machine_id == machines.c.id)
    state = connection.execute(machine.where(claims.c.id == claim_id).with_for_update(of=machines)).scalar()
    if state is MachineState.READY:
        raise Conflict(f"claim {claim_id!r} is of a machine in service, and needs no lease", claim_id=claim_id)
    mine = (claims.c.id == claim_id) & (claims.c.state == ClaimState.PERMANENT)
    values = {"state": ClaimState.HELD, "lease_expires_at": now(seconds)}
    connection.execute(update(claims).where(mine).values(values))
    _live(connection, claim_id)
    return _claim(connection, connection.execute(select(claims).where(claims.c.id == claim_id)).one())


def quarantine(connection: Connection, claim_id: str, reason: str, mend: str) -> ClaimRow:
    """Keep what it holds, and its machine, out of service until someone mends it; see `Inventory.quarantine_claim`."""
    of = select(claims.c.machine_id).where(claims.c.id == claim_id, LIVE_CLAIM).scalar_subquery()
    told = {"state": MachineState.QUARANTINED, "reason": reason}  # first: `lease_again` locks in this order too
    connection.execute(update(machines).where(machines.c.id == of, NOT_FINAL).values(told))
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
