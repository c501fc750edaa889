"""Server-sent events: pushed once something is durable, told again after a reconnect."""

import asyncio
import json
import time

import anyio
import pytest
from sse_starlette import ServerSentEvent

from service.routes.events import MANY, StudyLook, changes, cursor_of
from service.routes.pulse import Pulse
from studies.errors import NotFound, Unavailable
from tests.harness.process import PATIENCE


def told(event):
    return event and json.loads(event.data)


def taken(look, count, beats=None):
    """Returns what the first events say that `changes` yields."""

    async def take():
        found, beating = [], beats or Pulse()
        stream = changes(look, anyio.Event(), beating, spacing=0.001)
        async for event in stream:
            found.append(told(event))
            if len(found) == count:
                break
            beating.beat()
        await stream.aclose()
        return found

    return anyio.run(take)


def test_events_outlive_a_busy_database_and_end_with_the_study():
    answers = iter([{"n": 1}, Unavailable("busy"), None, {"n": 2}, NotFound("gone")])

    def look():
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer and ServerSentEvent(data=json.dumps(answer))

    assert taken(look, 3) == [{"n": 1}, {"n": 2}]


def test_events_end_when_the_server_goes_down():
    async def close():
        closing = anyio.Event()
        with anyio.fail_after(5 * PATIENCE):
            async for _ in changes(lambda: ServerSentEvent(data="1"), closing, Pulse(), spacing=60):
                closing.set()

    anyio.run(close)


def test_a_beat_wakes_who_waits_and_none_falls_between_look_and_wait():
    async def wait():
        beats = Pulse()
        seen = beats.count
        beats.beat()  # after the look, before the wait
        await asyncio.wait_for(beats.wait(seen, 60), 5 * PATIENCE)
        waiting = asyncio.create_task(beats.wait(beats.count, 60))
        await asyncio.sleep(0)
        await asyncio.to_thread(beats.beat)
        await asyncio.wait_for(waiting, 5 * PATIENCE)
        start = time.monotonic()
        await beats.wait(beats.count, 0.01)  # nobody writes: it ends by itself
        assert time.monotonic() - start < 5 * PATIENCE

    asyncio.run(wait())


def test_a_write_beats(small_world):
    beats = Pulse()
    small_world.db.on_write(beats.beat)
    small_world.open()
    assert beats.count > 0


@pytest.mark.parametrize(
    ("text", "cursor"), [("12-345", (12, 345)), ("x", None), ("-1-2", None), (None, None)]
)
def test_an_id_is_a_cursor_or_nothing(text, cursor):
    assert cursor_of(text) == cursor


def test_an_event_tells_the_state_first_and_then_every_change(world):
    world.open()
    look = StudyLook(world.reading, "study", None)
    first = told(look())
    assert first["state"] == "RUNNING"
    assert first["trials"] == []
    assert look() is None
    worker = world.worker()
    held = worker.claim()
    assert [trial["state"] for trial in told(look())["trials"]] == ["RUNNING"]
    held.report((10, 3.0))
    (grown,) = told(look())["trials"]
    assert (grown["step"], grown["value"]) == (10, 3.0)
    assert [point[:2] for point in grown["points"]] == [[10, 3.0]]
    held.report((20, float("nan")))
    assert told(look())["trials"][0]["points"][-1][:2] == [20, None]
    assert look() is None


def test_a_reader_that_was_away_hears_all_it_missed(world):
    world.open()
    worker = world.worker()
    held = worker.claim()
    held.report((10, 3.0))
    last = StudyLook(world.reading, "study", None)().id
    held.report((20, 2.0))
    other = world.restarted()  # it has seen none of this
    again = told(StudyLook(other.reading, "study", cursor_of(last))())
    assert [trial["number"] for trial in again["trials"]] == [0]
    assert again["trials"][0]["points"][-1][:2] == [20, 2.0]
    now = StudyLook(other.reading, "study", None)().id
    assert told(StudyLook(other.reading, "study", cursor_of(now))())["trials"] == []


def test_too_many_changes_are_not_named(world):
    world.open(budget={"trials": MANY + 1})
    look = StudyLook(world.reading, "study", None)
    look()
    for _ in range(MANY + 1):
        world.enqueue(learning_rate=1e-3)
    event = told(look())
    assert event["more"] is True
    assert event["trials"] == []
