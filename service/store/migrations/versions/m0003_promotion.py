"""Trials remember the rung that they were promoted from."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Adds the column; no trial was promoted so far."""
    step = sa.Column("promoted_step", sa.Integer, nullable=False, server_default="0")
    op.add_column("lmtune_trials", step)
