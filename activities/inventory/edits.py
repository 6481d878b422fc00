"""What operators changed by hand, on providers, images and machines: who, when, why, and what became different by it.

Runs keep their own levers in their history. What is decided outside of any run is kept here, as long as failures are;
so is a release that asks nothing of a provider, and only gives up what was claimed of it.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from sqlalchemy import Connection, select

from mulligan.activities.inventory.claims import ClaimRow
from mulligan.activities.inventory.database import now
from mulligan.activities.inventory.tables import edits
from mulligan.activities.levers import UNKNOWN

REMOVED = "removal asked for; out of service from then on, and forgotten once what is kept there is removed"
FORGOTTEN = "forgotten; nothing was asked of it, and what is kept there stays there"
"""What the removal of a provider is, in words: one that is removed and does not answer stays, out of service."""


GONE_WITH_ALL = "removed: what was kept there is removed, and it is forgotten"
"""How such a removal ends."""

REMOVED_IMAGE = "removed from the registry; its bytes stay at their source, and leave the providers"
GONE = "recorded as gone when it was to be released: its run had ended, and nothing was claimed for it"


ALSO_RELEASED = "asked to be released too, while its release was under way"


class EditKind(StrEnum):
    """What can be changed by hand."""

    PROVIDER = "provider"
    IMAGE = "image"
    MACHINE = "machine"


@dataclass(frozen=True, slots=True)
class By:
    """Who asks, and why, in their own words."""

    actor: str = UNKNOWN
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Edit:
    """One change by hand."""

    kind: EditKind
    name: str
    what: str
    """What became different, for people; the names of settings, never their values."""
    actor: str
    reason: str
    at: datetime
    project: str = ""
    """Whose machine; empty for what belongs to no project."""


def keep(  # noqa: PLR0917 - in the order in which it is told
    connection: Connection, kind: EditKind, name: str, what: str, by: By, project: str = ""
) -> None:
    """Keep a change, in the transaction that makes it."""
    row = {"id": str(uuid.uuid4()), "kind": kind, "name": name, "project": project, "what": what, "at": now()}
    connection.execute(edits.insert().values(**row, actor=by.actor, reason=by.reason))


def listed(connection: Connection, kind: EditKind | None, name: str, project: str, limit: int) -> list[Edit]:
    """The newest changes, newest first; of one kind, of one name, and of one project's machines, if given."""
    chosen = select(edits).order_by(edits.c.at.desc(), edits.c.id).limit(limit)
    if kind is not None:
        chosen = chosen.where(edits.c.kind == kind)
    if name:
        chosen = chosen.where(edits.c.name == name)
    if project:
        chosen = chosen.where(edits.c.project == project)
    rows = connection.execute(chosen)
    return [Edit(EditKind(row.kind), row.name, row.what, row.actor, row.reason, row.at, row.project) for row in rows]


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What an edit of a provider asks for; empty or None where it leaves things as they are."""

    enabled: bool | None = None
    reserved: Mapping[str, int] = field(default_factory=dict)
    overcommit_percent: Mapping[str, int] = field(default_factory=dict)
    settings: Sequence[str] = ()
    """The names of those that change."""
    quarantined: str = ""
    """The reason of the quarantine that it ends."""
    clear_suspect: bool = False
    clear_dirty: bool = False

    def __str__(self) -> str:
        """In words."""
        return "; ".join(self._words()) or "nothing"

    def _words(self) -> Iterator[str]:
        if self.enabled is not None:
            yield "put into service" if self.enabled else "taken out of service"
        for resource, amount in sorted(self.reserved.items()):
            yield f"{amount} {resource} kept back"
        for resource, percent in sorted(self.overcommit_percent.items()):
            yield f"{resource} overcommitted to {percent} %"
        if self.settings:
            yield f"settings: {', '.join(self.settings)}"
        if self.quarantined:
            yield f"put back into service, which was quarantined: {self.quarantined}"
        if self.clear_suspect:
            yield "its failures forgotten"
        if self.clear_dirty:
            yield "taken as erased"


def changed(before: Mapping[str, str], after: Mapping[str, str] | None) -> tuple[str, ...]:
    """The names of the settings that have another value, or are new or gone."""
    if after is None:
        return ()
    return tuple(sorted(name for name in {*before, *after} if before.get(name) != after.get(name)))


_LET_GO = "forgotten; let go of "


def lets_go_of(edit: Edit, machine_id: str) -> bool:
    """Whether this is how that machine was forgotten; another one may have had its name since."""
    return edit.what.startswith(_LET_GO) and f"(claim {machine_id}." in edit.what


def let_go(claim: ClaimRow) -> str:
    """What it means that a machine on this claim was forgotten, in words."""
    held = claim.resources
    return (
        f"{_LET_GO}{held.vcpu} vcpu, {held.memory_mib} MiB memory, {held.disk_gib} GiB disk of "
        f"{claim.provider} (claim {claim.id}); nothing was asked of {claim.provider}, and nothing undone: the machine "
        "may still run there, and its disks may still be there"
    )


def forgotten(failures: int, quarantined: str, also: Sequence[str] = ()) -> str:
    """What clearing a suspect means, in words. `also` names the others that they were held against."""
    with_it = f", for {', '.join(also)} too" if also else ""
    parts = [f"{failures} failure(s) forgotten{with_it}"] if failures or also else []
    parts += [f"put back into service, which was quarantined: {quarantined}"] if quarantined else []
    return "; ".join(parts) or "cleared, though nothing was held against it"
