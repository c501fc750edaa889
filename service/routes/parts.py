"""How routes reach the parts of the server, and hand a write to the writer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, TypeVar, cast

from fastapi import Depends, Request

from service.blobs import BlobFolder
from service.dispatch.context import Context
from service.dispatch.reading import Reading
from service.launcher.base import Launcher, NoLauncher
from service.routes.bell import Bell
from service.store.database import Many, Tx

ResultT = TypeVar("ResultT")


@dataclass(frozen=True)
class Parts:
    """What the routes call; one per app."""

    ctx: Context
    reading: Reading
    blobs: BlobFolder
    bell: Bell
    max_blob_bytes: int  # of one
    max_blobs_bytes: int  # of all; 0: no cap
    launcher: Launcher = field(default_factory=NoLauncher)
    public_url: str = ""  # empty: as each request names the server
    turns: dict[int, asyncio.Lock] = field(default_factory=dict)  # to ask, by study

    def write(self, work: Callable[[Tx], ResultT]) -> ResultT:
        """Runs a write from a plain route; returns when it is durable."""
        return self.ctx.database.write(work)

    async def awrite(self, work: Callable[[Tx], ResultT], many: Many | None = None) -> ResultT:
        """Hands a write to the writer from an async route; returns when it is durable."""
        return await self.ctx.database.asubmit(work, many)

    async def in_turn(
        self, study_id: int, seconds: float, work: Callable[[], ResultT]
    ) -> ResultT | None:
        """Runs what asks a study's sampler in a thread, first come first served.

        Returns None when its turn did not come in that many seconds.
        """
        turn = self.turns.setdefault(study_id, asyncio.Lock())
        try:
            async with asyncio.timeout(seconds):
                await turn.acquire()
        except TimeoutError:
            return None
        try:
            return await asyncio.to_thread(work)
        finally:
            turn.release()


async def parts(request: Request) -> Parts:
    """Returns the app's parts."""
    return cast(Parts, request.app.state.parts)


Lmtune = Annotated[Parts, Depends(parts)]
