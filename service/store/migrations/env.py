"""Alembic's entry: runs on the connection that `service.store.migrate` hands over."""

from __future__ import annotations

from alembic import context

from service.store import tables
from service.store.migrate import VERSION_TABLE


def _ours(name: str | None, kind: str, _: object) -> bool:
    """True for lmtune's own tables; Optuna's are Optuna's to change."""
    return kind != "table" or (name or "").startswith("lmtune_")


context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=tables.metadata,
    version_table=VERSION_TABLE,
    include_name=_ours,
)
context.run_migrations()
