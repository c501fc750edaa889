"""Server-sent events: a page hears what has changed, as soon as it is durable.

An event's id says how far its reader has read. A browser that was cut off sends the last one with
its next request (Last-Event-ID) and is told all that changed meanwhile, also by another server or
by this one after a restart.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Callable
from typing import Annotated, Any, Final

import anyio
from anyio import to_thread
from fastapi import APIRouter, Header
from sse_starlette import EventSourceResponse, ServerSentEvent

from service.dispatch.reading import Reading
from service.dispatch.watching import Changes
from service.figures.data import TrialData, finite
from service.figures.kept import Cursor
from service.routes.pulse import Beats, Pulse
from service.routes.reading import Read
from studies.errors import NotFound, Unavailable
from studies.trial import TrialState

PERIOD: Final = 0.5  # between two looks at most: another server may have written [s]
SPACING: Final = 0.1  # between two events of a stream at least [s]
TAIL: Final = 20  # points of a growing curve that an event repeats
MANY: Final = 200  # changed trials from which an event only says that there are more
_PING: Final = 15  # between two signs of life, for proxies that cut what is silent [s]
_GRACE: Final = 1.0  # for a stream to end by itself when the server goes down [s]
_LISTED: Final = 50  # the newest studies, whose changes the overview hears of

router = APIRouter(prefix="/api/v1", tags=["events"])
Look = Callable[[], ServerSentEvent | None]
LastEventId = Annotated[str | None, Header(description="the id of the last event that was heard")]


@router.get("/studies/{name}/events", response_class=EventSourceResponse)
async def study_events(
    name: str, read: Read, beats: Beats, last_event_id: LastEventId = None
) -> EventSourceResponse:
    """Returns a stream with an event `changed` now and after every change of the study."""
    await to_thread.run_sync(read.study, name)  # an unknown study is a 404, not a stream
    return _stream(StudyLook(read, name, cursor_of(last_event_id)), beats)


@router.get("/events", response_class=EventSourceResponse)
async def all_events(read: Read, beats: Beats) -> EventSourceResponse:
    """Returns a stream with an event `changed` now and after every change of studies or workers."""
    last: dict[str, Any] = {}

    def look() -> ServerSentEvent | None:
        now = overview(read)
        if now == last:
            return None
        last.update(now)
        return ServerSentEvent(data=json.dumps(now), event="changed")

    return _stream(look, beats, spacing=2 * PERIOD)


def overview(read: Reading) -> dict[str, Any]:
    """Returns what the pages of all studies and workers show; another answer is a change."""
    return {
        "studies": {view.name: view.revision for view in read.studies(False, None, _LISTED).items},
        "workers": {w.name: w.state + " draining" * w.draining for w in read.workers()},
        "counts": [(c.device, c.state, c.workers) for c in read.worker_counts()],
    }


def cursor_of(event_id: str | None) -> Cursor | None:
    """Returns how far the reader of this event has read; None for what is no id of ours."""
    found = re.fullmatch(r"(\d{1,18})-(\d{1,18})", event_id or "")
    return (int(found[1]), int(found[2])) if found else None


class StudyLook:
    """Looks at one study for one stream; remembers what it has told."""

    def __init__(self, read: Reading, name: str, since: Cursor | None) -> None:
        """`since` is how far the reader has read; None: up to now."""
        self._read, self._name, self._since = read, name, since
        self._last: Changes | None = None
        self._study: dict[str, Any] = {}

    def __call__(self) -> ServerSentEvent | None:
        """Returns the first event, or what has changed since the last one."""
        last, watch = self._last, self._read.watch
        if last is None and self._since is not None:
            found = watch.since(self._name, self._since)
        else:
            found = watch.changes(self._name, last.tick if last else None)
        if last is not None and found.cursor == last.cursor:
            return None
        if last is None or found.cursor[0] != last.cursor[0]:
            view = self._read.study(self._name)
            counts = {state.value: count for state, count in view.counts.items()}
            self._study = {"state": view.state.value, "counts": counts}
        self._last = found
        revision, report = found.cursor
        data = {"revision": revision, **self._study, **_told(found.trials)}
        event_id = f"{revision}-{report}"
        return ServerSentEvent(data=json.dumps(data), event="changed", id=event_id)


def _told(trials: list[TrialData]) -> dict[str, Any]:
    more = len(trials) > MANY
    return {"more": more, "trials": [] if more else [_trial(trial) for trial in trials]}


def _trial(trial: TrialData) -> dict[str, Any]:
    """Returns a changed trial; the curve of one that runs with its newest points."""
    running = trial.state is TrialState.RUNNING
    tail = list(zip(trial.curve, trial.spent, strict=True))[-TAIL:] if running else []
    return {
        "number": trial.number,
        "state": trial.state.value,
        "value": finite(trial.value),
        "step": trial.step,
        "points": [[step, finite(value), *spent] for (step, value), spent in tail],
    }


def _stream(look: Look, beats: Pulse, spacing: float = SPACING) -> EventSourceResponse:
    closing = anyio.Event()  # set when the server goes down: the stream then ends by itself
    return EventSourceResponse(
        changes(look, closing, beats, spacing),
        ping=_PING,
        shutdown_event=closing,
        shutdown_grace_period=_GRACE,
    )


async def changes(
    look: Look, closing: anyio.Event, beats: Pulse, spacing: float = SPACING
) -> AsyncIterator[ServerSentEvent]:
    """Yields the events that `look` returns.

    Args:
        look: returns an event, or None; called in a thread. A busy database is asked again.
        closing: ends the events.
        beats: when to look again; at the latest after PERIOD.
        spacing: between two events at least [s].
    """
    while not closing.is_set():
        seen, event = beats.count, None
        try:
            event = await to_thread.run_sync(look)
        except Unavailable:
            pass
        except NotFound:
            return
        if event is not None:
            yield event
            with anyio.move_on_after(spacing):
                await closing.wait()
        if not closing.is_set():
            await beats.wait(seen, PERIOD)
