"""The supervised loop of a server.

It moves the lease clock, settles what cannot be stolen, keeps the launcher's workers and collects
blobs that nothing points at.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable
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
    """Runs in a thread of its own from `start` to `stop`."""

    def __init__(self, ctx: Context, launcher: Launcher, blobs: BlobFolder) -> None:
        self._ctx, self._launcher, self._blobs = ctx, launcher, blobs
        self._stopped = threading.Event()
        self._keeping = threading.Lock()  # the launcher is called from one thread at a time
        self._thread = threading.Thread(target=self._run, name="sweeper", daemon=True)
        self._lost: list[Lost] = []  # and not told yet
        self._next_collection = time.monotonic() + COLLECT_SECONDS

    def start(self) -> None:
        """Begins to sweep."""
        self._thread.start()

    def stop(self) -> None:
        """Ends the loop after the sweep it is in."""
        self._stopped.set()
        self._thread.join()

    def drain(self, grace: float) -> None:
        """Lets the launcher's workers checkpoint and go, while the server still serves them."""
        with self._keeping:
            self._tell(self._launcher.stop(grace))

    def once(self) -> None:
        """One sweep."""
        self._ctx.database.write(partial(sweep.tick, ctx=self._ctx))  # whatever fails below
        sweep.sweep(self._ctx)
        self._ctx.wake()  # leases run out, and other servers settle trials, without a word
        if self._keeping.acquire(blocking=False):
            try:
                self._tell(self._launcher.keep(*self._ctx.database.read(self._wanted)))
            finally:
                self._keeping.release()
        if time.monotonic() >= self._next_collection:
            self._next_collection = time.monotonic() + COLLECT_SECONDS
            self._collect()

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

    def _run(self) -> None:
        while not self._stopped.wait(TICK_SECONDS):
            try:
                self.once()
            except Exception:
                logger.exception("a sweep failed; the next one comes in %s s", TICK_SECONDS)
