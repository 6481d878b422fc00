"""Lays out a seeded fleet of simulated hosts: the same arguments give the same fleet, on every machine."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass

from mulligan.activities.drivers.simulated.personalities import Personality
from mulligan.activities.drivers.simulated.settings import HostSettings
from mulligan.activities.errors import InvalidRequest
from mulligan.activities.values import Kind, Resources

MODELS = (
    Resources(vcpu=8, memory_mib=16384, disk_gib=200),
    Resources(vcpu=16, memory_mib=65536, disk_gib=800),
    Resources(vcpu=32, memory_mib=131072, disk_gib=1600),
    Resources(vcpu=64, memory_mib=262144, disk_gib=3200),
)
"""The sizes that hosts of a fleet come in."""


@dataclass(frozen=True, slots=True)
class FleetHost:
    """One host of a fleet: a name to register it under, and its address."""

    name: str
    url: str


def fleet(
    name: str,
    *,
    size: int,
    seed: int = 1,
    speed: float = 1.0,
    personalities: Mapping[str, float] | None = None,
    bare_metal: float = 0.0,
    resources: Resources | None = None,
) -> list[FleetHost]:
    """Lay out `size` hosts named `<name>-001` and so on.

    `personalities` gives each personality's share of the hosts (0 to 1, rounded to whole hosts; a host may get
    several), `bare_metal` the share of whole servers; the others are hypervisors. Sizes are drawn from `MODELS` unless
    `resources` fixes them. Raises `InvalidRequest` for an unknown personality, or a size or share out of range.
    """
    shares = {**(personalities or {}), "bare_metal": bare_metal}
    wrong = [(key, f"{share} is not a share from 0 to 1") for key, share in shares.items() if not 0 <= share <= 1]
    known = {personality.value for personality in Personality} | {"bare_metal"}
    wrong += [(key, "is not a known personality") for key in shares if key not in known]
    if size < 1:
        wrong.append(("size", f"{size} is less than one host"))
    if wrong:
        found = "; ".join(f"{key}: {what}" for key, what in wrong)
        raise InvalidRequest(f"the simulated fleet {name!r} cannot be laid out: {found}", violations=wrong)
    chosen = {key: _choose(f"{name}/{seed}/{key}", size, share) for key, share in shares.items()}
    digits = max(3, len(str(size)))
    return [
        FleetHost(settings.host, settings.url())
        for settings in (
            HostSettings(
                fleet=name,
                host=f"{name}-{number + 1:0{digits}d}",
                kind=Kind.BARE_METAL if number in chosen["bare_metal"] else Kind.VIRTUAL,
                resources=resources or random.Random(f"{name}/{seed}/model/{number}").choice(MODELS),
                seed=seed,
                speed=speed,
                personalities=frozenset(p for p in Personality if number in chosen.get(p.value, ())),
            )
            for number in range(size)
        )
    ]


def _choose(seed: str, size: int, share: float) -> frozenset[int]:
    return frozenset(random.Random(seed).sample(range(size), round(size * share)))
