"""How a write gets its transaction, and its caller the result.

On SQLite all writes that wait share one transaction, each in a savepoint of its own: a disk that
takes milliseconds to make a commit durable is waited for once for all of them (group commit). On
PostgreSQL, which does that by itself, each write is a transaction in one of a few threads.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final, Protocol

import sqlalchemy as sa

from service.store.tx import Repeat, Tx, broken, repeatable, translated
from studies.errors import Unavailable

logger = logging.getLogger(__name__)
THREADS: Final = 4  # on PostgreSQL; assumption
TRIES: Final = 5  # of a write that is to be run again
GROUP: Final = 256  # writes that share a transaction, at most; assumption: some 50 ms of them
QUEUE: Final = 4_096  # writes that may wait; more are refused: try again later
Work = Callable[[Tx], Any]


class Writer(Protocol):
    """Runs writes; the future of one ends when it is durable, or with its error."""

    def submit(self, work: Work) -> Future[Any]:
        """Queues a write, from any thread; raises Unavailable where too many wait."""

    def asubmit(self, work: Work) -> asyncio.Future[Any]:
        """Queues a write from a running event loop."""

    def close(self) -> None:
        """Ends after the writes it holds."""


class PoolWriter:
    """A few threads; each write is a transaction."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="writer")

    def submit(self, work: Work) -> Future[Any]:
        """Queues a write."""
        if self._threads._work_queue.qsize() >= QUEUE:
            raise _too_many()
        return self._threads.submit(self._write, work)

    def asubmit(self, work: Work) -> asyncio.Future[Any]:
        """Queues a write from a running event loop."""
        return asyncio.wrap_future(self.submit(work))

    def close(self) -> None:
        """Ends after the writes it holds."""
        self._threads.shutdown()

    def _write(self, work: Work) -> Any:
        for left in reversed(range(TRIES)):
            try:
                return self._once(work)
            except (sa.exc.SQLAlchemyError, OverflowError, Repeat) as error:
                if left == 0 or not repeatable(error):
                    raise translated(error) from error
                _back_off(TRIES - left)
        raise AssertionError("unreachable")

    def _once(self, work: Work) -> Any:
        tx: Tx | None = None
        try:
            with self._engine.begin() as conn:
                tx = Tx(conn)
                result = work(tx)
        except BaseException:
            if tx is not None:
                tx.undo()
            raise
        return result


class _Job:
    """A write that waits for its commit."""

    def __init__(self, work: Work, future: Future[Any] | asyncio.Future[Any]) -> None:
        self.work, self.future = work, future
        self.result: Any = None
        self.error: BaseException | None = None
        self.tx: Tx | None = None

    def undo(self) -> None:
        """Undoes what the write left outside the database."""
        if self.tx is not None:
            self.tx.undo()

    def settle(self) -> None:
        """Ends the future; where it is an event loop's, in that loop's thread."""
        if self.future.done():  # its caller has gone
            return
        if self.error is not None:
            self.future.set_exception(self.error)
        else:
            self.future.set_result(self.result)


class GroupWriter:
    """One thread; the writes that wait share one transaction and one wait for the disk.

    Invariant: a future ends only after the commit that holds its write. A write that raises is
    undone alone; when the commit fails nothing of the group is there and all are told so.
    """

    def __init__(self, engine: sa.Engine, on_broken: Callable[[Exception], None]) -> None:
        """`on_broken` is called when the database's disk or file fails."""
        self._engine, self._on_broken = engine, on_broken
        self._jobs: deque[_Job] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="writer", daemon=True)
        self._thread.start()

    def submit(self, work: Work) -> Future[Any]:
        """Queues a write."""
        future: Future[Any] = Future()
        self._put(_Job(work, future))
        return future

    def asubmit(self, work: Work) -> asyncio.Future[Any]:
        """Queues a write from a running event loop."""
        future = asyncio.get_running_loop().create_future()
        self._put(_Job(work, future))
        return future

    def close(self) -> None:
        """Ends after the writes it holds."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _put(self, job: _Job) -> None:
        with self._changed:
            if self._closed:
                raise Unavailable("the server is going down")
            if len(self._jobs) >= QUEUE:
                raise _too_many()
            self._jobs.append(job)
            self._changed.notify()

    def _run(self) -> None:
        while group := self._next():
            try:
                self._commit(group)
            except BaseException as error:  # a defect of ours: the writer lives on
                logger.exception("a group of writes failed")
                _fail(group, error)
            _deliver(group)

    def _next(self) -> list[_Job]:
        """Returns the writes that wait, as soon as there is one; none once it is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._jobs or self._closed)
            return [self._jobs.popleft() for _ in range(min(GROUP, len(self._jobs)))]

    def _commit(self, group: list[_Job]) -> None:
        try:
            with self._engine.begin() as conn:
                for job in group:
                    self._write(conn, job)
        except (sa.exc.SQLAlchemyError, OSError) as error:
            _fail(group, translated(error))
            if broken(error):
                self._on_broken(error)

    def _write(self, conn: sa.Connection, job: _Job) -> None:
        """Runs one write in a savepoint; raises only what ends the whole transaction."""
        for tried in range(1, TRIES + 1):
            raw: Any = conn.connection.driver_connection
            raw.execute("SAVEPOINT one_write")
            job.tx = Tx(conn)
            try:
                job.result = job.work(job.tx)
            except BaseException as error:
                job.undo()
                if not raw.in_transaction:  # SQLite has given the whole transaction up
                    raise
                raw.execute("ROLLBACK TO one_write")
                raw.execute("RELEASE one_write")
                if broken(error):
                    raise
                if tried < TRIES and repeatable(error):
                    _back_off(0 if isinstance(error, Repeat) else tried)
                    continue
                job.error = translated(error) if isinstance(error, Exception) else error
                return
            raw.execute("RELEASE one_write")
            return


def _fail(group: list[_Job], error: BaseException) -> None:
    """Tells every write of a group that it did not happen."""
    for job in reversed(group):
        job.undo()
        job.error = job.error or error


def _deliver(group: list[_Job]) -> None:
    """Ends the futures of a group; those of an event loop in one call of it."""
    loops: dict[asyncio.AbstractEventLoop, list[_Job]] = {}
    for job in group:
        if isinstance(job.future, asyncio.Future):
            loops.setdefault(job.future.get_loop(), []).append(job)
        else:
            job.settle()
    for loop, jobs in loops.items():
        with contextlib.suppress(RuntimeError):  # the loop has ended, and nobody waits
            loop.call_soon_threadsafe(_settle_all, jobs)


def _settle_all(jobs: list[_Job]) -> None:
    for job in jobs:
        job.settle()


def _too_many() -> Unavailable:
    return Unavailable(f"{QUEUE} writes wait already; try again later")


def _back_off(tried: int) -> None:
    if tried:
        time.sleep(0.01 * 2**tried)
