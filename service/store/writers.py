"""The queue of writes, the threads that take from it, and how a caller gets its result."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from typing import Any, Final

from service.store.commits import Commits, Job, Many, Work
from studies.errors import Unavailable

QUEUE: Final = 4_096  # writes that may wait: what a writer does in a few seconds (measured, 0009)


class Writers:
    """Runs writes in the order in which they came.

    Invariant: a future ends when its write is durable, or never will be.
    """

    def __init__(self, commits: Commits, threads: int) -> None:
        """`commits` gives them their transactions (service/store/commits.py)."""
        self._commits = commits
        self._jobs: deque[Job] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self.after: Callable[[], object] = lambda: None  # called once writes have ended
        self._threads = [
            threading.Thread(target=self._run, name=f"writer-{n}", daemon=True)
            for n in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, work: Work, many: Many | None = None) -> Future[Any]:
        """Queues a write, from any thread; raises Unavailable where too many wait."""
        future: Future[Any] = Future()
        self.put(Job(work, future, many))
        return future

    def asubmit(self, work: Work, many: Many | None = None) -> asyncio.Future[Any]:
        """Queues a write from a running event loop; raises Unavailable where too many wait."""
        future = asyncio.get_running_loop().create_future()
        self.put(Job(work, future, many))
        return future

    def close(self) -> None:
        """Ends after the writes that wait."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()
        self._commits.close()

    def put(self, job: Job) -> None:
        """Queues a write; raises Unavailable where too many wait."""
        with self._changed:
            if self._closed:
                raise Unavailable("the server is going down")
            if len(self._jobs) >= QUEUE:
                raise Unavailable(f"{QUEUE} writes wait already; try again later")
            self._jobs.append(job)
            self._changed.notify()

    def _run(self) -> None:
        while (job := self._next()) is not None:
            _deliver(self._commits(job, self._more))
            self.after()

    def _next(self) -> Job | None:
        """Returns the write that waits longest, as soon as there is one; None once closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._jobs or self._closed)
            return self._more()

    def _more(self) -> Job | None:
        """Returns the write that waits longest, if one does."""
        try:
            return self._jobs.popleft()
        except IndexError:
            return None


def _deliver(jobs: Iterable[Job]) -> None:
    """Ends the futures; those of an event loop in one call of it."""
    loops: dict[asyncio.AbstractEventLoop, list[Job]] = {}
    for job in jobs:
        if isinstance(job.future, asyncio.Future):
            loops.setdefault(job.future.get_loop(), []).append(job)
        else:
            job.settle()
    for loop, of_loop in loops.items():
        with contextlib.suppress(RuntimeError):  # the loop has ended, and nobody waits
            loop.call_soon_threadsafe(_settle, of_loop)


def _settle(jobs: Iterable[Job]) -> None:
    for job in jobs:
        job.settle()
