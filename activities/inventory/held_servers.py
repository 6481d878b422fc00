"""A server that is held stays the one that it is: its BMC's address may lead to another one, which would be erased."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sqlalchemy import Connection, select

from mulligan.activities.errors import Conflict
from mulligan.activities.inventory.tables import LIVE_CLAIM, claims
from mulligan.activities.serials import other_uuid, plain_serial, telling_uuid
from mulligan.activities.values import Identity, Kind, Provider

_TELLS: Mapping[str, Callable[[object], object]] = {"serial": plain_serial, "uuid": telling_uuid}
"""By what a server is told from others, in its facts and its settings: what each gives is empty where it tells none."""


def still_itself(connection: Connection, known: Provider, told: Mapping[str, Any]) -> dict[str, Any]:
    """The columns that are told of a provider now, which the caller has locked. While a machine holds something of a
    server they keep by what it is known where that is not told now, as by BMCs that restart, and raise `Conflict` where
    another server is told of."""
    holder = _holder(connection, known)
    if holder is None:
        return dict(told)
    was = Identity.of(known.kind, known.url, known.facts)
    differs = _differs(was, Identity.of(known.kind, known.url, told["facts"]))
    if not differs:
        facts, settings = _kept(known.facts, told["facts"]), _kept(known.settings, told["settings"])
        return {**told, "facts": facts, "settings": settings}
    raise _stays(
        known,
        holder,
        f"behind {known.url} is another server now: {differs}",
        "See where the BMC's address leads (DHCP, a swapped cable), and add it again",
    )


def require_chosen(connection: Connection, known: Provider, settings: Mapping[str, str]) -> None:
    """Raise `Conflict` where these settings would choose another of the systems behind its BMC than the one that a
    machine holds. The caller has locked the provider."""
    was, now = (plain_serial(each.get("serial")) for each in (known.settings, settings))
    if was == now or (now and now == plain_serial(known.facts.get("serial"))):
        return
    if (holder := _holder(connection, known)) is not None:
        theirs, ours = (each.get("serial", "") or "(none)" for each in (settings, known.settings))
        raise _stays(known, holder, f"serial={theirs} in place of {ours} may choose another server", "Leave it so")


def _holder(connection: Connection, known: Provider) -> tuple[str, str] | None:
    """The project and the name of the machine that holds a server; None for what is no server."""
    chosen = select(claims.c.project, claims.c.machine).where(claims.c.provider == known.name, LIVE_CLAIM)
    found = connection.execute(chosen.order_by(claims.c.project, claims.c.machine).limit(1)).first()
    return (found.project, found.machine) if found is not None and known.kind is Kind.BARE_METAL else None


def _stays(known: Provider, holder: tuple[str, str], why: str, instead: str) -> Conflict:
    project, machine = holder
    release = f"mulligan machine release {machine} --project {project}"
    return Conflict(
        f"provider {known.name!r}: {why}; while {machine} (project {project}) holds it, it stays the one that it was, "
        f"or the other one would be erased in its place. {instead}; if the server, or its board, was replaced, end "
        f"what holds it first: `{release}` (with `--forget` where that ends quarantined)",
        provider=known.name,
        machine=f"{project}/{machine}",
    )


def _kept(was: Mapping[str, str], told: Mapping[str, str]) -> dict[str, str]:
    """What is told, and what was known by which the server is told from others where that is not told."""
    lost = [name for name, tells in _TELLS.items() if tells(was.get(name)) and not tells(told.get(name))]
    return {**told, **{name: was[name] for name in lost}}


def _differs(was: Identity, found: Identity) -> str:
    """Both of what tells them apart; empty where they are not known to be two. The UUID decides where both have one,
    else the serial number, else what the BMC calls a GUID over IPMI: new firmware may tell another one."""
    if (two := other_uuid(was.uuid, found.uuid)) is not None:
        return f"its UUID is {found.uuid}, and was {was.uuid}" if two else ""
    numbers = plain_serial(was.serial), plain_serial(found.serial)
    if all(numbers):
        return f"its serial number is {found.serial}, and was {was.serial}" if len({*numbers}) > 1 else ""
    return f"its BMC's GUID is {found.guid}, and was {was.guid}" if other_uuid(was.guid, found.guid) else ""
