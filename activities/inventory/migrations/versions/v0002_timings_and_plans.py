"""What finished runs teach about how long steps take, and the plans that can be applied."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Go forward."""
    _timings()
    _plans()


def _timings() -> None:
    """How long each step of a run took that ended ready."""
    op.create_table(
        "timings",
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.Column("step", sa.Text(), nullable=False),
        sa.Column("image", sa.Text(), nullable=False),
        sa.Column("driver", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("seconds", sa.Double(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("run_id", "step", name="timings_pk"),
    )
    op.create_index("timings_step_driver_image_model_at", "timings", ["step", "driver", "image", "model", "at"])


def _plans() -> None:
    """Plans, by the hash that applies them."""
    op.create_table(
        "plans",
        sa.Column("hash", sa.Text(), nullable=False),
        sa.Column("project", sa.Text(), nullable=False),
        sa.Column("machine", sa.Text(), nullable=False),
        sa.Column("plan", sa.Text(), nullable=False),
        sa.Column("made_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("hash", name="plans_pk"),
    )
    op.create_index("plans_made_at", "plans", ["made_at"])
