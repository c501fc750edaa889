"""Brings a database to this version's tables: Optuna's by Optuna, ours by alembic."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy.exc import DBAPIError, IntegrityError

from service.store import optuna_rows, tables
from service.store.database import Database, Tx
from studies.errors import StartupError

VERSION_TABLE: Final = "lmtune_alembic_version"  # `alembic_version` is Optuna's
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
            guard.rollback()
            optuna_rows.create_tables(database.url)
            with guard.begin():
                command.upgrade(_config(guard), "head")
        except CommandError as error:
            raise StartupError(f"the database is of a newer lmtune: {error}") from None
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


def _config(connection: sa.Connection) -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["connection"] = connection
    return config
