"""Whose machine was changed by hand."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Go forward. What was changed before were providers and images, which belong to no project."""
    op.add_column("edits", sa.Column("project", sa.Text(), nullable=False, server_default=""))
