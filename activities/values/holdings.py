"""What there is and what is held: providers, their inventory, claims, and the mark of a claim on what it made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from mulligan.activities.values.choices import Kind
from mulligan.activities.values.requests import Resources


@dataclass(frozen=True, slots=True)
class Identity:
    """By what a server is told from others, as its BMC says; empty where that is not known."""

    serial: str = ""
    """The system's serial number. What makers write in its place is not sorted out here."""
    uuid: str = ""
    """That of the system's SMBIOS."""
    guid: str = ""
    """What its BMC calls the system's GUID over IPMI, which need not be that of the SMBIOS: it tells one BMC from
    another."""

    @classmethod
    def of(cls, kind: Kind, url: str, facts: Mapping[str, str]) -> Identity:
        """Of a provider with these facts."""
        if kind is not Kind.BARE_METAL:
            return cls()
        serial, uuid = facts.get("serial", ""), facts.get("uuid", "")
        return cls(serial, guid=uuid) if url.startswith("ipmi") else cls(serial, uuid)


@dataclass(frozen=True, slots=True)
class Target:
    """Which provider a driver shall speak to. `settings` are the driver's own, e.g. accelerator, pool, network."""

    name: str
    partition: str
    url: str
    settings: Mapping[str, str] = field(default_factory=dict)
    credential: str = ""
    """A reference to a credential, never the credential."""
    identity: Identity = field(default_factory=Identity)
    """Which server it is; of those only."""


@dataclass(frozen=True, slots=True)
class InventoryRow:
    """One resource of one provider. What may be claimed is floor((total - reserved) * overcommit_percent / 100)."""

    resource: str
    total: int
    reserved: int = 0
    overcommit_percent: int = 100
    used: int = 0

    @property
    def capacity(self) -> int:
        """How much may be claimed in all."""
        return (self.total - self.reserved) * self.overcommit_percent // 100


@dataclass(frozen=True, slots=True)
class Inspection:
    """What a driver found when it looked at a provider."""

    kind: Kind
    inventory: tuple[InventoryRow, ...]
    capabilities: tuple[str, ...]
    settings: Mapping[str, str] = field(default_factory=dict)
    """Settings that the inspection decided, e.g. the accelerator that was proved to work."""
    facts: Mapping[str, str] = field(default_factory=dict)
    """For people: model, versions, what was measured."""
    fence: int = 0
    """The newest claim that the driver knows to have acted on it, maybe of a provider that is removed; 0 for none."""


@dataclass(frozen=True, slots=True)
class Provider:
    """What has resources to give, as the inventory knows it."""

    name: str
    partition: str
    kind: Kind
    url: str
    settings: Mapping[str, str]
    credential: str
    capabilities: tuple[str, ...]
    inventory: tuple[InventoryRow, ...]
    generation: int
    enabled: bool = True
    dirty: bool = False
    suspect_count: int = 0
    quarantined: str = ""
    """Why it is out of service; empty when it is not."""
    facts: Mapping[str, str] = field(default_factory=dict)

    @property
    def target(self) -> Target:
        """What a driver needs to reach it."""
        who = Identity.of(self.kind, self.url, self.facts)
        return Target(self.name, self.partition, self.url, self.settings, self.credential, who)


@dataclass(frozen=True, slots=True)
class Claim:
    """One machine's exclusive hold on resources of exactly one provider."""

    id: str
    machine_id: str
    project: str
    machine: str
    target: Target
    kind: Kind
    resources: Resources
    """What is held: for a provider given whole, all that it has."""
    fence: int
    """Grows with every claim on the provider; a driver refuses to act for an older fence than it has seen."""
    capabilities: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Mark:
    """Written on everything that is made for a machine, so that it can be found, adopted or cleaned."""

    project: str
    machine: str
    machine_id: str
    run_id: str
    fence: int
