"""The tables, as they are after the last migration. A test holds the two against each other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ColumnElement,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    text,
)

from mulligan.activities.inventory.claims import ClaimState
from mulligan.activities.inventory.codec import Moment, Stored, Word
from mulligan.activities.planning import Plan
from mulligan.activities.values import (
    RESOURCES,
    Evidence,
    Image,
    Kind,
    MachineRequest,
    MachineState,
    Outcome,
)

metadata = MetaData(
    naming_convention={
        "pk": "%(table_name)s_pk",
        "fk": "%(table_name)s_%(column_0_name)s_fk",
        "ck": "%(table_name)s_%(constraint_name)s",
        "ix": "%(table_name)s_%(column_0_N_name)s",
    }
)

FINAL = (MachineState.RELEASED, MachineState.FAILED)
"""States of machines that are no more: their names are free again."""

BEING_MADE = (MachineState.PROVISIONING, MachineState.HELD)
"""States of machines that a provision run is, or was, about to hand over."""

UNSETTLED = (*BEING_MADE, MachineState.RELEASING)
"""States of machines that need a run to go on: one that is left so without a run is swept."""

LIVE = tuple(state for state in ClaimState if state is not ClaimState.RELEASED)
"""States of claims that hold resources."""


def _text(name: str, **options: Any) -> Column[str]:
    return Column(name, Text, nullable=False, **options)


def _amount(name: str) -> Column[int]:
    return Column(name, BigInteger, nullable=False, server_default=text("0"))


partitions = Table(
    "partitions",
    metadata,
    Column("name", Text, primary_key=True),
    Column("created_at", Moment, nullable=False),
)

providers = Table(
    "providers",
    metadata,
    Column("name", Text, primary_key=True),
    Column("partition", ForeignKey(partitions.c.name), nullable=False),
    Column("kind", Word(Kind), nullable=False),
    _text("url"),
    _text("credential"),
    Column("settings", Stored(Mapping[str, str]), nullable=False),
    Column("facts", Stored(Mapping[str, str]), nullable=False),
    Column("generation", BigInteger, nullable=False),
    Column("enabled", Boolean, nullable=False),
    Column("dirty", Boolean, nullable=False),
    Column("suspect_count", Integer, nullable=False),
    _text("suspect_reason"),
    _text("quarantined"),
    Column("claim_seq", BigInteger, nullable=False),
    *(_amount(f"{what}_{resource}") for what in ("capacity", "free") for resource in RESOURCES),
    _amount("fill_rank"),
    _amount("lot"),
    CheckConstraint("kind IN ('virtual', 'bare-metal')", name="kind_is_known"),
    Index(None, "partition", "name"),
    Index(
        "providers_search",
        "partition",
        "kind",
        "suspect_count",
        "fill_rank",
        "lot",
        *(f"free_{resource}" for resource in RESOURCES),
    ),
)
"""Amounts and rank are a copy of `inventories`, kept so that a search can walk the index in their order; see `room`.
The lot, drawn at registration, mixes those of equal rank: else those that lack something may all come first."""

inventories = Table(
    "inventories",
    metadata,
    Column("provider", ForeignKey(providers.c.name), primary_key=True),
    Column("resource", Text, primary_key=True),
    Column("total", BigInteger, nullable=False),
    Column("reserved", BigInteger, nullable=False),
    Column("overcommit_percent", BigInteger, nullable=False),
    Column("used", BigInteger, nullable=False),
    CheckConstraint("reserved >= 0 AND reserved <= total", name="reserved_is_part_of_total"),
    CheckConstraint("overcommit_percent >= 1", name="overcommit_is_positive"),
    CheckConstraint(
        "used >= 0 AND used <= (total - reserved) * overcommit_percent / 100", name="used_is_within_capacity"
    ),
)

provider_capabilities = Table(
    "provider_capabilities",
    metadata,
    Column("provider", ForeignKey(providers.c.name), primary_key=True),
    Column("capability", Text, primary_key=True),
    Index(None, "capability"),
)

images = Table(
    "images",
    metadata,
    Column("name", Text, primary_key=True),
    Column("image", Stored(Image), nullable=False),
    Column("created_at", Moment, nullable=False),
)

claims = Table(
    "claims",
    metadata,
    Column("id", Text, primary_key=True),
    _text("machine_id"),
    _text("project"),
    _text("machine"),
    _text("run_id"),
    _text("partition"),
    Column("provider", ForeignKey(providers.c.name), nullable=True),
    Column("whole", Boolean, nullable=False),
    Column("fence", BigInteger, nullable=False),
    Column("state", Word(ClaimState), nullable=False),
    Column("lease_expires_at", Moment, nullable=True),
    _text("fingerprint"),
    _text("reason"),
    _text("mend"),
    Column("created_at", Moment, nullable=False),
    Column("released_at", Moment, nullable=True),
    CheckConstraint("state = 'released' OR provider IS NOT NULL", name="live_has_provider"),
)
LIVE_CLAIM: ColumnElement[bool] = claims.c.state != ClaimState.RELEASED
Index("claims_provider", claims.c.provider)
Index("claims_machine_id", claims.c.machine_id)
Index("claims_state_lease", claims.c.state, claims.c.lease_expires_at)
_WHOLE_AND_LIVE = text("whole AND state <> 'released'")
Index("claims_whole", claims.c.provider, unique=True, sqlite_where=_WHOLE_AND_LIVE, postgresql_where=_WHOLE_AND_LIVE)

claim_items = Table(
    "claim_items",
    metadata,
    Column("claim_id", ForeignKey(claims.c.id), primary_key=True),
    Column("resource", Text, primary_key=True),
    Column("amount", BigInteger, nullable=False),
    CheckConstraint("amount > 0", name="amount_is_positive"),
)

machines = Table(
    "machines",
    metadata,
    Column("id", Text, primary_key=True),
    _text("project"),
    _text("name"),
    Column("state", Word(MachineState), nullable=False),
    _text("partition"),
    _text("provider"),
    _text("claim_id"),
    _text("run_id"),
    _text("image_name"),
    Column("request", Stored(MachineRequest), nullable=False),
    Column("image", Stored(Image), nullable=False),
    Column("addresses", Stored(tuple[str, ...]), nullable=False),
    _text("login"),
    Column("evidence", Stored(tuple[Evidence, ...]), nullable=False),
    _text("reason"),
    Column("created_at", Moment, nullable=False),
    Column("ready_at", Moment, nullable=True),
)
NOT_FINAL = text("state NOT IN ('released', 'failed')")
"""The same as not in `FINAL`, in the words of the index of live machines: what asks so can use it."""
Index("machines_project_name", machines.c.project, machines.c.name)
Index(
    "machines_live_name",
    machines.c.project,
    machines.c.name,
    unique=True,
    sqlite_where=NOT_FINAL,
    postgresql_where=NOT_FINAL,
)
Index("machines_image_name", machines.c.image_name)

runs = Table(
    "runs",
    metadata,
    Column("run_id", Text, primary_key=True),
    _text("workflow_id"),
    _text("kind"),
    _text("project"),
    _text("machine"),
    _text("machine_id"),
    Column("outcome", Word(Outcome), nullable=False),
    _text("reason"),
    Column("started_at", Moment, nullable=False),
    Column("ended_at", Moment, nullable=True),
    _text("story"),
    Index(None, "workflow_id", "started_at"),
    Index(None, "project", "machine", "started_at"),
    Index(None, "started_at"),
)

failures = Table(
    "failures",
    metadata,
    Column("id", Text, primary_key=True),
    _text("workflow_id"),
    _text("run_id"),
    _text("provider"),
    _text("image"),
    _text("digest"),
    _text("step"),
    _text("reason"),
    Column("at", Moment, nullable=False),
    Column("provider_cleared", Boolean, nullable=False),
    Column("image_cleared", Boolean, nullable=False),
    Index(None, "provider"),
    Index(None, "digest"),
    Index(None, "at"),
)
"""The provider's name refers to nothing: what failed is told also when it is gone."""

image_standings = Table(
    "image_standings",
    metadata,
    Column("digest", Text, primary_key=True),
    _text("name"),
    Column("came_up_at", Moment, nullable=True),
    _text("quarantined"),
)

edits = Table(
    "edits",
    metadata,
    Column("id", Text, primary_key=True),
    _text("kind"),
    _text("name"),
    _text("project", server_default=""),
    _text("what"),
    _text("actor"),
    _text("reason"),
    Column("at", Moment, nullable=False),
    Index(None, "kind", "name", "at"),
    Index(None, "at"),
)

timings = Table(
    "timings",
    metadata,
    Column("run_id", Text, primary_key=True),
    Column("step", Text, primary_key=True),
    _text("image"),
    _text("driver"),
    _text("model"),
    Column("seconds", Double, nullable=False),
    Column("at", Moment, nullable=False),
    Index(None, "step", "driver", "image", "model", "at"),
)

plans = Table(
    "plans",
    metadata,
    Column("hash", Text, primary_key=True),
    _text("project"),
    _text("machine"),
    Column("plan", Stored(Plan), nullable=False),
    Column("made_at", Moment, nullable=False),
    Index(None, "made_at"),
)
