"""What the server says of its workers: how much of their time they held trials."""

from __future__ import annotations

import pytest

from tests.service.world import World


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
