"""Failures of runs, and what is known of images: whether one ever came up, and whether it is quarantined."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Go forward. Providers that were counted as suspects before have no evidence: they start in the clear."""
    _failures()
    _image_standings()
    op.execute("UPDATE providers SET suspect_count = 0, suspect_reason = ''")


def _failures() -> None:
    """What failed on which provider, with which image, and whether either came up since."""
    op.create_table(
        "failures",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("workflow_id", sa.Text(), nullable=False),
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("image", sa.Text(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("step", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("provider_cleared", sa.Boolean(), nullable=False),
        sa.Column("image_cleared", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="failures_pk"),
    )
    op.create_index("failures_provider", "failures", ["provider"], unique=False)
    op.create_index("failures_digest", "failures", ["digest"], unique=False)
    op.create_index("failures_at", "failures", ["at"], unique=False)


def _image_standings() -> None:
    """What became of machines that were made from an image, by its digest."""
    op.create_table(
        "image_standings",
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("came_up_at", sa.BigInteger(), nullable=True),
        sa.Column("quarantined", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("digest", name="image_standings_pk"),
    )
