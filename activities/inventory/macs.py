"""Whose network card it is: the boot server tells servers by their MACs, so no two providers may have the same one.

Else a server could boot, and erase its disks, in place of another. Removed providers have none.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from sqlalchemy import Connection, Text, select, text, type_coerce

from mulligan.activities.cards import distinctive, is_local
from mulligan.activities.errors import Conflict
from mulligan.activities.inventory.tables import providers
from mulligan.activities.values import Kind, Provider

_TURN = 0x6D756C6C_0003
"""The key of the lock on PostgreSQL under which MACs are given out; SQLite lets one writer in anyway."""
_SETTINGS = ("macs", "agent_mac")
_MAC = re.compile(r"(?<![0-9a-f:])[0-9a-f]{2}(?::[0-9a-f]{2}){5}(?![0-9a-f:])")
_NOBODYS = frozenset({"00:00:00:00:00:00", "ff:ff:ff:ff:ff:ff"})


def take_turn(connection: Connection) -> None:
    """Wait until nobody else gives out MACs; to be called before any provider is locked."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _TURN})


def macs_of(settings: Mapping[str, str], facts: Mapping[str, str]) -> frozenset[str]:
    """The MACs of a server, in lower case with colons: those in its settings, and those that its BMC told of.

    Of what the BMC told only what a maker gave out, and so of the settings where they have such, for an inspection may
    have set them.
    """
    said = distinctive(_found(" ".join(settings.get(name, "") for name in _SETTINGS)))
    told = {mac for mac in _found(facts.get("nics", "")) if not is_local(mac)}
    return frozenset({*said, *told}) - _NOBODYS


def require_own(connection: Connection, provider: Provider) -> None:
    """Raise `Conflict` when a network card of the provider belongs to another one. The caller has taken its turn."""
    macs = macs_of(provider.settings, provider.facts)
    if provider.kind is not Kind.BARE_METAL or not macs:
        return
    spelt = [type_coerce(column, Text) for column in (providers.c.settings, providers.c.facts)]
    others = select(providers.c.name, *spelt).where(
        providers.c.kind == Kind.BARE_METAL, providers.c.name != provider.name
    )
    near = [row.name for row in connection.execute(others) if not macs.isdisjoint(_found(" ".join(row[1:])))]
    columns = select(providers.c.name, providers.c.partition, providers.c.settings, providers.c.facts)
    for row in connection.execute(columns.where(providers.c.name.in_(near)).order_by(providers.c.name)):
        if shared := macs & macs_of(row.settings, row.facts):
            raise _belongs(provider.name, row.name, row.partition, sorted(shared))


def _found(said: str) -> set[str]:
    """Every MAC in a text."""
    return set(_MAC.findall(said.lower().replace("-", ":")))


def _belongs(provider: str, other: str, partition: str, macs: list[str]) -> Conflict:
    cards = ", ".join(macs)
    return Conflict(
        f"provider {provider!r} would have the network card {cards}, which belongs to provider {other!r} (partition "
        f"{partition}): the boot server tells servers by their network cards, and would erase one in place of the "
        f"other. If both are the same server, keep one of them (`mulligan provider remove {other}`); else say by "
        "which network cards each boots, with --set macs=MAC[,MAC...]",
        provider=provider,
        other=other,
        macs=",".join(macs),
    )
