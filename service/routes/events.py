"""Server-sent events: a page hears that something has changed, and reads it again.

An event carries no data that a page could not read; a browser that was away hears the present
state first, so nothing has to be replayed.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

import anyio
from anyio import to_thread
from fastapi import APIRouter
from sse_starlette import EventSourceResponse, ServerSentEvent

from service.routes.reading import Read
from studies.errors import NotFound, Unavailable

PERIOD: Final = 0.5  # between two looks [s]
_PING: Final = 15  # between two signs of life, for proxies that cut what is silent [s]
_GRACE: Final = 1.0  # for a stream to end by itself when the server goes down [s]
_LISTED: Final = 50  # the newest studies, whose changes the overview hears of

router = APIRouter(prefix="/api/v1", tags=["events"])
Look = Callable[[], dict[str, Any]]


@router.get("/studies/{name}/events", response_class=EventSourceResponse)
async def study_events(name: str, read: Read) -> EventSourceResponse:
    """Returns a stream with an event `changed` now and after every change of the study."""
    await to_thread.run_sync(read.study, name)  # an unknown study is a 404, not a stream
    seen: dict[str, Any] = {}

    def look() -> dict[str, Any]:
        revision, reports = read.stamp(name)
        if (revision, reports) != (seen.get("revision"), seen.get("reports")):
            view = read.study(name)
            counts = {state.value: count for state, count in view.counts.items()}
            seen.update(revision=revision, reports=reports, state=view.state.value, counts=counts)
        return dict(seen)

    return _stream(look)


@router.get("/events", response_class=EventSourceResponse)
async def all_events(read: Read) -> EventSourceResponse:
    """Returns a stream with an event `changed` now and after every change of studies or workers."""

    def look() -> dict[str, Any]:
        studies = {view.name: view.revision for view in read.studies(False, None, _LISTED).items}
        workers = {worker.name: worker.state for worker in read.workers()}
        return {"studies": studies, "workers": workers}

    return _stream(look, period=2 * PERIOD)


def _stream(look: Look, period: float = PERIOD) -> EventSourceResponse:
    closing = anyio.Event()  # set when the server goes down: the stream then ends by itself
    return EventSourceResponse(
        changes(look, closing, period),
        ping=_PING,
        shutdown_event=closing,
        shutdown_grace_period=_GRACE,
    )


async def changes(
    look: Look, closing: anyio.Event, period: float = PERIOD
) -> AsyncIterator[ServerSentEvent]:
    """Yields an event whenever `look` returns something else, and once at the start.

    Args:
        look: reads the present state; called in a thread. A server that is busy is asked again.
        closing: ends the events.
        period: between two looks [s].
    """
    last: dict[str, Any] | None = None
    while not closing.is_set():
        try:
            now = await to_thread.run_sync(look)
        except Unavailable:
            now = last or {}
        except NotFound:
            return
        if now != last:
            last = now
            yield ServerSentEvent(data=json.dumps(now), event="changed")
        with anyio.move_on_after(period):
            await closing.wait()
