"""Workers remember that they are to get no new trial."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Adds the column; no worker was drained so far."""
    draining = sa.Column("draining", sa.Boolean, nullable=False, server_default=sa.false())
    op.add_column("lmtune_workers", draining)
