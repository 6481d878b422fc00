"""The part of the inventory's door about what failed, what is removed, what is old, and what does not add up."""

from __future__ import annotations

import uuid
from collections.abc import Sequence

from mulligan.activities.inventory import audit, edits, failures, housekeeping, machines, providers
from mulligan.activities.inventory.claims import Drift
from mulligan.activities.inventory.database import Database
from mulligan.activities.inventory.edits import By, Edit, EditKind
from mulligan.activities.inventory.machine import Machine
from mulligan.activities.inventory.suspects import Blame, Suspect, SuspectKind
from mulligan.activities.values import Image, Provider

PAGE = 500
"""How many a list gives when the caller does not say."""

NOBODY = By()
"""Somebody who did not say who they are."""


class Upkeep:
    """Suspects, removed providers, pruning, and the audit. `Inventory` inherits it."""

    _database: Database

    # Suspects

    def record_failure(self, blame: Blame) -> Provider:
        """Keep a failure, and judge anew who is to blame; told again, it changes nothing.

        What is to blame for enough is quarantined, with the evidence and the command that puts it back. Raises
        `NotFound` for the provider.
        """
        with self._database.write() as connection:
            failures.record(connection, blame)
            return providers.get(connection, blame.provider)

    def mark_suspect(self, name: str, reason: str) -> Provider:
        """Count one more failure of a provider in which no run and no image had part. Raises `NotFound`."""
        return self.record_failure(Blame(str(uuid.uuid4()), "", "", name, "", "", "", reason))

    def came_up(self, provider: str, image: Image) -> None:
        """A machine came up: what failed on the provider and with the image before is not their fault."""
        with self._database.read() as connection:
            if not failures.is_news(connection, provider, image.digest):
                return
        with self._database.write() as connection:
            failures.came_up(connection, provider, image)

    def machine_came_up(self, machine_id: str, provider: str) -> None:
        """As `came_up`, for the image of this machine. Raises `NotFound`."""
        with self._database.read() as connection:
            image = machines.by_id(connection, machine_id).image
        self.came_up(provider, image)

    def suspects(self, kind: SuspectKind | None = None) -> list[Suspect]:
        """What runs failed on since one came up, and what is quarantined for it, with the evidence, the worst first."""
        with self._database.read() as connection:
            return [each for each in failures.suspects(connection) if kind in (None, each.kind)]

    def suspect(self, kind: SuspectKind, name: str) -> Suspect | None:
        """What is held against this provider (by name) or image (by name or digest); None when nothing is."""
        with self._database.read() as connection:
            return failures.held_against(connection, kind, name)

    def clear_failures(self, kind: SuspectKind, name: str, by: By = NOBODY) -> tuple[Suspect, ...]:
        """Forget the failures of a provider or an image, and end the quarantine that they caused.

        They are forgotten for the other suspect of each too: whoever mended the one has found the cause. Those others
        are returned, as they were. Who that was is kept. Raises `NotFound`.
        """
        with self._database.write() as connection:
            failures.take_turn(connection)
            held = failures.held_against(connection, kind, name)
            also = failures.clear(connection, kind, name)
            what = edits.forgotten(
                held.failures if held else 0,
                held.quarantined if held else "",
                [f"{other.kind} {other.name}" for other in also],
            )
            edits.keep(connection, EditKind(kind), name, what, by)
            return also

    def edits(
        self, kind: EditKind | None = None, name: str = "", project: str = "", *, limit: int = PAGE
    ) -> list[Edit]:
        """What operators changed by hand, newest first; of one kind, one name, one project's machines, if given."""
        with self._database.read() as connection:
            return edits.listed(connection, kind, name, project, limit)

    def quarantine_provider(self, name: str, reason: str) -> Provider:
        """Take it out of service until an operator clears the quarantine; what it holds it keeps."""
        with self._database.write() as connection:
            return providers.change(connection, name, {"quarantined": reason or "no reason given"})

    def image_quarantine(self, digest: str) -> str:
        """Why machines from these bytes are refused; empty when they are not."""
        with self._database.read() as connection:
            return failures.image_quarantine(connection, digest)

    # Sweeping, removing and pruning

    def abandon_machine(self, machine_id: str, by: By | None = None) -> Machine:
        """Record as gone a machine whose run is gone, if it is unsettled and no claim holds anything.

        One that its user had, and was giving back, is released; any other has failed. Otherwise it is given as it is.
        A claim that arrives for it later is refused. Who asked for it, if anybody did, is kept. Raises `NotFound`.
        """
        with self._database.write() as connection:
            before = machines.by_id(connection, machine_id)
            after = machines.abandon(connection, machine_id)
            if by is not None and after.state is not before.state:
                edits.keep(connection, EditKind.MACHINE, after.name, edits.GONE, by, after.project)
            return after

    def also_released(self, machine: Machine, by: By) -> None:
        """Keep who asked for a release that is under way, once: clients repeat what they got no answer to."""
        with self._database.write() as connection:
            last = edits.listed(connection, EditKind.MACHINE, machine.name, machine.project, 1)
            if not last or (last[0].what, last[0].actor, last[0].reason) != (edits.ALSO_RELEASED, by.actor, by.reason):
                edits.keep(connection, EditKind.MACHINE, machine.name, edits.ALSO_RELEASED, by, machine.project)

    def unsettled(self, seconds: int, after: str = "", limit: int = PAGE) -> list[Machine]:
        """Machines provisioning, held or releasing that were begun at least so many seconds ago, by the database.

        Up to `limit` by id, from the first after `after`.
        """
        with self._database.read() as connection:
            return machines.unsettled(connection, seconds, after, limit)

    def retire_provider(self, name: str, by: By = NOBODY, *, forget: bool = False) -> Provider:
        """Make sure that nothing is claimed of a provider, now and until it is removed: it is disabled.

        Who removes it, and why, is kept; `forget` says that it will not be asked anything. Raises `Conflict` naming the
        machines that hold something, `NotFound`.
        """
        with self._database.write() as connection:
            provider = housekeeping.retire(connection, name)
            what = edits.FORGOTTEN if forget else edits.REMOVED
            edits.keep(connection, EditKind.PROVIDER, name, what, by)
            return provider

    def remove_provider(self, name: str) -> None:
        """Forget a provider that nothing is claimed of; its claims' tombstones stay, without its name.

        That a removal is done is kept, with who asked for it. One that is not there is success. Raises `Conflict`
        naming the machines that hold something.
        """
        with self._database.write() as connection:
            if not housekeeping.remove(connection, name):
                return
            last = edits.listed(connection, EditKind.PROVIDER, name, "", 1)
            if last and last[0].what == edits.REMOVED:
                by = By(last[0].actor, last[0].reason)
                edits.keep(connection, EditKind.PROVIDER, name, edits.GONE_WITH_ALL, by)

    def wanted_digests(self) -> set[str]:
        """The digests of all images that are registered, or that a live machine runs."""
        with self._database.read() as connection:
            return housekeeping.wanted_digests(connection)

    def prune(self, days: int, limit: int = 500) -> int:
        """Remove what ended more than so many days ago: failures, kept runs, tombstones, machines that are gone.

        At most `limit` of each; returns how many in all. Never what is live, nor what tells how a live machine was
        made.
        """
        return housekeeping.prune(self._database, days, limit)

    # Audit

    def audit(self) -> list[Drift]:
        """Counters that the live claims do not add up to, and live claims whose machine is no more. Changes nothing."""
        with self._database.read() as connection:
            return audit.audit(connection)

    def repair(self, drifts: Sequence[Drift], by: By = NOBODY) -> list[Drift]:
        """Mend those of the drifts that are still there, and keep who asked; returns those that were mended."""
        return audit.repair(self._database, drifts, by)
