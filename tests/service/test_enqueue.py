"""What people do to single trials: enqueue a configuration, cancel one."""

from __future__ import annotations

import pytest

from service.dispatch.enqueue import check_params
from studies.errors import Conflict, Finished, InvalidInput, NotFound
from tests.service.world import LEASE, World, spec

SEARCH = {
    "learning_rate": {"log": [1e-4, 1e-1]},
    "regularizer": {"choice": ["none", "l1"]},
    "lambda": {"log": [1e-8, 1e-2], "when": {"regularizer": "l1"}},
    "dropout": {"uniform": [0.0, 0.5], "step": 0.1},
    "embedding_dim": {"uniform": [64, 256], "step": 64},
}
WHOLE = {
    "learning_rate": 0.003,
    "regularizer": "l1",
    "lambda": 1e-4,
    "dropout": 0.1,
    "embedding_dim": 128,
}


def test_a_whole_configuration_is_tried_as_it_is(world: World) -> None:
    world.open(search=SEARCH)
    assert world.enqueue(**WHOLE).params == WHOLE
    recipe = world.worker().claim().grant.recipe
    assert (recipe.train.lambda_, recipe.train.regularizer) == (1e-4, "l1")
    assert (recipe.model.embedding_dim, recipe.model.dropout) == (128, 0.1)
    assert world.optuna().trials[0].params == WHOLE
    assert world.differences() == []


def test_what_is_left_out_is_sampled(world: World) -> None:
    world.open(search=SEARCH)
    params = world.enqueue(learning_rate=0.003).params
    assert params["learning_rate"] == 0.003
    assert set(params) >= {"regularizer", "dropout", "embedding_dim"}
    assert ("lambda" in params) == (params["regularizer"] == "l1")


def test_a_grid_goes_on_after_an_enqueued_point(small_world: World) -> None:
    ladder = {"learning_rate": {"log": [1e-3, 1.0], "points": 4}}
    small_world.open(search=ladder, sampler={"kind": "grid", "order": "descending"})
    small_world.enqueue(learning_rate=0.5)
    small_world.enqueue(learning_rate=0.1)  # a point of the grid: tried now, not again later
    worker = small_world.worker()
    rates = [held.grant.recipe.train.learning_rate for held in iter(worker.claim, None)]
    assert rates == [0.5, 0.1, 1.0, 0.01, 0.001]


WRONG = [
    ({"learning_rat": 0.1}, "params.learning_rat: is not searched", "did you mean learning_rate?"),
    ({"batch_size": 32}, "params.batch_size: is not searched in this study", "searched are"),
    ({"learning_rate": 0.5}, r"params.learning_rate: 0.5 is outside \[0.0001, 0.1\]", ""),
    ({"learning_rate": "fast"}, "params.learning_rate: 'fast' is not", ""),
    ({"learning_rate": None}, "params.learning_rate: None is not", ""),
    ({"regularizer": "l2"}, "params.regularizer: 'l2' is not among", ""),
    ({"regularizer": "none", "lambda": 1e-4}, "params.lambda: has no effect here", "only when"),
    ({"lambda": 1e-4}, "params.lambda: depends on regularizer", "regularizer"),
    ({"embedding_dim": 100}, r"params.embedding_dim: 100 is no whole number of steps", "128"),
    ({"embedding_dim": 64.5}, "params.embedding_dim: 64.5 is not", ""),
    ({"dropout": 0.15}, r"params.dropout: 0.15 is no whole number of steps", ""),
]


@pytest.mark.parametrize(("params", "says", "remedy"), WRONG)
def test_a_configuration_outside_the_space_is_refused(small_world, params, says, remedy) -> None:
    small_world.open(search=SEARCH)
    with pytest.raises(InvalidInput, match=says) as refused:
        small_world.enqueue(**params)
    assert remedy in refused.value.errors[0].remedy
    assert small_world.rows("trials") == []
    assert len(small_world.optuna().trials) == 0


def test_whole_floats_are_integers_and_the_other_way() -> None:
    said = check_params(spec(search=SEARCH), {"embedding_dim": 128.0, "dropout": 0})
    assert said == {"dropout": 0.0, "embedding_dim": 128}
    assert [type(value) for value in said.values()] == [float, int]


def test_the_ends_of_a_range_are_in_it() -> None:
    for dropout in (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.30000000000000004):
        assert check_params(spec(search=SEARCH), {"dropout": dropout}) == {"dropout": dropout}


def test_values_that_make_no_recipe_are_refused(small_world: World) -> None:
    small_world.open(
        model={"kind": "gpt", "heads": 4, "positions": "learned"},
        search={"embedding_dim": {"uniform": [64, 128]}},
    )
    with pytest.raises(InvalidInput, match="do not divide"):
        small_world.enqueue(embedding_dim=65)
    assert small_world.rows("trials") == []


def test_an_unknown_study_or_one_that_ends_takes_none(small_world: World) -> None:
    with pytest.raises(NotFound):
        small_world.enqueue("nowhere")
    small_world.open()
    small_world.stop()
    with pytest.raises(Conflict, match="ENDED; it takes no more trials"):
        small_world.enqueue()


def test_a_paused_study_takes_trials_for_later(small_world: World) -> None:
    small_world.open()
    small_world.pause()
    small_world.enqueue(learning_rate=0.01)
    worker = small_world.worker()
    assert worker.claim() is None
    small_world.resume()
    assert worker.claim().grant.recipe.train.learning_rate == 0.01


# ------------------------------------------------------------------ cancel


def test_a_waiting_trial_is_cancelled_at_once(world: World) -> None:
    world.open()
    world.enqueue()
    assert world.cancel(0).state == "CANCELLED"
    assert world.worker().claim().grant.number == 1
    assert world.differences() == []


def test_a_running_trial_is_cancelled_when_its_worker_hears_of_it(world: World) -> None:
    world.open()
    held = world.worker().claim()
    assert world.cancel(0).state == "RUNNING"
    assert held.heartbeat(1) == "cancel"
    assert held.report((10, 1.0)).decision == "cancel"
    assert held.finish("pruned", 10) == "CANCELLED"
    assert world.differences() == []


def test_a_running_trial_of_a_dead_worker_is_cancelled_after_its_lease(world: World) -> None:
    world.open()
    world.worker().claim()
    world.cancel(0)
    world.advance(LEASE * 1.1)
    world.sweep()
    assert world.trial().state == "CANCELLED"


def test_a_cancel_wins_over_a_finish(small_world: World) -> None:
    small_world.open()
    held = small_world.worker().claim()
    held.report((30, 1.0))
    small_world.cancel(0)
    assert held.finish("ok", 30) == "CANCELLED"
    assert small_world.reading.study("study").best is None


def test_a_trial_that_ended_cannot_be_cancelled(small_world: World) -> None:
    small_world.open()
    small_world.worker().run()
    with pytest.raises(Finished, match="COMPLETE already"):
        small_world.cancel(0)
    with pytest.raises(NotFound, match="no trial 9"):
        small_world.cancel(9)


def test_cancelling_the_last_trial_of_a_used_up_grid_ends_the_study(small_world: World) -> None:
    one = {"learning_rate": {"log": [1e-3, 1.0], "points": 2}}
    small_world.open(search=one, sampler={"kind": "grid"})
    worker = small_world.worker()
    worker.run()
    worker.claim().finish("preempted", 0)
    small_world.cancel(1)
    assert worker.claim() is None
    assert (small_world.study().state, small_world.study().reason) == ("ENDED", "exhausted")
