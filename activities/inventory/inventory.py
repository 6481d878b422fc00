"""The inventory's one door: every method is one short transaction (claiming: one per candidate).

All methods block and are safe to call from any thread and process at the same time. Besides the errors that each names,
all raise `Busy` when others hold the database for long and `Unreachable` when it does not answer: try those again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from mulligan.activities.inventory import (
    claiming,
    edits,
    failures,
    images,
    machines,
    migrate,
    plans,
    providers,
    stories,
    timings,
)
from mulligan.activities.inventory.claims import ClaimRequest, ClaimRow, RunRecord
from mulligan.activities.inventory.database import Database
from mulligan.activities.inventory.edits import Asked, By, EditKind
from mulligan.activities.inventory.explain import explain
from mulligan.activities.inventory.explanation import Choice, Explanation
from mulligan.activities.inventory.machine import Machine
from mulligan.activities.inventory.suspects import SuspectKind
from mulligan.activities.inventory.timings import Lesson
from mulligan.activities.inventory.upkeep import NOBODY, PAGE, Upkeep
from mulligan.activities.planning import Plan
from mulligan.activities.values import (
    Claim,
    Evidence,
    Image,
    Inspection,
    MachineState,
    Provider,
    StepEstimate,
    VerifyLevel,
)


class Inventory(Upkeep):
    """Providers, claims, images, machines and kept runs of one deployment."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @classmethod
    def open(cls, url: str) -> Inventory:
        """Open the database and bring it to the newest schema; several processes may do so at once.

        `url` is `sqlite:////absolute/path` (made if it is not there) or `postgresql+psycopg://...`. Raises
        `InvalidRequest` on another URL and `Conflict` on the database of a newer Mulligan.
        """
        database = Database(url)
        try:
            migrate.migrate(database)
        except BaseException:  # whatever it was is raised on; only the connections are given back
            database.close()
            raise
        return cls(database)

    def close(self) -> None:
        """Give back all connections; safe to call twice."""
        self._database.close()

    # Partitions and providers

    def add_partition(self, name: str) -> None:
        """Add a partition; one that is there already is success. `default` is there from the start."""
        with self._database.write() as connection:
            providers.add_partition(connection, name)

    def partitions(self) -> list[str]:
        """All partitions by name."""
        with self._database.read() as connection:
            return providers.list_partitions(connection)

    def put_provider(  # noqa: PLR0917 - what a provider is, in the order in which people say it
        self,
        name: str,
        partition: str,
        url: str,
        credential: str,
        inspection: Inspection,
        settings: Mapping[str, str],
    ) -> Provider:
        """Register a provider, or refresh its totals, capabilities, settings, credential and facts.

        Never changes what is used, nor what an operator reserved or overcommitted. What the inspection decided wins
        over `settings`, and claims are counted on from its fence. Raises `AlreadyExists` when url, partition or kind
        differ from what is registered, `Conflict` when more is claimed than it would have, or a server that is held
        would become another; `NotFound` for the partition.
        """
        with self._database.write() as connection:
            return providers.put(
                connection, name, partition, url, credential=credential, inspection=inspection, settings=settings
            )

    def provider(self, name: str) -> Provider:
        """The provider. Raises `NotFound`."""
        with self._database.read() as connection:
            return providers.get(connection, name)

    def providers(self, partition: str = "", after: str = "", limit: int = PAGE) -> list[Provider]:
        """Up to `limit` providers by name, from the first after `after`; of one partition if given."""
        with self._database.read() as connection:
            return providers.page(connection, partition, after, limit)

    def edit_provider(
        self,
        name: str,
        *,
        generation: int,
        enabled: bool | None = None,
        reserved: Mapping[str, int] | None = None,
        overcommit_percent: Mapping[str, int] | None = None,
        settings: Mapping[str, str] | None = None,
        clear_quarantine: bool = False,
        clear_suspect: bool = False,
        clear_dirty: bool = False,
        by: By = NOBODY,
    ) -> Provider:
        """Change what the operator decides; what is None stays. `settings` replaces all settings. Who it was is kept.

        Raises `Conflict` when `generation` is not the current one (the message says which is), or when more is claimed
        than would be left; `InvalidRequest` for a resource that it does not have.
        """
        columns: dict[str, object] = {}
        if enabled is not None:
            columns["enabled"] = enabled
        if settings is not None:
            columns["settings"] = dict(settings)
        if clear_quarantine:
            columns["quarantined"] = ""
        if clear_dirty:
            columns["dirty"] = False
        forgives = clear_suspect or clear_quarantine  # or the failures would quarantine it again
        with self._database.write() as connection:
            if forgives:
                failures.take_turn(connection)
            before = providers.get(connection, name)
            edited = providers.edit(
                connection,
                name,
                generation,
                reserved=reserved or {},
                overcommit_percent=overcommit_percent or {},
                columns=columns,
            )
            what = Asked(
                enabled=enabled,
                reserved=reserved or {},
                overcommit_percent=overcommit_percent or {},
                settings=edits.changed(before.settings, settings),
                quarantined=before.quarantined if clear_quarantine else "",
                clear_suspect=forgives,
                clear_dirty=clear_dirty,
            )
            edits.keep(connection, EditKind.PROVIDER, name, str(what), by)
            if not forgives:
                return edited
            failures.clear(connection, SuspectKind.PROVIDER, name)
            return providers.get(connection, name)

    def known_capabilities(self) -> list[str]:
        """Every capability that some provider has, sorted: to tell a misspelt one from one that is not there now."""
        with self._database.read() as connection:
            return providers.known_capabilities(connection)

    # Images

    def add_image(self, image: Image) -> Image:
        """Register an image; an equal one is success. Raises `AlreadyExists` with the fields that differ."""
        with self._database.write() as connection:
            return images.add(connection, image)

    def image(self, name: str) -> Image:
        """The image. Raises `NotFound`."""
        with self._database.read() as connection:
            return images.get(connection, name)

    def images(self) -> list[Image]:
        """All images by name."""
        with self._database.read() as connection:
            return images.every(connection)

    def remove_image(self, name: str, by: By = NOBODY) -> None:
        """Remove an image from the registry, and keep who did. Raises `NotFound`, `Conflict` while it is used."""
        with self._database.write() as connection:
            images.remove(connection, name)
            edits.keep(connection, EditKind.IMAGE, name, edits.REMOVED_IMAGE, by)

    # Claims

    def claim(self, request: ClaimRequest) -> Claim:
        """Find a provider and claim it, in one call. The same request again gives the same claim.

        A provider given whole yields all its inventory. The claim's machine, where there is one, is told its provider
        and claim at once. Raises `NotNow` or `NeverFits` with an `Explanation`, `StaleFence` when the claim was
        released before or its machine is no more, `Conflict` when its id belongs to a request of another
        fingerprint or it is quarantined, `NotFound` for partition and provider, `InvalidRequest` for a request of
        nothing.
        """
        return claiming.claim(self._database, request)

    def explain(self, request: ClaimRequest) -> Explanation:
        """What `claim` would come to, and why; claims nothing. Raises `NotFound` and `InvalidRequest` as it does."""
        with self._database.read() as connection:
            claiming.check(connection, request)
            return explain(connection, request)

    def choose(self, request: ClaimRequest) -> Choice:
        """The provider that `claim` would try first now, and the explanation; claims nothing. Raises as `explain` does.

        Where several are equal by policy, one is drawn at random.
        """
        with self._database.read() as connection:
            claiming.check(connection, request)
            return plans.choose(connection, request)

    def release_claim(self, claim_id: str, *, dirty: bool = False, forgotten: By | None = None) -> None:
        """Give back what the claim holds, exactly once however often it is asked, and leave a tombstone.

        A claim that was never made gets its tombstone too, so that it cannot be made late. `dirty` keeps the provider
        from being claimed until an operator or an erase clears it. `forgotten` is who asked to give up a machine on a
        provider that is gone, without asking anything of it: that is kept as a change by hand.
        """
        with self._database.write() as connection:
            if claiming.release(connection, claim_id, dirty) and forgotten is not None:
                claim = claiming.get(connection, claim_id)
                what = edits.let_go(claim)
                edits.keep(connection, EditKind.MACHINE, claim.machine, what, forgotten, claim.project)

    def extend_lease(self, claim_id: str, seconds: int) -> ClaimRow:
        """Make a held claim's lease end no sooner than so many seconds from now, by the database's clock.

        Also after it passed, as long as nobody released it. Permanent and quarantined claims need none and stay as they
        are. Raises `StaleFence` when it was released, `NotFound`.
        """
        with self._database.write() as connection:
            return claiming.extend(connection, claim_id, seconds)

    def make_permanent(self, claim_id: str) -> ClaimRow:
        """End the lease for good. Raises `StaleFence` when it was released, `Conflict` if quarantined, `NotFound`."""
        with self._database.write() as connection:
            return claiming.make_permanent(connection, claim_id)

    def lease_again(self, claim_id: str, seconds: int) -> Claim:
        """Let a permanent claim end so many seconds from now, unless it is extended: a run works on it again.

        One that has a lease stays as it is. The claim is given with its provider as it is registered now. Raises
        `StaleFence` when it was released, `Conflict` when its machine is in service, `NotFound`.
        """
        with self._database.write() as connection:
            return claiming.lease_again(connection, claim_id, seconds)

    def quarantine_claim(self, claim_id: str, reason: str, mend: str) -> ClaimRow:
        """Keep what it holds out of service, with the reason and the command that mends it, until it is released.

        So is its machine, unless it is gone. Raises `StaleFence` when the claim was released, `NotFound`.
        """
        with self._database.write() as connection:
            return claiming.quarantine(connection, claim_id, reason, mend)

    def claim_by_id(self, claim_id: str) -> ClaimRow:
        """The claim, live or released. Raises `NotFound`."""
        with self._database.read() as connection:
            return claiming.get(connection, claim_id)

    def live_claim_of(self, machine_id: str) -> ClaimRow | None:
        """The newest claim that holds something for this machine; None when none does."""
        with self._database.read() as connection:
            return claiming.live_of(connection, machine_id)

    def claims(self, partition: str = "", project: str = "", state: str = "") -> list[ClaimRow]:
        """Claims, oldest first; without a state those that hold something. Raises `InvalidRequest` for the state."""
        with self._database.read() as connection:
            return claiming.listed(connection, partition, project, state)

    def expired(self, limit: int = PAGE) -> list[ClaimRow]:
        """Held claims whose lease has passed by the database's clock, the longest passed first. Frees nothing."""
        with self._database.read() as connection:
            return claiming.expired(connection, limit)

    # Machines

    def begin_machine(self, machine: Machine) -> Machine:
        """Record a new machine; one of the same id is given as it is. `created_at` is drawn if it is None.

        Raises `AlreadyExists` when a live machine has that name, with the fields of the request that differ.
        """
        with self._database.write() as connection:
            return machines.begin(connection, machine)

    def update_machine(
        self,
        machine_id: str,
        *,
        state: MachineState | None = None,
        provider: str | None = None,
        claim_id: str | None = None,
        addresses: tuple[str, ...] | None = None,
        login: str | None = None,
        evidence: tuple[Evidence, ...] | None = None,
        reason: str | None = None,
        ready_at: datetime | None = None,
    ) -> Machine:
        """Write what has become known; what is None stays.

        Of a machine that is released or failed the first word stays: how it ended is not told anew. Raises `NotFound`,
        and `Conflict` when it is released or failed and `state` is neither.
        """
        given: dict[str, object] = {"state": state, "provider": provider, "claim_id": claim_id, "login": login}
        given |= {"addresses": addresses, "evidence": evidence, "reason": reason, "ready_at": ready_at}
        values = {name: value for name, value in given.items() if value is not None}
        with self._database.write() as connection:
            return machines.change(connection, machine_id, values)

    def machine(self, project: str, name: str) -> Machine:
        """The live machine of this name, else the newest that had it. Raises `NotFound`."""
        with self._database.read() as connection:
            return machines.by_name(connection, project, name)

    def machine_by_id(self, machine_id: str) -> Machine:
        """The machine. Raises `NotFound`."""
        with self._database.read() as connection:
            return machines.by_id(connection, machine_id)

    def machines(
        self,
        project: str = "",
        partition: str = "",
        states: Sequence[MachineState] = (),
        after: tuple[str, str] = ("", ""),
        limit: int = PAGE,
    ) -> list[Machine]:
        """One machine per name, as `machine` gives it, by (project, name), from the first after `after`."""
        with self._database.read() as connection:
            return machines.listed(connection, project, partition, states, after=after, limit=limit)

    # Kept runs

    def keep_run(self, run: RunRecord, lesson: Lesson | None = None) -> None:
        """Keep a run's story, and what it teaches; once kept as ended neither changes.

        A lesson about a machine or provider that is no more is forgotten. At most 500 are kept for each step, image,
        driver and model, of the step verify for each level of proof.
        """
        with self._database.write() as connection:
            stories.keep(connection, run)
            if lesson is not None:
                timings.learn(connection, lesson)

    def estimates(
        self, image: str, driver: str = "", model: str = "", level: VerifyLevel | None = None
    ) -> tuple[StepEstimate, ...]:
        """How long each step usually takes, from the newest 200 of the runs that are most like the one at hand.

        Those of the same image, driver and model; else of the same image and driver; else of the same driver; in each
        case three at least. Without a driver (no provider is claimed yet): of the same image, else all. The step
        verify is learned from runs of the same level of proof; where too few are known, or no level is given, from
        those of any level. A step that too few runs have taught is left out. See `driver_of` and `model_of`.
        """
        with self._database.read() as connection:
            return timings.estimates(connection, image, driver, model, level)

    # Plans

    def keep_plan(self, plan: Plan) -> None:
        """Keep a plan that can be applied under its hash, for a day from now."""
        with self._database.write() as connection:
            plans.keep(connection, plan)

    def plan(self, plan_hash: str) -> Plan:
        """The plan of this hash. Raises `NotFound`, also when it was made more than a day ago."""
        with self._database.read() as connection:
            return plans.get(connection, plan_hash)

    def run(self, workflow_id: str, run_id: str = "") -> RunRecord:
        """The kept run, without a run id the newest of the workflow id. Raises `NotFound`."""
        with self._database.read() as connection:
            return stories.get(connection, workflow_id, run_id)

    def runs(
        self,
        project: str = "",
        machine: str = "",
        limit: int = PAGE,
        before: tuple[datetime, str] | None = None,
    ) -> list[RunRecord]:
        """Kept runs, newest first; `before` is (started_at, run_id) of the last one that was seen."""
        with self._database.read() as connection:
            return stories.listed(connection, project, machine, limit, before)
