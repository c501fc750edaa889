"""How a write gets its transaction: on SQLite many share one, on PostgreSQL reports do.

A disk takes milliseconds to make a commit durable. SQLite has one writer, so that the writes which
wait for it share one wait for the disk, each in a savepoint of its own (group commit). PostgreSQL
has many, who wait for each other's rows: there plain reports and heartbeats, which lock nothing but
their own trial's row, share statements and a transaction, and all others have one each
(docs/decisions/0009-the-write-path.md).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Final, Protocol

import sqlalchemy as sa

from service.store.tx import Tx, broken, conflicting, repeatable, said, translated
from studies.errors import Unavailable

logger = logging.getLogger(__name__)
TRIES: Final = 5  # of a write that is to be run again
GROUP_SECONDS: Final = 0.05  # a group takes no further write after this; assumption
GROUP: Final = 256  # writes that share a transaction on PostgreSQL; assumption
PATIENCE: Final = "SET LOCAL lock_timeout = '200ms'"  # of a group for a row; assumption
WAIT_SECONDS: Final = 15.0  # the longest that a write waits for its turn: its caller waits for 30
UNKNOWN: Final = "the database did not say whether it is stored"
Work = Callable[[Tx], Any]


@dataclass(frozen=True)
class Many:
    """How PostgreSQL does a write for many at once; it locks its own trial's row and no other.

    Attributes:
        do: returns what came of each of those said; None of one whose `work` is to be run instead.
        said: this write's own.
    """

    do: Callable[[Tx, list[Any]], Sequence[Any | None]]
    said: Any


class Job:
    """A write, and after its transaction what came of it."""

    def __init__(
        self,
        work: Work,
        future: Future[Any] | asyncio.Future[Any],
        many: Many | None = None,
    ) -> None:
        self.work, self.future, self.many = work, future, many
        self.result: Any = None
        self.error: BaseException | None = None
        self.tx: Tx | None = None
        self._queued = time.monotonic()

    def run(self, conn: sa.Connection) -> None:
        """Does the work; raises what it raises."""
        if time.monotonic() - self._queued > WAIT_SECONDS:
            raise Unavailable("too many writes wait; try again later")
        self.tx = Tx(conn)
        self.result = self.work(self.tx)

    def undo(self) -> None:
        """Undoes what the work left outside the database."""
        if self.tx is not None:
            self.tx.undo()

    def fail(self, error: BaseException) -> None:
        """Says that the write did not happen."""
        self.undo()
        self.error = translated(error)

    def committed(self) -> None:
        """Says that the transaction has committed: a write that did not fail is durable."""
        if self.tx is not None and self.error is None:
            self.tx.committed()

    def settle(self) -> None:
        """Ends the future; where it is an event loop's, in that loop's thread."""
        if self.future.done():  # its caller has gone
            return
        if self.error is not None:
            self.future.set_exception(self.error)
        else:
            self.future.set_result(self.result)


class Commits(Protocol):
    """Gives writes their transactions; called by the writer's threads."""

    def __call__(self, first: Job, more: Callable[[], Job | None]) -> list[Job]:
        """Runs `first` and maybe those that wait behind it; returns what it ran, each ended."""

    def close(self) -> None:
        """Lets go of the database."""


class OneByOne:
    """A transaction for each write; run again where the database asks for that."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    def __call__(self, first: Job, more: Callable[[], Job | None]) -> list[Job]:
        """Runs the first."""
        for tried in range(1, TRIES + 1):
            try:
                self._once(first)
            except BaseException as error:
                if tried < TRIES and repeatable(error):
                    first.undo()
                    time.sleep(0.01 * 2**tried)
                    continue
                first.fail(error)
            break
        first.committed()
        return [first]

    def close(self) -> None:
        """Nothing is held between two writes."""

    def _once(self, job: Job) -> None:
        committing = False
        try:
            with self._engine.begin() as conn:
                job.run(conn)
                committing = True
        except sa.exc.DBAPIError as error:
            if committing and not conflicting(error):  # its caller asks again, with the same key
                raise Unavailable(UNKNOWN) from error
            raise


class Together:
    """One transaction for all writes that wait and can be done for many at once (`Many`).

    What it does not do, and everything where the transaction fails or waits long for a row, is
    handed to the writers who run one by one, so that nobody waits for a row that is not his.
    """

    def __init__(self, engine: sa.Engine, alone: Callable[[Job], None]) -> None:
        """`alone` queues a write that is to have a transaction of its own."""
        self._engine, self._alone = engine, alone

    def __call__(self, first: Job, more: Callable[[], Job | None]) -> list[Job]:
        """Runs the first and those that wait behind it; returns those that have ended."""
        group = [first]
        while len(group) < GROUP and (job := more()) is not None:
            group.append(job)
        committing = False
        try:
            with self._engine.begin() as conn:
                conn.exec_driver_sql(PATIENCE)
                left = _at_once(Tx(conn), group)
                committing = True
        except BaseException as error:
            left = group
            if committing and not conflicting(error):
                for job in group:
                    job.fail(Unavailable(UNKNOWN))
                return group
        return [job for job in group if job not in left or not self._handed_on(job)]

    def _handed_on(self, job: Job) -> bool:
        try:
            self._alone(job)
        except Unavailable as error:
            job.fail(error)
            return False
        return True

    def close(self) -> None:
        """Nothing is held between two groups."""


def _at_once(tx: Tx, group: list[Job]) -> list[Job]:
    """Does what can be done for many; returns those that were not done."""
    kinds: dict[Any, list[Job]] = {}
    for job in group:
        assert job.many is not None  # noqa: S101 - no other comes here
        kinds.setdefault(job.many.do, []).append(job)
    left = []
    for do, jobs in kinds.items():
        said = [job.many.said for job in jobs if job.many is not None]
        for job, result in zip(jobs, do(tx, said), strict=True):
            job.result = result
            if result is None:
                left.append(job)
    return left


class GroupCommit:
    """One transaction for all that waits, by one thread on one connection.

    A write that raises is undone alone. When the transaction fails, nothing of the group is there,
    and all are told so, also those that were refused: what refused them may be gone.
    """

    def __init__(self, engine: sa.Engine, on_broken: Callable[[BaseException], None]) -> None:
        """`on_broken` is called when the database's disk or file fails."""
        self._engine, self._on_broken = engine, on_broken
        self._conn: sa.Connection | None = None

    def __call__(self, first: Job, more: Callable[[], Job | None]) -> list[Job]:
        """Runs the first and those that wait behind it, for a while."""
        group, end = [first], time.monotonic() + GROUP_SECONDS
        try:
            self._conn = self._conn or self._engine.connect()
            with self._conn.begin():
                _write(self._conn, first)
                while time.monotonic() < end and (job := more()) is not None:
                    group.append(job)
                    _write(self._conn, job)
        except BaseException as error:
            self._failed(group, error)
        for job in group:
            job.committed()
        return group

    def _failed(self, group: list[Job], error: BaseException) -> None:
        logger.warning("a transaction of %d writes failed: %s", len(group), said(error))
        self.close()
        for job in reversed(group):
            job.fail(Unavailable("the database could not store it; try again"))
        if broken(error):
            self._on_broken(error)

    def close(self) -> None:
        """Closes the connection; the next write opens one."""
        if self._conn is not None:
            self._conn.close()
            self._conn = None


def _write(conn: sa.Connection, job: Job) -> None:
    """Runs one write in a savepoint; raises only what ends the whole transaction."""
    raw: Any = conn.connection.driver_connection
    for tried in range(1, TRIES + 1):
        raw.execute("SAVEPOINT one_write")
        try:
            job.run(conn)
        except BaseException as error:
            if broken(error) or not raw.in_transaction:  # SQLite itself has given it up
                raise
            raw.execute("ROLLBACK TO one_write")
            if tried < TRIES and repeatable(error):
                job.undo()
                continue
            job.fail(error)
        raw.execute("RELEASE one_write")
        return
