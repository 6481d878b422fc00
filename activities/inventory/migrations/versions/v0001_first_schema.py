"""The first schema: partitions, providers and their inventory, images, claims, machines, kept runs."""

from __future__ import annotations

from datetime import UTC, datetime

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Go forward."""
    _partitions()
    _providers()
    _inventories()
    _provider_capabilities()
    _images()
    _claims()
    _claim_items()
    _machines()
    _runs()
    created_at = int(datetime.now(UTC).timestamp()) * 1_000_000
    partitions = sa.table("partitions", sa.column("name", sa.Text()), sa.column("created_at", sa.BigInteger()))
    op.bulk_insert(partitions, [{"name": "default", "created_at": created_at}])


def _partitions() -> None:
    """Sites."""
    op.create_table(
        "partitions",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="partitions_pk"),
    )


def _providers() -> None:
    """What has resources to give."""
    op.create_table(
        "providers",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("partition", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("credential", sa.Text(), nullable=False),
        sa.Column("settings", sa.Text(), nullable=False),
        sa.Column("facts", sa.Text(), nullable=False),
        sa.Column("generation", sa.BigInteger(), nullable=False),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column("dirty", sa.Boolean(), nullable=False),
        sa.Column("suspect_count", sa.Integer(), nullable=False),
        sa.Column("suspect_reason", sa.Text(), nullable=False),
        sa.Column("quarantined", sa.Text(), nullable=False),
        sa.Column("claim_seq", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("kind IN ('virtual', 'bare-metal')", name="providers_kind_is_known"),
        sa.ForeignKeyConstraint(["partition"], ["partitions.name"], name="providers_partition_fk"),
        sa.PrimaryKeyConstraint("name", name="providers_pk"),
    )
    op.create_index("providers_partition_name", "providers", ["partition", "name"], unique=False)


def _inventories() -> None:
    """How much of each resource it has, and how much is used."""
    op.create_table(
        "inventories",
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("resource", sa.Text(), nullable=False),
        sa.Column("total", sa.BigInteger(), nullable=False),
        sa.Column("reserved", sa.BigInteger(), nullable=False),
        sa.Column("overcommit_percent", sa.BigInteger(), nullable=False),
        sa.Column("used", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("overcommit_percent >= 1", name="inventories_overcommit_is_positive"),
        sa.CheckConstraint("reserved >= 0 AND reserved <= total", name="inventories_reserved_is_part_of_total"),
        sa.CheckConstraint(
            "used >= 0 AND used <= (total - reserved) * overcommit_percent / 100",
            name="inventories_used_is_within_capacity",
        ),
        sa.ForeignKeyConstraint(["provider"], ["providers.name"], name="inventories_provider_fk"),
        sa.PrimaryKeyConstraint("provider", "resource", name="inventories_pk"),
    )


def _provider_capabilities() -> None:
    """What it can do."""
    op.create_table(
        "provider_capabilities",
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("capability", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["provider"], ["providers.name"], name="provider_capabilities_provider_fk"),
        sa.PrimaryKeyConstraint("provider", "capability", name="provider_capabilities_pk"),
    )
    op.create_index("provider_capabilities_capability", "provider_capabilities", ["capability"], unique=False)


def _images() -> None:
    """Names for immutable bytes."""
    op.create_table(
        "images",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("image", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="images_pk"),
    )


def _claims() -> None:
    """Who holds what; tombstones of those that are over."""
    op.create_table(
        "claims",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("machine_id", sa.Text(), nullable=False),
        sa.Column("project", sa.Text(), nullable=False),
        sa.Column("machine", sa.Text(), nullable=False),
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.Column("partition", sa.Text(), nullable=False),
        sa.Column("provider", sa.Text(), nullable=True),
        sa.Column("whole", sa.Boolean(), nullable=False),
        sa.Column("fence", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("lease_expires_at", sa.BigInteger(), nullable=True),
        sa.Column("fingerprint", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("mend", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("released_at", sa.BigInteger(), nullable=True),
        sa.CheckConstraint("state = 'released' OR provider IS NOT NULL", name="claims_live_has_provider"),
        sa.ForeignKeyConstraint(["provider"], ["providers.name"], name="claims_provider_fk"),
        sa.PrimaryKeyConstraint("id", name="claims_pk"),
    )
    op.create_index("claims_machine_id", "claims", ["machine_id"], unique=False)
    op.create_index("claims_provider", "claims", ["provider"], unique=False)
    op.create_index("claims_state_lease", "claims", ["state", "lease_expires_at"], unique=False)
    op.create_index(
        "claims_whole",
        "claims",
        ["provider"],
        unique=True,
        sqlite_where=sa.text("whole AND state <> 'released'"),
        postgresql_where=sa.text("whole AND state <> 'released'"),
    )


def _claim_items() -> None:
    """How much of each resource a claim holds."""
    op.create_table(
        "claim_items",
        sa.Column("claim_id", sa.Text(), nullable=False),
        sa.Column("resource", sa.Text(), nullable=False),
        sa.Column("amount", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("amount > 0", name="claim_items_amount_is_positive"),
        sa.ForeignKeyConstraint(["claim_id"], ["claims.id"], name="claim_items_claim_id_fk"),
        sa.PrimaryKeyConstraint("claim_id", "resource", name="claim_items_pk"),
    )


def _machines() -> None:
    """What users get."""
    op.create_table(
        "machines",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("project", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("partition", sa.Text(), nullable=False),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("claim_id", sa.Text(), nullable=False),
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.Column("image_name", sa.Text(), nullable=False),
        sa.Column("request", sa.Text(), nullable=False),
        sa.Column("image", sa.Text(), nullable=False),
        sa.Column("addresses", sa.Text(), nullable=False),
        sa.Column("login", sa.Text(), nullable=False),
        sa.Column("evidence", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("ready_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="machines_pk"),
    )
    op.create_index("machines_image_name", "machines", ["image_name"], unique=False)
    op.create_index(
        "machines_live_name",
        "machines",
        ["project", "name"],
        unique=True,
        sqlite_where=sa.text("state NOT IN ('released', 'failed')"),
        postgresql_where=sa.text("state NOT IN ('released', 'failed')"),
    )
    op.create_index("machines_project_name", "machines", ["project", "name"], unique=False)


def _runs() -> None:
    """Stories of runs that have ended."""
    op.create_table(
        "runs",
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.Column("workflow_id", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("project", sa.Text(), nullable=False),
        sa.Column("machine", sa.Text(), nullable=False),
        sa.Column("machine_id", sa.Text(), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("started_at", sa.BigInteger(), nullable=False),
        sa.Column("ended_at", sa.BigInteger(), nullable=True),
        sa.Column("story", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("run_id", name="runs_pk"),
    )
    op.create_index("runs_project_machine_started_at", "runs", ["project", "machine", "started_at"], unique=False)
    op.create_index("runs_started_at", "runs", ["started_at"], unique=False)
    op.create_index("runs_workflow_id_started_at", "runs", ["workflow_id", "started_at"], unique=False)
