"""A study's life: budget, pause, resume, stop, wall time, the breaker."""

from __future__ import annotations

import itertools
import time

import pytest

from service.dispatch.studies import _to, archive, running_seconds
from studies.errors import Conflict, DuplicateName, NotFound
from studies.trial import STUDY_TRANSITIONS, StudyState
from tests.service.world import World

ILLEGAL_MOVES = [
    pair
    for pair in itertools.product(StudyState, repeat=2)
    if pair[1] not in STUDY_TRANSITIONS[pair[0]]
]


def test_no_illegal_move_of_a_study_happens(small_world: World) -> None:
    small_world.open()
    for before, after in ILLEGAL_MOVES:
        small_world.change("studies", {"name": "study"}, state=before)
        study = small_world.study()
        with pytest.raises(AssertionError, match="not a transition"):
            small_world.db.write(lambda tx, s=study, to=after: _to(tx, s, to))
        assert small_world.study() == study


# ------------------------------------------------------------------ budget


def test_a_study_ends_when_the_budget_is_used(world: World) -> None:
    world.open(budget={"trials": 3})
    worker = world.worker()
    for _ in range(3):
        assert world.study().state == "RUNNING"
        worker.run()
    study = world.study()
    assert (study.state, study.reason) == ("ENDED", "budget")
    assert study.ended_at is not None
    assert worker.claim() is None
    assert world.states() == ["COMPLETE"] * 3


def test_failed_and_pruned_trials_fill_slots_and_cancelled_ones_do_not(small_world: World) -> None:
    small_world.open(budget={"trials": 2})
    worker = small_world.worker()
    worker.claim().finish("diverged", 0)
    small_world.enqueue()
    with pytest.raises(Conflict, match="all 2 trials"):
        small_world.enqueue()
    small_world.cancel(1)
    assert worker.claim().grant.number == 2
    assert worker.claim() is None


def test_enqueued_trials_take_slots(small_world: World) -> None:
    small_world.open(budget={"trials": 3})
    for _ in range(2):
        small_world.enqueue()
    worker = small_world.worker()
    assert [worker.claim().grant.number for _ in range(3)] == [0, 1, 2]
    assert worker.claim() is None


# ------------------------------------------------------------------ pause and resume


def test_a_pause_ends_claims_and_resuming_goes_on(world: World) -> None:
    world.open()
    worker = world.worker()
    held = worker.claim()
    assert world.pause().reason == "person"
    assert worker.claim() is None
    assert held.heartbeat(5) == "pause"
    assert held.report((10, 1.0)).decision == "pause"
    held.checkpoint(10)
    assert held.finish("paused", 10) == "PAUSED"
    world.resume()
    assert (world.trial().state, world.trial().paused_by) == ("WAITING", None)
    grant = worker.claim().grant
    assert (grant.number, grant.attempt, grant.resume.step) == (0, 2, 10)


def test_a_trial_that_is_resumed_before_it_paused_goes_on(small_world: World) -> None:
    small_world.open()
    held = small_world.worker().claim()
    small_world.pause()
    small_world.resume()
    assert held.heartbeat(5) == "continue"
    assert held.train() == "COMPLETE"


def test_a_worker_that_paused_though_resumed_meanwhile_releases(small_world: World) -> None:
    small_world.open()
    held = small_world.worker().claim()
    small_world.pause()
    small_world.resume()
    assert held.finish("paused", 0) == "WAITING"


def test_a_pause_takes_no_stop_or_cancel_back(small_world: World) -> None:
    small_world.open()
    worker = small_world.worker()
    stopped, cancelled = worker.claim(), worker.claim()
    small_world.change("trials", {"number": 0}, desired="stop", desired_t=0.0)
    small_world.cancel(1)
    small_world.pause()
    assert (stopped.heartbeat(1), cancelled.heartbeat(1)) == ("stop", "cancel")
    small_world.resume()
    assert (stopped.heartbeat(1), cancelled.heartbeat(1)) == ("stop", "cancel")
    assert stopped.finish("pruned", 0) == "PRUNED"
    assert cancelled.finish("error", 0) == "CANCELLED"


def test_a_stop_after_a_pause_is_not_taken_back_by_the_next_resume(small_world: World) -> None:
    small_world.open()
    held = small_world.worker().claim()
    small_world.pause()
    small_world.resume()
    small_world.change("trials", {"number": 0}, desired="stop", desired_t=0.0)
    small_world.pause()
    small_world.resume()
    assert held.heartbeat(1) == "stop"


def test_time_in_pause_is_not_counted(world: World) -> None:
    world.open(budget={"trials": 8, "wall_time": 100})
    world.advance(40)
    world.pause()
    world.advance(1_000)
    world.sweep()
    assert world.study().state == "PAUSED"
    world.resume()
    world.advance(59)
    world.sweep()
    assert world.study().state == "RUNNING"
    world.advance(1)
    world.sweep()
    assert (world.study().state, world.study().reason) == ("ENDED", "wall_time")
    assert running_seconds(world.study(), 99_999.0) == pytest.approx(100)


# ------------------------------------------------------------------ the end


def test_a_stop_settles_what_waits_and_tells_what_runs(world: World) -> None:
    world.open()
    worker = world.worker()
    running, released = worker.claim(), worker.claim()
    released.report((10, 2.0))
    released.finish("preempted", 10)
    world.enqueue()
    assert world.stop().state == "ENDING"
    assert world.states() == ["RUNNING", "PRUNED", "CANCELLED"]
    assert world.trial(2).reason == "unused"
    assert running.report((10, 3.0)).decision == "stop"
    assert running.finish("pruned", 10) == "PRUNED"
    study = world.study()
    assert (study.state, study.reason) == ("ENDED", "stopped")
    assert world.differences() == []


def test_a_trial_that_was_released_while_ending_is_settled_too(small_world: World) -> None:
    small_world.open()
    held = small_world.worker().claim()
    held.report((10, 1.0))
    small_world.stop()
    assert held.finish("preempted", 10) == "PRUNED"
    assert small_world.study().state == "ENDED"


def test_a_paused_study_can_be_stopped(small_world: World) -> None:
    small_world.open()
    held = small_world.worker().claim()
    small_world.pause()
    held.finish("paused", 0)
    assert small_world.stop().state == "ENDED"
    assert small_world.trial().state == "PRUNED"


def test_a_study_without_a_trial_ends_at_once(small_world: World) -> None:
    small_world.open()
    assert small_world.stop().state == "ENDED"


@pytest.mark.parametrize("action", ["pause", "resume", "stop"])
def test_an_ended_study_cannot_be_steered(small_world: World, action) -> None:
    small_world.open()
    small_world.stop()
    with pytest.raises(Conflict, match="ENDED"):
        getattr(small_world, action)()


def test_only_an_ended_study_is_archived(small_world: World) -> None:
    small_world.open()
    with pytest.raises(Conflict, match="stop it before"):
        small_world.db.write(lambda tx: archive(tx, "study", True))
    small_world.stop()
    small_world.db.write(lambda tx: archive(tx, "study", True))
    assert small_world.reading.studies(False, None, 10).items == []
    assert [view.name for view in small_world.reading.studies(True, None, 10).items] == ["study"]


def test_a_study_that_nobody_made_is_not_found(small_world: World) -> None:
    for action in (small_world.pause, small_world.resume, small_world.stop):
        with pytest.raises(NotFound, match="no study named study"):
            action()


def test_a_taken_name_changes_nothing(world: World) -> None:
    world.open(budget={"trials": 2})
    with pytest.raises(DuplicateName):
        world.open(budget={"trials": 5})
    assert len(world.rows("studies")) == 1
    assert world.study().spec["budget"]["trials"] == 2


# ------------------------------------------------------------------ the breaker


def test_five_failures_in_a_row_without_a_report_pause_the_study(world: World) -> None:
    world.open()
    worker = world.worker()
    for number in range(5):
        assert world.study().state == "RUNNING"
        worker.claim().finish("diverged", 0, f"failure {number}")
    study = world.study()
    assert (study.state, study.reason) == ("PAUSED", "failing")
    assert study.error == "diverged: failure 0"
    assert worker.claim() is None


@pytest.mark.parametrize("saved_by", ["a report", "a success"])
def test_the_breaker_holds_when_one_trial_gets_somewhere(small_world: World, saved_by) -> None:
    small_world.open(budget={"trials": 20})
    worker = small_world.worker()
    for number in range(9):
        held = worker.claim()
        if number == 4 and saved_by == "a report":
            held.report((10, 1.0))
        if number == 4 and saved_by == "a success":
            held.train()
        else:
            held.finish("diverged", 0)
    assert small_world.study().state == "RUNNING"
    worker.claim().finish("diverged", 0)
    assert small_world.study().state == "PAUSED"


def test_the_breaker_counts_trials_not_attempts(small_world: World) -> None:
    small_world.open()
    worker = small_world.worker()
    for _ in range(3):
        worker.claim().finish("error", 0)
    assert (small_world.study().state, small_world.states()) == ("RUNNING", ["WAITING"])


def test_a_resumed_study_gets_five_new_chances(small_world: World) -> None:
    small_world.open(budget={"trials": 20})
    worker = small_world.worker()
    for _ in range(5):
        worker.claim().finish("diverged", 0)
    assert small_world.resume().error is None
    for _ in range(4):
        worker.claim().finish("diverged", 0)
        assert small_world.study().state == "RUNNING"
    worker.claim().finish("diverged", 0)
    assert small_world.study().state == "PAUSED"


def test_the_breaker_goes_by_order_not_by_the_wall_clock(small_world, monkeypatch) -> None:
    """The clock is set back by a day after the study was resumed."""
    small_world.open(budget={"trials": 20})
    worker = small_world.worker()
    for _ in range(5):
        worker.claim().finish("diverged", 0)
    small_world.resume()
    earlier = time.time() - 86_400
    monkeypatch.setattr(time, "time", lambda: earlier)
    for _ in range(4):
        worker.claim().finish("diverged", 0)
    assert small_world.study().state == "RUNNING"
    worker.claim().finish("diverged", 0)
    assert (small_world.study().state, small_world.study().reason) == ("PAUSED", "failing")


def test_a_cancelled_trial_says_nothing_of_the_study(world: World) -> None:
    world.open(budget={"trials": 20})
    worker = world.worker()
    for number in range(4):
        worker.claim().finish("diverged", 0, f"failure {number}")
    world.cancel(world.enqueue().number)
    assert world.study().state == "RUNNING"
    worker.claim().finish("diverged", 0)
    assert (world.study().state, world.study().error) == ("PAUSED", "diverged: failure 0")


def test_a_trial_names_its_worker_and_after_its_end_the_last_one(world: World) -> None:
    def named() -> str | None:
        (row,) = world.reading.trials("study").items
        assert world.reading.trial("study", 0).worker == row.worker
        return row.worker

    world.open(budget={"trials": 1})
    held = world.worker("first").claim()
    assert named() == "first"
    held.report((10, 3.0))
    held.checkpoint(10)
    held.finish("preempted", 10)
    assert named() is None  # nobody's while it waits
    again = world.worker("second").claim()
    again.report((30, 2.0))
    again.finish("ok", 30)
    assert named() == "second"
