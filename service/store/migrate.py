"""Brings a database to this version's tables: Optuna's by Optuna, ours by alembic."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, IntegrityError

from service.store import optuna_rows, tables
from service.store.database import Database, Tx
from studies.errors import StartupError

VERSION_TABLE: Final = "lmtune_alembic_version"  # `alembic_version` is Optuna's
_MIGRATIONS: Final = Path(__file__).parent / "migrations"
_LOCK: Final = 0x6C6D74756E65  # advisory lock of Postgres while one server migrates ("lmtune")


def migrate(database: Database) -> None:
    """Makes or upgrades every table; several servers may start at once.

    Raises:
        StartupError: the database was written by a newer lmtune or another Optuna.
    """
    with database.writer.connect() as guard:
        if not database.sqlite:
            guard.execute(sa.text("SELECT pg_advisory_lock(:key)"), {"key": _LOCK})
            guard.commit()
        try:
            if not _is_current(guard):
                guard.rollback()
                optuna_rows.create_tables(database.url)
                with guard.begin():
                    _upgrade(guard)
            guard.rollback()
        except DBAPIError as error:
            raise StartupError(f"the tables cannot be made: {error.orig}") from None
        finally:
            if not database.sqlite:
                guard.execute(sa.text("SELECT pg_advisory_unlock(:key)"), {"key": _LOCK})
                guard.commit()
    try:
        database.write(_start_clock)
    except IntegrityError:  # another server was first
        return


def _start_clock(tx: Tx) -> None:
    if tx.conn.execute(sa.select(tables.clock)).first() is None:
        tx.conn.execute(tables.clock.insert().values(id=1, t=0.0, wall=tx.now))


def _is_current(connection: sa.Connection) -> bool:
    """True when all tables are of this version: then nobody waits for alembic to be loaded."""
    return (
        _versions(connection, VERSION_TABLE) == [newest()]
        and _versions(connection, optuna_rows.VERSION_TABLE) == [optuna_rows.VERSION]
    )  # fmt: skip


def _versions(connection: sa.Connection, table: str) -> list[str]:
    if not sa.inspect(connection).has_table(table):
        return []
    statement = sa.select(sa.column("version_num", sa.String)).select_from(sa.table(table))
    return list(connection.execute(statement).scalars())


def newest() -> str:
    """Returns the number of the newest migration, which is in its file's name."""
    return max(path.name[1:5] for path in (_MIGRATIONS / "versions").glob("m*.py"))


def _upgrade(connection: sa.Connection) -> None:
    from alembic import command
    from alembic.config import Config
    from alembic.util import CommandError

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, "head")
    except CommandError as error:
        raise StartupError(f"the database is of a newer lmtune: {error}") from None
