"""The supervised loops of a server.

One moves the lease clock, settles what cannot be stolen and collects blobs that nothing points at.
The other keeps the launcher's workers: a cluster may take a minute to answer, and leases judged by
a clock that waits for it would be longer, or never end.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Final

from service.blobs import BlobFolder
from service.dispatch import sweep
from service.dispatch.context import Context
from service.launcher.base import Launcher, Lost
from service.leases import TICK_SECONDS
from service.store import workers
from service.store.database import Connection

logger = logging.getLogger(__name__)
COLLECT_SECONDS: Final = 30.0  # between collections of blobs


class Sweeper:
    """Runs in two threads of its own from `start` to `stop`."""

    def __init__(self, ctx: Context, launcher: Launcher, blobs: BlobFolder) -> None:
        self._ctx, self._launcher, self._blobs = ctx, launcher, blobs
        self._stopped = threading.Event()
        self._keeping = threading.Lock()  # the launcher is called from one thread at a time
        self._threads = [
            threading.Thread(target=self._run, args=(work,), name=name, daemon=True)
            for name, work in (("sweeper", self.once), ("keeper", self.keep))
        ]
        self._lost: list[Lost] = []  # and not told yet
        self._next_collection = time.monotonic() + COLLECT_SECONDS

    def start(self) -> None:
        """Begins to sweep."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Ends the loops after what they are at."""
        self._stopped.set()
        for thread in self._threads:
            thread.join()

    def drain(self, grace: float) -> None:
        """Lets the launcher's workers checkpoint and go, while the server still serves them."""
        with self._keeping:
            self._tell(self._launcher.stop(grace))

    def once(self) -> None:
        """One sweep; asks nobody but the database and the disk."""
        self._ctx.database.write(partial(sweep.tick, ctx=self._ctx))  # whatever fails below
        sweep.sweep(self._ctx)
        self._ctx.wake()  # leases run out, and other servers settle trials, without a word
        if time.monotonic() >= self._next_collection:
            self._next_collection = time.monotonic() + COLLECT_SECONDS
            self._collect()

    def keep(self) -> None:
        """Has as many workers run as studies can use, and records the dead; may take long."""
        with self._keeping:
            self._tell(self._launcher.keep(*self._ctx.database.read(self._wanted)))

    def _wanted(self, conn: Connection) -> tuple[int, frozenset[str]]:
        return sweep.wanted_workers(conn, self._ctx), workers.busy(conn)

    def _tell(self, lost: Iterable[Lost]) -> None:
        """Ends the attempts of lost workers; what the database cannot take now, next time."""
        self._lost += lost
        for worker in self._lost.copy():
            try:
                self._ctx.database.write(partial(sweep.worker_lost, ctx=self._ctx, lost=worker))
                self._lost.remove(worker)
            except Exception:
                logger.exception("the end of worker %s cannot be recorded yet", worker.worker)

    def _collect(self) -> None:
        """Removes blobs that nothing points at; a crash in the middle leaves them dying."""
        for sha256 in self._ctx.database.write(lambda tx: sweep.mark_unused_blobs(tx, self._ctx)):
            collect = partial(sweep.collect_blob, sha256=sha256, remove=self._blobs.remove)
            self._ctx.database.write(collect)

    def _run(self, work: Callable[[], None]) -> None:
        while not self._stopped.wait(TICK_SECONDS):
            try:
                work()
            except Exception:
                logger.exception("a sweep failed; the next one comes in %s s", TICK_SECONDS)
