"""Statements compiled once per kind of database and then run by its driver.

For the few that run with every report and heartbeat: there SQLAlchemy's own work for a statement
costs five times what the database's does (docs/decisions/0009-the-write-path.md).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa


class Prepared:
    """A statement with bound parameters; its values and rows are plain numbers and strings."""

    def __init__(self, statement: sa.UpdateBase, columns: Sequence[str] | None = None) -> None:
        """`columns` are those that an INSERT fills."""
        self._statement, self._columns = statement, columns
        self._compiled: dict[str, tuple[str, dict[str, Any], list[str] | None]] = {}

    def run(self, conn: sa.Connection, values: Mapping[str, Any]) -> Any:
        """Runs it in the connection's transaction; returns its cursor."""
        text, constants, order = self._for(conn.dialect)
        driver: Any = conn.connection.driver_connection
        bound = _bound({**constants, **values}, order)
        with _translated(conn, text, bound):
            return driver.execute(text, bound)

    def run_all(self, conn: sa.Connection, rows: Iterable[Mapping[str, Any]]) -> None:
        """Runs it for each of many rows."""
        text, constants, order = self._for(conn.dialect)
        driver: Any = conn.connection.driver_connection
        bound = [_bound({**constants, **row}, order) for row in rows]
        cursor = driver.cursor()
        try:
            with _translated(conn, text, bound):
                cursor.executemany(text, bound)
        finally:
            cursor.close()

    def _for(self, dialect: sa.Dialect) -> tuple[str, dict[str, Any], list[str] | None]:
        """Returns the text, the parameters it came with and, where they go by place, the order."""
        found = self._compiled.get(dialect.name)
        if found is None:
            compiled = self._statement.compile(dialect=dialect, column_keys=self._columns)
            order = list(compiled.positiontup or ()) if compiled.positional else None
            found = self._compiled[dialect.name] = (compiled.string, dict(compiled.params), order)
        return found


def _bound(named: Mapping[str, Any], order: Sequence[str] | None) -> Any:
    return named if order is None else [named[name] for name in order]


@contextmanager
def _translated(conn: sa.Connection, text: str, bound: Any) -> Iterator[None]:
    """Raises what the driver raises as SQLAlchemy would."""
    try:
        yield
    except conn.dialect.loaded_dbapi.Error as error:
        raise sa.exc.DBAPIError.instance(
            text, bound, error, conn.dialect.loaded_dbapi.Error, dialect=conn.dialect
        ) from error
