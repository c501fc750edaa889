"""What the server says of its workers: how many there are, and what they did with their time."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.dispatch import claim
from service.routes.events import overview
from studies import fleet, wire
from studies.client import Client
from studies.errors import NotFound
from tests.service.live import Live
from tests.service.pages import Tags, client_of
from tests.service.world import LEASE, World

MANY = 250  # more than a list has


def registered(world: World) -> list[str]:
    """Makes MANY workers known, the first two with two GPUs each; returns their names."""
    bodies = [
        wire.RegisterBody(
            name=f"w{number}", host="box", pid=1, device="2 x A" if number < 2 else "cpu",
            protocol=wire.PROTOCOL, code_hash="c",
        )
        for number in range(MANY)
    ]  # fmt: skip
    world.db.write(lambda tx: [claim.register(tx, world.ctx, body) for body in bodies])
    return [body.name for body in bodies]


def test_workers_are_counted_by_device_and_state_however_many_there_are(world: World) -> None:
    names = registered(world)
    world.open()
    assert world.worker(names[0]).claim()
    assert fleet.in_words(world.reading.worker_counts()) == "250 workers, 1 busy; 4 GPUs"
    before = overview(world.reading)
    assert names[-1] not in before["workers"]
    world.change("workers", {"name": names[-1]}, gone=True)
    assert overview(world.reading) != before  # an open page hears of it, too
    world.advance(LEASE + 1)
    counts = world.reading.worker_counts()
    assert fleet.in_words(counts) == "0 workers, 0 busy; 249 lost"
    assert fleet.number(counts, "gone") == 1


def test_a_study_does_not_wait_for_what_worker_201_has(world: World) -> None:
    names = registered(world)
    world.open(resources={"devices": 2})
    assert world.reading.study("study").lacking == "2 devices"
    world.change("workers", {"name": names[0]}, resources={"devices": 2}, seen_at=0.0)
    assert world.reading.study("study").lacking is None


def test_worker_201_is_counted_and_found_on_pages_and_by_the_client(
    sqlite_url: str, tmp_path: Path
) -> None:
    with Live(sqlite_url, tmp_path / "home") as live:
        names = registered(World(live.parts.ctx.database))

        def said(path: str) -> str:
            return " ".join(Tags(live.api.get(path).text).text.split())

        for path in ("/", "/workers"):
            assert "250 workers, 0 busy; 4 GPUs" in said(path)
            assert "and 50 more" in said(path)
        assert 'lmtune_workers{state="idle"} 250' in live.api.get("/metrics").text
        client: Client = live.client
        assert fleet.number(client.worker_counts(), "idle") == MANY
        assert len(client.workers()) == 200
        assert {worker.name for worker in client.workers(limit=1_000)} == set(names)
        for name in (names[0], names[-1]):
            with pytest.raises(NotFound, match="did not start it"):
                client.worker_log(name)


def test_utilisation_is_the_part_of_its_time_in_which_a_worker_held_trials(world: World) -> None:
    world.open()
    busy, idle, new = (world.worker(name) for name in ("busy", "idle", "new"))
    busy.run()
    held = busy.claim()
    for worker in (busy, idle):
        world.change("workers", {"id": worker.id}, registered_at=100.0, seen_at=200.0)
    world.change("workers", {"id": new.id}, registered_at=100.0, seen_at=100.0)
    first = {"trial_id": world.trial(0).id}
    world.change("attempts", first, started_at=110.0, ended_at=130.0)
    world.change("attempts", {"trial_id": held.grant.trial_id}, started_at=150.0)

    def measured() -> dict:
        return {view.name: view.utilisation for view in world.reading.workers(measured=True)}

    assert measured() == {"busy": pytest.approx(0.7), "idle": 0.0, "new": None}
    world.change("attempts", first, ended_at=1_000.0)  # its end was seen late, by others
    assert measured()["busy"] == 1.0
    assert {view.utilisation for view in world.reading.workers()} == {None}


def test_a_study_that_may_have_more_workers_than_are_there_says_so(small_world: World) -> None:
    small_world.open(resources={"workers": 4})
    small_world.worker().claim()

    def said() -> str:
        page = client_of(small_world.reading).get("/studies/study").text
        return " ".join(Tags(page).text.split())

    assert "1 of at most 4" in said()
    assert "1 of the 4 workers that it may have is here: start another" in said()
    for name in "bcd":
        small_world.worker(name)
    assert "that it may have" not in said()
