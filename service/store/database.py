"""One database: an engine for its readers, and the writer through which every write goes.

On SQLite the writer is one thread with one connection, Optuna's rows included, so that no write
ever waits for another in the middle. On Postgres it is a few threads; rows are locked in the order
worker, study, trial; a heartbeat, which holds its trial, never waits for its worker.
service/store/commits.py has both. A write is a function of a `Tx`; it may run more than once and
must keep everything it changes in the transaction (`Tx.on_rollback` is for what it cannot).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Final, TypeVar

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DBAPIError

from service.store import files
from service.store.commits import GroupCommit, OneByOne, Together
from service.store.commits import Many as Many
from service.store.driver import JOURNAL, driver
from service.store.tx import Repeat as Repeat
from service.store.tx import Tx as Tx
from service.store.tx import first_line, translated
from service.store.writers import Writers
from studies.errors import StartupError

ResultT = TypeVar("ResultT")
Row = sa.Row[Any]
Connection = sa.Connection
THREADS: Final = 4  # that write to Postgres; assumption
READERS: Final = 8  # connections kept for readers of Postgres; assumption
# Postgres ends a transaction of ours that stands still, as of a server that was frozen or cut off:
# no other server waits longer for the rows that it holds. Assumption: no live one takes so long.
_IDLE: Final = "SET idle_in_transaction_session_timeout = '5s'"
_BUSY_MS: Final = 10_000  # how long SQLite waits for a foreign reader [ms]


class Database:
    """The readers' engine and the writer of one database URL."""

    def __init__(self, url: str, on_broken: Callable[[BaseException], None] | None = None) -> None:
        """Opens the database; `on_broken` is called when a SQLite file or its disk fails.

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
        if self.sqlite:
            files.prepare(parsed.database)
        self.reader, self.writer = self._engines()
        self._probe()
        if self.sqlite:
            group = GroupCommit(self.writer, on_broken or (lambda _: None))
            self._writers = self._together = Writers(group, 1)
        else:
            self._writers = Writers(OneByOne(self.writer), THREADS)
            self._together = Writers(Together(self.writer, self._writers.put), 1)

    @property
    def kind(self) -> str:
        """What keeps the rows, for the log; SQLite's version decides on the journal."""
        version = f"SQLite {driver.sqlite_version}, journal {JOURNAL}"
        return version if self.sqlite else "PostgreSQL"

    def _engines(self) -> tuple[sa.Engine, sa.Engine]:
        try:
            if not self.sqlite:
                snapshot = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
                reader = sa.create_engine(
                    self.url, pool_pre_ping=True, pool_size=READERS, execution_options=snapshot
                )
                # No ping: a write whose connection is lost is run again on another.
                writer = sa.create_engine(self.url, pool_size=THREADS + 1)
                sa.event.listen(writer, "connect", _never_idle)
                return reader, writer
            reader = sa.create_engine(self.url, module=driver)
            writer = sa.create_engine(self.url, module=driver, pool_size=1)
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
            raise StartupError(f"cannot open the database {where}: {first_line(error)}") from None

    def submit(self, work: Callable[[Tx], ResultT], many: Many | None = None) -> Future[ResultT]:
        """Queues a write; the future ends when it is durable, or with its error.

        `many` says how PostgreSQL does it together with others.
        """
        return (self._together if many else self._writers).submit(work, many)

    def asubmit(
        self, work: Callable[[Tx], ResultT], many: Many | None = None
    ) -> asyncio.Future[ResultT]:
        """Queues a write from a running event loop; see `submit`."""
        return (self._together if many else self._writers).asubmit(work, many)

    def on_write(self, call: Callable[[], object]) -> None:
        """Has `call` called after every write, from the thread that wrote; it must not raise."""
        self._writers.after = self._together.after = call

    def write(self, work: Callable[[Tx], ResultT]) -> ResultT:
        """Runs a write; returns when it is durable."""
        return self.submit(work).result()

    def read(self, work: Callable[[sa.Connection], ResultT]) -> ResultT:
        """Runs a read on one snapshot of the database."""
        try:
            with self.reader.begin() as conn:
                return work(conn)
        except (sa.exc.SQLAlchemyError, OverflowError) as error:
            raise translated(error) from error

    def close(self) -> None:
        """Ends the writer after the writes it holds, and closes every connection."""
        self._together.close()  # first: it hands on to the others
        self._writers.close()
        self.reader.dispose()
        self.writer.dispose()


def _configure_sqlite(engine: sa.Engine, begin: str, *, query_only: bool) -> None:
    def connected(connection: Any, _: Any) -> None:
        connection.isolation_level = None  # we say BEGIN ourselves
        connection.execute(f"PRAGMA busy_timeout = {_BUSY_MS}")
        if query_only:
            connection.execute("PRAGMA query_only = ON")
        else:
            connection.execute(f"PRAGMA journal_mode = {JOURNAL}")
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA foreign_keys = ON")

    sa.event.listen(engine, "connect", connected)
    sa.event.listen(engine, "begin", lambda conn: conn.exec_driver_sql(begin))


def _never_idle(connection: Any, _: Any) -> None:
    connection.execute(_IDLE)
    connection.commit()


def insert_once(tx: Tx, table: sa.Table) -> Any:
    """Returns an INSERT that does nothing where the key exists."""
    dialect = postgresql if tx.conn.dialect.name == "postgresql" else sqlite
    return dialect.insert(table).on_conflict_do_nothing()
