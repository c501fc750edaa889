"""The pulse: it wakes the streams of events when this server has written something."""

from __future__ import annotations

import asyncio
from typing import Annotated, cast

from fastapi import Depends, Request


class Pulse:
    """Counts writes; who has seen one count can wait for the next.

    It says that something may have changed, not what. What other servers of the same database
    write it does not hear, so nobody waits for it for long.
    """

    def __init__(self) -> None:
        self.count = 0
        self._waiting: set[asyncio.Future[None]] = set()

    def beat(self) -> None:
        """Says that something was written; from any thread."""
        self.count += 1
        for waiting in tuple(self._waiting):
            loop = waiting.get_loop()
            if not loop.is_closed():
                loop.call_soon_threadsafe(_wake, waiting)

    async def wait(self, seen: int, seconds: float) -> None:
        """Returns when the count is another, at the latest after so many seconds."""
        waiting = asyncio.get_running_loop().create_future()
        self._waiting.add(waiting)  # before the look at the count: no beat falls between the two
        try:
            if self.count == seen:
                await asyncio.wait_for(waiting, seconds)
        except TimeoutError:
            return
        finally:
            self._waiting.discard(waiting)


def _wake(waiting: asyncio.Future[None]) -> None:
    if not waiting.done():
        waiting.set_result(None)


def pulse(request: Request) -> Pulse:
    """Returns the server's pulse."""
    return cast(Pulse, request.app.state.pulse)


Beats = Annotated[Pulse, Depends(pulse)]
