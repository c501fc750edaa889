"""The bell: it wakes claims that wait for work, as many as there may be work for."""

from __future__ import annotations

import asyncio
from itertools import islice
from typing import Final

RUNG: Final = 4  # claims that a ring wakes; assumption
GRANTED: Final = 2  # claims that each grant wakes: there may be more where it came from; assumption


class Bell:
    """Wakes waiting claims in the order in which they came.

    A ring says that there may be work, not how much. It wakes a few claims, and each that gets a
    trial wakes two more: a thousand are served as fast as the writer goes, and a thousand that
    wait for nothing cost no more than a few. The sweeper rings every second, for what no other
    ring tells: leases that run out, and what other servers did.
    """

    def __init__(self) -> None:
        self.loop: asyncio.AbstractEventLoop | None = None  # of the server, once it runs
        self.closing = False  # the server is going down: waiting claims are answered at once
        self._waiting: dict[asyncio.Future[None], int] = {}  # who waits, and for which worker

    def ring(self) -> None:
        """Says that there may be work, or that the server is going down; from any thread."""
        if self.loop is not None and not self.loop.is_closed():
            self.loop.call_soon_threadsafe(self._wake_first, RUNG)

    async def wait(self, worker_id: int, seconds: float) -> None:
        """Returns when this claim is to look for work, at the latest after so many seconds."""
        woken = asyncio.get_running_loop().create_future()
        self._waiting[woken] = worker_id
        try:
            async with asyncio.timeout(seconds):
                await woken
        except TimeoutError:
            return
        finally:
            self._waiting.pop(woken, None)

    def granted(self, worker_id: int) -> None:
        """Says in the server's loop that a claim of this worker got a trial."""
        self.answered(worker_id)
        self._wake_first(GRANTED)

    def answered(self, worker_id: int) -> None:
        """Says in the server's loop that whatever this worker claimed is answered by now."""
        for woken in [w for w, waiting in self._waiting.items() if waiting == worker_id]:
            self._wake(woken)

    def pass_on(self) -> None:
        """Says in the server's loop that a claim was woken for nothing: its caller has gone."""
        self._wake_first(1)

    def _wake_first(self, count: int) -> None:
        for woken in list(islice(self._waiting, None if self.closing else count)):
            self._wake(woken)

    def _wake(self, woken: asyncio.Future[None]) -> None:
        del self._waiting[woken]
        if not woken.done():
            woken.set_result(None)
