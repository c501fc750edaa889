"""Claims are open until they are answered; what a worker has is recorded with it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Adds the columns; an old worker's last claim counts as answered."""
    closed = sa.Column("claim_open", sa.Boolean, nullable=False, server_default=sa.false())
    op.add_column("lmtune_workers", closed)
    op.add_column("lmtune_workers", sa.Column("resources", sa.JSON))
