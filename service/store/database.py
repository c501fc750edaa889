"""One database: an engine for its readers, and the writer through which every write goes.

On SQLite the writer is one thread with one connection, Optuna's rows included, so that no write
ever waits for another in the middle. On Postgres it is a few threads; rows are locked in the order
study, trial, worker. A write is a function of a `Tx`; it may run more than once and must keep
everything it changes in the transaction (`Tx.on_rollback` is for what it cannot).
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final, TypeVar

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DBAPIError

from service.store import tables
from studies.errors import InvalidInput, StartupError, Unavailable

ResultT = TypeVar("ResultT")
Row = sa.Row[Any]
Connection = sa.Connection
WRITERS: Final = 4  # threads on Postgres; assumption
TRIES: Final = 5  # of a write that the database asked us to repeat
_BUSY_MS: Final = 30_000  # how long SQLite waits for a foreign reader [ms]
_WAL_FIXED: Final = {(3, 44): 6, (3, 50): 7}  # backports of 3.51.3's fix of the WAL-reset bug


class Repeat(Exception):
    """Raised by a write that is to be undone and run again: what it built on has changed."""


class Tx:
    """One transaction: its connection, the time, and what to undo outside the database."""

    def __init__(self, conn: sa.Connection) -> None:
        self.conn = conn
        self.now = time.time()  # [s since 1970]
        self.undo: list[Callable[[], None]] = []
        self._t: float | None = None

    @property
    def t(self) -> float:
        """Lease time [s], read once per transaction."""
        if self._t is None:
            self._t = float(self.conn.execute(sa.select(tables.clock.c.t)).scalar_one())
        return self._t

    def on_rollback(self, undo: Callable[[], None]) -> None:
        """Calls `undo` if this transaction does not commit."""
        self.undo.append(undo)


class Database:
    """The readers' engine and the writer of one database URL."""

    def __init__(self, url: str) -> None:
        """Opens the database.

        Raises:
            StartupError: the URL is wrong or nobody answers there.
        """
        try:
            parsed = sa.make_url(url)
        except sa.exc.ArgumentError as error:
            raise StartupError(f"LMTUNE_DATABASE_URL is not a database URL: {error}") from None
        if parsed.drivername in ("postgres", "postgresql"):
            parsed = parsed.set(drivername="postgresql+psycopg")
        if parsed.get_backend_name() not in ("sqlite", "postgresql"):
            raise StartupError(
                f"LMTUNE_DATABASE_URL names {parsed.get_backend_name()}; "
                "use sqlite:///FILE or postgresql+psycopg://USER:PASSWORD@HOST/NAME"
            )
        self.url = parsed
        self.sqlite = parsed.get_backend_name() == "sqlite"
        self.reader, self.writer = self._engines()
        threads = 1 if self.sqlite else WRITERS
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="writer")
        self._probe()

    def _engines(self) -> tuple[sa.Engine, sa.Engine]:
        try:
            if not self.sqlite:
                engine = sa.create_engine(self.url, pool_pre_ping=True, pool_size=WRITERS + 8)
                snapshot = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
                return engine.execution_options(**snapshot), engine
            reader, writer = sa.create_engine(self.url), sa.create_engine(self.url, pool_size=1)
        except (ImportError, sa.exc.ArgumentError) as error:
            raise StartupError(f"the database driver is missing: {error}") from None
        _configure_sqlite(reader, "BEGIN", query_only=True)
        _configure_sqlite(writer, "BEGIN IMMEDIATE", query_only=False)
        return reader, writer

    def _probe(self) -> None:
        try:
            with self.writer.connect() as conn:
                conn.execute(sa.text("SELECT 1"))
        except DBAPIError as error:
            where = self.url.render_as_string(hide_password=True)
            raise StartupError(f"cannot open the database {where}: {_first_line(error)}") from None

    def submit(self, work: Callable[[Tx], ResultT]) -> Future[ResultT]:
        """Queues a write; the future ends when it is durable, or with its error."""
        return self._threads.submit(self._write, work)

    def write(self, work: Callable[[Tx], ResultT]) -> ResultT:
        """Runs a write; returns when it is durable."""
        return self.submit(work).result()

    def read(self, work: Callable[[sa.Connection], ResultT]) -> ResultT:
        """Runs a read on one snapshot of the database."""
        try:
            with self.reader.begin() as conn:
                return work(conn)
        except (DBAPIError, OverflowError) as error:
            raise _translated(error) from error

    def close(self) -> None:
        """Ends the writer after the writes it holds, and closes every connection."""
        self._threads.shutdown()
        self.reader.dispose()
        self.writer.dispose()

    def _write(self, work: Callable[[Tx], ResultT]) -> ResultT:
        for left in reversed(range(TRIES)):
            try:
                return self._once(work)
            except (DBAPIError, OverflowError, Repeat) as error:
                if left == 0 or not _repeatable(error):
                    raise _translated(error) from error
                time.sleep(0.01 * 2 ** (TRIES - left))
        raise AssertionError("unreachable")

    def _once(self, work: Callable[[Tx], ResultT]) -> ResultT:
        tx: Tx | None = None
        try:
            with self.writer.begin() as conn:
                tx = Tx(conn)
                result = work(tx)
        except BaseException:
            for undo in tx.undo if tx else ():
                undo()
            raise
        return result


def wal_is_safe(version: tuple[int, int, int]) -> bool:
    """True for a SQLite library without the WAL-reset bug (fixed in 3.51.3 and backports)."""
    backport = _WAL_FIXED.get(version[:2])
    return version >= (3, 51, 3) or (backport is not None and version[2] >= backport)


def _configure_sqlite(engine: sa.Engine, begin: str, *, query_only: bool) -> None:
    journal = "WAL" if wal_is_safe(sqlite3.sqlite_version_info) else "DELETE"

    def connected(connection: Any, _: Any) -> None:
        connection.isolation_level = None  # we say BEGIN ourselves
        connection.execute(f"PRAGMA busy_timeout = {_BUSY_MS}")
        if query_only:
            connection.execute("PRAGMA query_only = ON")
        else:
            connection.execute(f"PRAGMA journal_mode = {journal}")
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA foreign_keys = ON")

    sa.event.listen(engine, "connect", connected)
    sa.event.listen(engine, "begin", lambda conn: conn.exec_driver_sql(begin))


def _repeatable(error: Exception) -> bool:
    """True when the transaction surely had no effect and may simply be run again."""
    orig = getattr(error, "orig", None)
    conflict = getattr(orig, "sqlstate", None) in ("40001", "40P01")
    return isinstance(error, Repeat) or conflict or "database is locked" in str(orig)


def _translated(error: Exception) -> Exception:
    """Returns the error for the caller: a fault of the moment or of the caller's, or as it is."""
    if isinstance(error, OverflowError | sa.exc.DataError):
        message = "holds a number or a character that no column takes"
        return InvalidInput.of("request", message)
    if isinstance(error, sa.exc.OperationalError | sa.exc.InterfaceError | Repeat):
        return Unavailable("the database does not answer; try again")
    return error


def _first_line(error: DBAPIError) -> str:
    return str(error.orig).strip().splitlines()[0]


def insert_once(tx: Tx, table: sa.Table) -> Any:
    """Returns an INSERT that does nothing where the key exists."""
    dialect = postgresql if tx.conn.dialect.name == "postgresql" else sqlite
    return dialect.insert(table).on_conflict_do_nothing()
