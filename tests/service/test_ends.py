"""What counts in the end: the visible reports, the value, and the finish, said once or twice."""

from __future__ import annotations

import pytest

from studies.errors import Conflict, InvalidInput, Unreported
from tests.service.world import LEASE, World

ASHA = {"kind": "asha", "min_steps": 10, "reduction_factor": 2}

# ------------------------------------------------------------------ what is visible


def test_an_attempt_starts_where_its_checkpoint_is(world: World) -> None:
    world.open()
    worker = world.worker()
    held = worker.claim()
    held.report((10, 3.0))
    held.checkpoint(10)
    held.report((20, 2.0))
    world.advance(LEASE * 1.1)
    again = worker.claim()
    assert (world.trial().step, world.trial().value) == (10, 3.0)
    assert [p.step for p in world.reading.trial("study", 0).curve] == [10]
    again.report((20, 2.5), (30, 2.4))
    again.finish("ok", 30)
    curve = world.reading.trial("study", 0).curve
    assert [(p.step, p.attempt, p.metrics["validation_loss"]) for p in curve] == [
        (10, 1, 3.0),
        (20, 2, 2.5),
        (30, 2, 2.4),
    ]
    assert world.optuna().trials[0].intermediate_values == {10: 3.0, 20: 2.5, 30: 2.4}
    assert len(world.rows("reports")) == 4


def test_without_a_checkpoint_it_starts_at_nothing(small_world: World) -> None:
    small_world.open()
    worker = small_world.worker()
    worker.claim().report((10, 3.0))
    small_world.advance(LEASE * 1.1)
    again = worker.claim()
    assert (again.grant.resume, small_world.trial().step) == (None, 0)
    assert again.train(1.0) == "COMPLETE"


def test_hidden_reports_are_nothing_to_a_scheduler(small_world: World) -> None:
    small_world.open(scheduler=ASHA)
    worker = small_world.worker()
    worker.claim().report((10, 0.1))  # the best by far, then lost
    small_world.advance(LEASE * 1.1)
    worker.claim().report((10, 5.0))
    assert worker.claim().report((10, 4.0)).decision == "continue"


# ------------------------------------------------------------------ the end


def test_the_value_is_that_of_the_final_step(world: World) -> None:
    """With early stopping the best step is final, not the last."""
    world.open()
    held = world.worker().claim()
    held.report((10, 2.0), (20, 1.0), (30, 1.5))
    held.finish("ok", 20)
    assert (world.trial().value, world.trial().step) == (1.0, 20)
    assert world.optuna().trials[0].value == 1.0
    assert world.reading.best("study").value == 1.0
    assert world.differences() == []


def test_ok_without_its_report_is_unreported(world: World) -> None:
    world.open()
    held = world.worker().claim()
    held.report((10, 2.0))
    with pytest.raises(Unreported, match="send the report of step 30"):
        held.finish("ok", 30)
    assert world.trial().state == "RUNNING"
    held.report((30, 1.0))
    assert held.finish("ok", 30) == "COMPLETE"


@pytest.mark.parametrize("outcome", ["pruned", "paused", "lost"])
def test_an_end_that_nobody_asked_for_is_refused(world: World, outcome) -> None:
    world.open()
    held = world.worker().claim()
    held.report((10, 2.0))
    with pytest.raises(InvalidInput, match="outcome"):
        held.finish(outcome, 10)
    assert world.trial().state == "RUNNING"
    assert held.train(2.0) == "COMPLETE"


def test_paused_is_refused_where_only_a_stop_was_asked_for(world: World) -> None:
    world.open()
    held = world.worker().claim()
    held.report((10, 2.0))
    world.stop()
    with pytest.raises(InvalidInput, match="nobody asked this trial to pause"):
        held.finish("paused", 10)
    assert held.finish("pruned", 10) == "PRUNED"


@pytest.mark.parametrize(
    ("then", "state"),
    [
        (["resume"], "WAITING"),
        (["stop"], "PRUNED"),
        (["resume", "stop"], "PRUNED"),
        (["resume", "pause"], "PAUSED"),
        (["resume", "pause", "resume"], "WAITING"),
    ],
)
def test_a_pause_that_was_asked_for_may_come_late(world: World, then, state) -> None:
    world.open()
    held = world.worker().claim()
    held.report((10, 2.0))
    world.pause()
    for act in then:
        getattr(world, act)()
    assert held.finish("paused", 10) == state


def test_a_pause_of_an_earlier_attempt_was_not_asked_of_this_one(small_world: World) -> None:
    small_world.open()
    worker = small_world.worker()
    held = worker.claim()
    small_world.pause()
    small_world.resume()
    held.finish("preempted")
    again = worker.claim()
    with pytest.raises(InvalidInput, match="nobody asked"):
        again.finish("paused")


def test_the_same_finish_again_has_the_same_answer(world: World) -> None:
    world.open()
    held = world.worker().claim()
    held.report((30, 2.0))
    assert [held.finish("ok", 30) for _ in range(3)] == ["COMPLETE"] * 3
    with pytest.raises(Conflict, match="another finish"):
        held.finish("preempted", 30)
    assert len(world.rows("events", kind="complete")) == 1


def test_the_same_finish_again_is_known_after_the_next_attempt(small_world: World) -> None:
    small_world.open()
    worker = small_world.worker()
    first = worker.claim()
    first.finish("preempted", 0)
    worker.claim()
    assert first.finish("preempted", 0) == "WAITING"
